"""The JSON Lines file of ``generate --output``: answers are appended to it, one a line.

A line that a kill or a full disk has truncated is removed when the file is opened again, and its
prompt is answered again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from llamakit.errors import DestinationError, FileFormatError
from llamakit.files.disk_errors import naming
from llamakit.files.json_reader import MAX_NBYTES, parse_json
from llamakit.files.links import follow_own_links
from llamakit.files.regular_file import open_descriptor, open_regular
from llamakit.files.system_calls import lock_file
from llamakit.llama.prompts import Prompt, digest

LINE_START = b'{"index": '
"""How every line begins; a truncated line is recognized by it."""


class AnswerFile:
    """Answers on disk, by the token of their prompt. Use it in a ``with`` statement.

    Args:
        path: created if it does not exist.
    Raises:
        FileFormatError: the file has other content.
        DestinationError: another program is writing to it, or another user's link is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._digests: dict[str | int, str] = {}
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        self._file = os.fdopen(open_descriptor(follow_own_links(path), flags), "ab", buffering=0)
        try:
            _lock(self._file, path)
            self._read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> AnswerFile:
        """Return the file itself."""
        return self

    def __exit__(self, *unused: object) -> None:
        """Close it."""
        self._file.close()

    def __len__(self) -> int:
        """How many answers are in it."""
        return len(self._digests)

    def has_answer(self, name: str | int, prompt: Prompt) -> bool:
        """Tell whether the answer to a prompt is in the file.

        Args:
            name: the prompt's id.
        Raises:
            FileFormatError: the token is that of another prompt.
        """
        known = self._digests.get(name)
        if known is not None and known != prompt.digest:
            raise FileFormatError(
                f"{self.path} has the answer to another prompt whose id is {name!r}: give the "
                "prompts other ids, or pass another --output"
            )
        return known is not None

    def append(self, answer: Mapping[str, Any]) -> None:
        """Write one answer, with a single write as long as the disk has room."""
        line = memoryview((json.dumps(answer, ensure_ascii=False) + "\n").encode())
        with naming(self.path):
            while line:
                line = line[self._file.write(line) :]

    def _read(self) -> None:
        end, line = 0, b"\n"
        with open_regular(self.path) as lines:
            for number, line in enumerate(iter(lambda: lines.readline(MAX_NBYTES + 1), b""), 1):
                if not line.endswith(b"\n") and _is_truncated(line):
                    self._file.truncate(end)
                    return
                self._parse(line, number)
                end += len(line)
        if not line.endswith(b"\n"):
            self._file.write(b"\n")

    def _parse(self, line: bytes, number: int) -> None:
        try:
            answer = parse_json(line, str(self.path))
            content = answer.get("prompt") if "prompt" in answer else answer["messages"]
            self._digests[answer["id"]] = digest(content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileFormatError(
                f"{self.path}, line {number}: expected an answer with an id, as --output writes "
                "them: pass another --output"
            ) from error


def name_of(prompt: Prompt, index: int) -> str | int:
    """Return a prompt's id: its own, else one made from its number and its content.

    So prompts of the same number in different files have different tokens.
    """
    return f"{index}-{prompt.digest[:12]}" if prompt.id is None else prompt.id


def check_names(prompts: list[Prompt], path: Path) -> None:
    """Check that no two prompts have the same id: one would get the other's answer.

    Raises:
        FileFormatError: two have.
    """
    seen: set[str | int] = set()
    for index, prompt in enumerate(prompts):
        name = name_of(prompt, index)
        if name in seen:
            raise FileFormatError(
                f"two prompts have the id {name!r}: {path} has one answer per id, so give each "
                "prompt its own"
            )
        seen.add(name)


def _is_truncated(line: bytes) -> bool:
    """Tell whether a line without a line end is the beginning of an answer."""
    try:
        parse_json(line, "the last line")
    except ValueError:
        return line.startswith(LINE_START) or LINE_START.startswith(line)
    return False


def _lock(file: IO[bytes], path: Path) -> None:
    """Lock the file against other processes, where the system can."""
    try:
        lock_file(file.fileno())
    except BlockingIOError as error:
        raise DestinationError(
            f"{path}: another llamakit is writing its answers there; wait for it, or pass "
            "another --output"
        ) from error
