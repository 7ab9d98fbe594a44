"""What ``huggingface_hub`` says of a repository: files, sizes, checksums; and the user's token."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llamakit._distribution import __version__
from llamakit.download.inventory import RequiredFile
from llamakit.download.link import Link
from llamakit.download.redaction import Redactor
from llamakit.download.responses import TransientError
from llamakit.errors import DownloadError, MissingExtraError, UsageError
from llamakit.plugin_manager.contracts.catalog_entries import is_inside
from llamakit.printable import printable

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

PREFIX = "hf:"
META_FILES = "original/*"
"""Where Meta's own repositories have the files in Meta's format."""
_PART = re.compile(r"(?:.*/)?consolidated\.\d+/[^/]+\.pth")
_NAME = re.compile(r"hf:(?P<repo>[\w-][\w.-]*/(?P<name>[\w-][\w.-]*))(?:@(?P<revision>[^@\s]+))?")
_SERVER_ERROR = 500


@dataclass(frozen=True)
class HubRepo:
    """A repository, as the user names it.

    Args:
        repo_id: ``owner/name``.
        folder: its name: that of the folder on disk.
        revision: a branch, tag or commit; None is the main branch.
    """

    repo_id: str
    folder: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repo_id + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True)
class HubLink(Link):
    """The addresses of the files of one commit."""

    repo_id: str
    folder: str
    token: str | None = field(repr=False)

    def url(self, path: str) -> str:
        """Return the address of a file of the output folder."""
        return super().url(path.removeprefix(f"{self.folder}/"))

    @property
    def headers(self) -> Mapping[str, str]:
        """The token, for the hub itself and no server that it redirects to."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def refusal(self, path: str, code: int) -> DownloadError:
        """Return the error for a status such as 403."""
        return _refused(self.repo_id, f"HTTP {code} for {path}", has_token=self.token is not None)

    def redactor(self) -> Redactor:
        """Return what finds the token, and a password of ``HF_ENDPOINT``."""
        return Redactor((self.token or "", urlsplit(self._before).netloc.rpartition("@")[0]))


@dataclass(frozen=True)
class HubFiles:
    """The chosen files of one commit."""

    link: HubLink
    commit: str
    files: tuple[RequiredFile, ...]


def parse_repo(text: str) -> HubRepo:
    """Parse ``hf:owner/name@revision``.

    Raises:
        UsageError: it is not such a name.
    """
    match = _NAME.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"{text!r} is no repository; expected hf:owner/name, or hf:owner/name@revision"
        )
    return HubRepo(match["repo"], match["name"], match["revision"])


def list_files(repo: HubRepo, include: Sequence[str], timeout: float) -> HubFiles:
    """Ask the hub which files a repository has.

    Args:
        include: patterns; none: ``original/*`` where there is such a folder, else all files.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        DownloadError: there is no such repository, revision or file, or the user may not read it.
        TransientError: a later request may succeed.
    """
    try:
        from huggingface_hub import HfApi, constants, get_token
    except ImportError as error:
        raise MissingExtraError("hf:owner/name", error.name, "hub") from error
    api = HfApi(os.environ.get("HF_ENDPOINT"), library_name="llamakit", library_version=__version__)
    endpoint = str(api.endpoint).rstrip("/")
    token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
    info = _info(api, repo, timeout, has_token=token is not None)
    siblings = info.siblings or []
    if not include and any(one.rfilename.startswith("original/") for one in siblings):
        include = (META_FILES,)
    chosen = [one for one in siblings if not include or _matches(one.rfilename, include)]
    _check_choice(repo, siblings, chosen, include)
    base = f"{endpoint}/{repo.repo_id}/resolve/{info.sha}/"
    host = urlsplit(endpoint).netloc.rpartition("@")[2]
    link = HubLink(host, None, base, "", repo.repo_id, repo.folder, token)
    return HubFiles(link, str(info.sha), tuple(_required(repo, one) for one in chosen))


def _info(api: HfApi, repo: HubRepo, timeout: float, *, has_token: bool) -> ModelInfo:
    """Request what the hub knows of a repository, and turn the library's errors into ours."""
    from huggingface_hub import errors

    try:
        return api.model_info(
            repo.repo_id, revision=repo.revision, files_metadata=True, timeout=timeout
        )
    except errors.GatedRepoError:
        raise _refused(repo.repo_id, "gated", has_token=has_token) from None
    except errors.RepositoryNotFoundError:
        advice = "" if has_token else ", or is private: set HF_TOKEN or run hf auth login"
        raise DownloadError(
            f"the hub has no repository {repo.repo_id} that you may see: its name is wrong{advice}"
        ) from None
    except errors.RevisionNotFoundError:
        raise DownloadError(
            f"{repo.repo_id} has no revision {repo.revision}; name a branch, a tag or a commit "
            "after the @, or leave it out for the main branch"
        ) from None
    except errors.OfflineModeIsEnabled:
        raise DownloadError(
            "HF_HUB_OFFLINE is set, so the hub cannot be asked: unset it to download"
        ) from None
    except errors.HFValidationError as error:
        raise UsageError(f"hf:{repo.repo_id} is no name of a repository: {error}") from None
    except errors.HfHubHTTPError as error:
        code = error.response.status_code
        if code in (401, 403):
            raise _refused(repo.repo_id, f"HTTP {code}", has_token=has_token) from None
        if code < _SERVER_ERROR and code != 429:
            raise DownloadError(f"the hub answered HTTP {code} for {repo}") from None
        raise TransientError(f"the hub answered HTTP {code}") from None
    except (errors.HTTPError, OSError, ValueError) as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise DownloadError(
                "the certificate of the hub cannot be verified: is the clock right, and a proxy "
                "between? SSL_CERT_FILE names other authorities"
            ) from None
        raise TransientError(f"no answer from the hub ({type(error).__name__})") from None


def _check_choice(
    repo: HubRepo,
    siblings: Sequence[RepoSibling],
    chosen: Sequence[RepoSibling],
    include: Sequence[str],
) -> None:
    names = [one.rfilename for one in chosen]
    if not names:
        shown = printable(", ".join(one.rfilename for one in siblings[:8])) or "nothing"
        raise DownloadError(
            f"{repo} has no file that matches {' or '.join(include) or '*'}; it has {shown}"
            + (", …" if len(siblings) > 8 else "")
        )
    if strange := [name for name in names if not _is_plain(name)]:
        raise DownloadError(
            f"{repo} has a file {strange[0]!r:.80}; expected a printable path inside its folder"
        )
    if parts := [name for name in names if _PART.fullmatch(name)]:
        raise DownloadError(
            f"{repo} keeps shards in parts, such as {parts[0]}, and how these make up a shard is "
            "not documented, so llamakit does not join them: download the model with Meta's link, "
            "or fetch the repository's safetensors (--include '*.safetensors' --include '*.json') "
            "and run llamakit import"
        )


def _is_plain(name: str) -> bool:
    return is_inside(name) and name.isprintable() and "\\" not in name


def _required(repo: HubRepo, file: RepoSibling) -> RequiredFile:
    if file.lfs is not None:
        checksum, nbytes = file.lfs.sha256, file.lfs.size
    elif file.blob_id and file.size is not None:
        checksum, nbytes = file.blob_id, file.size
    else:
        raise DownloadError(f"the hub does not report size and checksum of {file.rfilename}")
    return RequiredFile(f"{repo.folder}/{file.rfilename}", checksum, nbytes, is_exact=True)


def _matches(name: str, include: Sequence[str]) -> bool:
    """Tell whether a file is asked for; ``folder/`` means all that is in it, as on the hub."""
    patterns = (f"{one}*" if one.endswith("/") else one for one in include)
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _refused(repo_id: str, why: str, *, has_token: bool) -> DownloadError:
    token = (
        "make sure that your token may read gated repositories"
        if has_token
        else "set HF_TOKEN, or run hf auth login"
    )
    return DownloadError(
        f"the hub does not let you read {repo_id} ({why}): accept its terms on the page of the "
        f"repository, and {token}. What is downloaded is kept."
    )
