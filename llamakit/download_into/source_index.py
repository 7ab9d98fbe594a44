"""Fetches the indexes of a model's shards, so that it can be opened before it is fetched."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Mapping
from functools import partial
from pathlib import Path

from llamakit.checkpoint.index_copy import copy_index
from llamakit.download.events import Event
from llamakit.download.http_client import HttpClient
from llamakit.download.part_file import Identity
from llamakit.download.responses import (
    ChangedError,
    NoRangesError,
    RemoteFile,
    TransientError,
)
from llamakit.download.retry import RetryPolicy, retried
from llamakit.errors import DownloadError
from llamakit.files.atomic_file import write_atomically
from llamakit.files.json_reader import read_json_file
from llamakit.files.links import make_folders

INDEXES = "indexes.json"
"""Says of which version of each shard the index is there."""


class SourceIndexes:
    """The indexes of shards, each a sparse file of the size of its shard.

    Args:
        folder: what the models' folders are in; what was fetched of which version is recorded in
            it, so that the next run need not fetch it again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._record: dict[str, object] = {}
        with contextlib.suppress(OSError, ValueError):
            record = read_json_file(folder / INDEXES)
            self._record = record if isinstance(record, dict) else {}

    def fetch(
        self, server: HttpClient, remote_files: Mapping[str, RemoteFile], retry_policy: RetryPolicy
    ) -> Generator[Event, None, None]:
        """Fetch the indexes that are not there.

        Args:
            remote_files: by path.

        Raises:
            DownloadError: the server does not send ranges, or another file now.
            UnsupportedModelError: a file is laid out in another way than torch's.
        """
        for path, remote in remote_files.items():
            if self._is_there(remote.identity):
                continue
            place = make_folders(self._folder, Path(path).parent) / Path(path).name
            yield from _fetch(server, place, remote, retry_policy)
            self._record[path] = [remote.identity.nbytes, remote.identity.validator]
            write_atomically(self._folder / INDEXES, json.dumps(self._record).encode(), mode=0o600)

    def forget(self) -> None:
        """Have all indexes fetched again."""
        self._record = {}
        (self._folder / INDEXES).unlink(missing_ok=True)

    def known(self, path: str) -> RemoteFile | None:
        """Return what the server said of a shard whose index is there; None of any other."""
        record = self._record.get(path)
        if not isinstance(record, list) or list(map(type, record)) != [int, str]:
            return None
        identity = Identity(path, *record)
        return RemoteFile(identity, accepts_ranges=True) if self._is_there(identity) else None

    def _is_there(self, identity: Identity) -> bool:
        same = self._record.get(identity.path) == [identity.nbytes, identity.validator]
        file = self._folder / identity.path
        return same and file.is_file() and file.stat().st_size == identity.nbytes


def _fetch(
    server: HttpClient, place: Path, remote: RemoteFile, retry_policy: RetryPolicy
) -> Generator[Event, None, None]:
    identity = remote.identity
    if not remote.accepts_ranges:
        raise _no_ranges(identity.path)
    steps = copy_index(place, identity.nbytes)
    with contextlib.suppress(StopIteration):
        start, stop = next(steps)
        while True:
            ask = partial(_range, server, identity, start, stop)
            start, stop = steps.send((yield from retried(identity.path, ask, retry_policy)))


def _range(server: HttpClient, identity: Identity, start: int, stop: int) -> bytes:
    try:
        with server.byte_range(identity, start, stop) as body:
            data = b"".join(body.chunks)[: stop - start]
    except ChangedError as change:
        raise DownloadError(
            f"{identity.path} has changed on the server while its index was fetched: {change}. Run "
            "the same command again."
        ) from None
    except NoRangesError:
        raise TransientError(
            "the server sent the whole file, not the requested range", max_attempts=3
        ) from None
    if len(data) < stop - start:
        raise TransientError(
            f"the server ended {identity.path} at byte {start + len(data)}, before {stop}"
        )
    return data


def _no_ranges(path: str) -> DownloadError:
    return DownloadError(
        f"the server sends {path} as a whole only, and --into reads its end first: download the "
        "model without --into, and convert it then"
    )
