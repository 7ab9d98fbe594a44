"""The small files of a model's folder that conversions to every format copy.

They are what a fine-tune adds around its weights (tokens, chat templates, stop tokens), and the
license.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from llamakit.checkpoint.capabilities import embedded_files
from llamakit.convert.conversion_plan import SmallFile
from llamakit.convert.model_kind import FOLDERS_OF_THE_HUB
from llamakit.files.links import leads_outside
from llamakit.files.regular_file import check_regular
from llamakit.protocols import Checkpoint

TOKENIZER = "tokenizer.model"
TOKENIZER_JSON = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS_MAP = "special_tokens_map.json"
GENERATION_CONFIG = "generation_config.json"
TEMPLATES = ("chat_template.jinja", "chat_template.json")
TOKENIZER_FILES = (
    *(TOKENIZER_JSON, TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP, "added_tokens.json"),
    *TEMPLATES,
)
"""What Hugging Face's folders have next to, or instead of, a tokenizer.model."""
HF_FILES = ("config.json", GENERATION_CONFIG, *TOKENIZER_FILES[:3], TOKENIZER)
"""What an export writes, or some of it."""
_MORE_TEMPLATES = "additional_chat_templates"
_LICENSE = re.compile(r"(license|use_policy|notice)(\.md|\.txt)?", re.IGNORECASE)


@contextlib.contextmanager
def small_files_of(checkpoint: Checkpoint) -> Iterator[tuple[Path, Path | None]]:
    """Give the folder with a checkpoint's small files, and its tokenizer there, above, or nowhere.

    What is embedded in the file of the weights is in a temporary folder for that long.
    """
    embedded = embedded_files(checkpoint)
    if not embedded:
        yield checkpoint.path, find_tokenizer(checkpoint.path)
        return
    with TemporaryDirectory(prefix="llamakit-") as name:
        folder = Path(name)
        for file, content in embedded.items():
            (folder / file).write_bytes(content)
        has_tokenizer = not {TOKENIZER, TOKENIZER_JSON}.isdisjoint(embedded)
        yield folder, find_tokenizer(folder if has_tokenizer else checkpoint.path)


def find_tokenizer_file(path: Path) -> Path | None:
    """Find a checkpoint's tokenizer.model in its folder or in the one above."""
    for folder in (path, path.resolve().parent):
        if (folder / TOKENIZER).exists():
            return folder / TOKENIZER
    return None


def find_tokenizer(path: Path) -> Path | None:
    """Find a checkpoint's tokenizer.model, or else the tokenizer.json in its folder."""
    complete = path / TOKENIZER_JSON
    return find_tokenizer_file(path) or (complete if complete.exists() else None)


def tokenizer_companions(folder: Path) -> list[Path]:
    """Return the files that are next to a tokenizer; name what is not copied."""
    if (folder / _MORE_TEMPLATES).is_dir():
        _log().warning(
            "%s is not copied: only the default chat template is", folder / _MORE_TEMPLATES
        )
    return [folder / name for name in TOKENIZER_FILES if (folder / name).exists()]


def license_files(path: Path, tokenizer: Path | None) -> list[Path]:
    """Return a model's license and policy of use, and none where the folders have none.

    They are in its folder, or above: next to the tokenizer as in Meta's downloads of Llama 2, or
    above the ``original`` of the hub.
    """
    folders = [path if path.is_dir() else path.parent]  # a format of a plugin's may be a file
    parent = path.resolve().parent
    if path.resolve().name in FOLDERS_OF_THE_HUB or (tokenizer and tokenizer.parent == parent):
        folders.append(parent)
    by_name = {
        file.name: file
        for folder in reversed(folders)
        for file in sorted(folder.iterdir())
        if _LICENSE.fullmatch(file.name) and file.is_file()
    }
    return list(by_name.values())


def copy_of(file: Path, checkpoint: Path, name: str | None = None) -> SmallFile:
    """Return a file that is copied as it is, under its own name or another.

    Raises: as ``check_copied``.
    """
    check_copied(file, checkpoint)
    return SmallFile(name or file.name, file)


def check_copied(file: Path, checkpoint: Path) -> None:
    """Check a file that is copied as it is; warn if a link leads it out of the checkpoint.

    Whoever made the checkpoint chose where the link leads, and whoever gets the copy can read what
    is there.

    Args:
        checkpoint: its folder.
    Raises:
        NotRegularFileError: it is a FIFO, a socket, a device or a folder.
    """
    check_regular(file, file.stat())
    if outside := leads_outside(file, checkpoint):
        _log().warning(
            "%s is a link to %s, outside of the checkpoint; what is there is copied. If that is no "
            "file of the model, remove the copy",
            file,
            outside,
        )


def _log() -> logging.Logger:
    return logging.getLogger("llamakit")
