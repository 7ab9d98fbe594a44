"""The file that answers are appended to, and what it holds already.

One line an answer, whole: what was cut off by a kill or a full disk is dropped when the file is
opened again, and its prompt is answered again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from llamakit.errors import DestinationError, FileFormatError
from llamakit.llama.prompts import Prompt, digest

BEGINNING = b'{"index": '
"""How every line begins: what is cut off is known by it."""


class AnswerFile:
    """Answers on disk, by the id of their prompt. Use it in a ``with`` statement.

    Args:
        path: made if it is not there.
    Raises:
        FileFormatError: it holds something else.
        DestinationError: another program is writing to it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._done: dict[str | int, str] = {}
        self._file = path.open("ab", buffering=0)
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
        """How many answers it holds."""
        return len(self._done)

    def holds(self, name: str | int, prompt: Prompt) -> bool:
        """Tell whether a prompt has its answer.

        Args:
            name: its id.
        Raises:
            FileFormatError: the id is that of another prompt.
        """
        found = self._done.get(name)
        if found is not None and found != prompt.digest:
            raise FileFormatError(
                f"{self.path} holds the answer to another prompt whose id is {name!r}: give the "
                "prompts other ids, or pass another --output"
            )
        return found is not None

    def append(self, answer: Mapping[str, Any]) -> None:
        """Write one answer, whole, at once."""
        line = json.dumps(answer, ensure_ascii=False) + "\n"
        self._file.write(line.encode())

    def _read(self) -> None:
        end, line = 0, b"\n"
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n") and _is_cut_off(line):
                    self._file.truncate(end)
                    return
                self._take(line, number)
                end += len(line)
        if not line.endswith(b"\n"):
            self._file.write(b"\n")

    def _take(self, line: bytes, number: int) -> None:
        try:
            answer = json.loads(line)
            content = answer.get("prompt") if "prompt" in answer else answer["messages"]
            self._done[answer["id"]] = digest(content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileFormatError(
                f"{self.path}, line {number}: expected an answer with an id, as --output writes "
                "them: pass another --output"
            ) from error


def name_of(prompt: Prompt, index: int) -> str | int:
    """Return a prompt's id: its own, else one of its number and its text.

    Another file's prompt of the same number has another one.
    """
    return f"{index}-{prompt.digest[:12]}" if prompt.id is None else prompt.id


def check_names(prompts: list[Prompt], path: Path) -> None:
    """Refuse prompts that have the same id: one of them would be taken for the other.

    Raises:
        FileFormatError: two have.
    """
    seen: set[str | int] = set()
    for index, prompt in enumerate(prompts):
        name = name_of(prompt, index)
        if name in seen:
            raise FileFormatError(
                f"two prompts have the id {name!r}: {path} is to hold one answer an id, so give "
                "each prompt its own"
            )
        seen.add(name)


def _is_cut_off(line: bytes) -> bool:
    """Tell whether a line without an end is the beginning of an answer."""
    try:
        json.loads(line)
    except ValueError:
        return line.startswith(BEGINNING) or BEGINNING.startswith(line)
    return False


def _lock(file: IO[bytes], path: Path) -> None:
    """Let no other program append to the file at the same time, where the system can."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise DestinationError(
            f"{path}: another llamakit is writing its answers there; wait for it, or pass "
            "another --output"
        ) from error
