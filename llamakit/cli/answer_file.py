"""The JSON Lines file of ``--output``: answers or scores are appended to it, one a line.

A line that a kill or a full disk has truncated is removed when the file is opened again, and its
prompt is answered again.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from llamakit.errors import DestinationError, FileFormatError
from llamakit.files.disk_errors import naming
from llamakit.files.json_reader import MAX_NBYTES, parse_json
from llamakit.files.links import follow_own_links
from llamakit.files.regular_file import open_descriptor, open_regular
from llamakit.files.system_calls import lock_file
from llamakit.llama.prompts import digest
from llamakit.printable import printable

LINE_STARTS = (b'{"index": ', b'{"id": "batch_req_')
"""How every line begins; a truncated line is recognized by it."""


class Asked(Protocol):
    """A prompt, or what is scored."""

    @property
    def id(self) -> str | int | None:
        """What its file calls it, if anything."""
        ...

    @property
    def digest(self) -> str:
        """A hash of its content."""
        ...

    @property
    def seed(self) -> int | None:
        """Its own, if it has one."""
        ...


class AnswerFile:
    """Answers on disk, by the id of their prompt. Use it in a ``with`` statement.

    Args:
        path: created if it does not exist, and removed again if an error comes before any answer.
        keep: keep what is read in ``earlier``.
    Raises:
        FileFormatError: the file has other content.
        DestinationError: another program is writing to it, or another user's link is there.
    """

    def __init__(self, path: Path, *, keep: bool = False) -> None:
        self.path = path
        self.earlier: list[Mapping[str, Any]] = []
        self._keep = keep
        self._digests: dict[str | int, tuple[str, int | None]] = {}
        self._settings: dict[str, dict[str, Any]] = {}
        self._target = follow_own_links(path)
        descriptor, self._is_new = _open_or_create(self._target)
        self._file = os.fdopen(descriptor, "ab", buffering=0)
        try:
            lock_answers(self._file, path)
            _check_is_there(self._file, path)
            self._read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> AnswerFile:
        """Return the file itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *unused: object) -> None:
        """Close it; an error before the first answer leaves no empty file."""
        if kind is not None and self._is_new and not os.fstat(self._file.fileno()).st_size:
            with contextlib.suppress(OSError):  # Windows removes no open file
                self._target.unlink()  # while it is locked: nobody else has written to it
        self._file.close()

    def __len__(self) -> int:
        """How many answers are in it."""
        return len(self._digests)

    def has_answer(self, name: str | int, prompt: Asked) -> bool:
        """Tell whether the answer to a prompt is in the file.

        Args:
            name: the prompt's id.
        Raises:
            FileFormatError: the id is that of another prompt, or of one with another seed.
        """
        known = self._digests.get(name)
        if known is not None and (known[0] != prompt.digest or prompt.seed not in (None, known[1])):
            raise FileFormatError(
                f"{self.path} has the answer to another prompt whose id is {name!r}: give the "
                "prompts other ids, or pass another --output"
            )
        return known is not None

    def check_settings(
        self,
        settings: Mapping[str, Any],
        others: str = "--mixed to add to it: every line says what made it",
    ) -> None:
        """Refuse to add answers to those that something else has made.

        Lines of versions that did not record it are taken as they are.

        Args:
            settings: what makes the answers to come, as the lines have it.
            others: what to pass instead of another ``--output``.
        Raises:
            DestinationError: an answer in the file was made by another model or other settings.
        """
        for recorded in self._settings.values():
            if said := differences(recorded, settings):
                raise DestinationError(
                    f"{self.path} has answers that were made otherwise: {said}. Pass "
                    f"another --output, or {others}"
                )

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
                if not line.endswith(b"\n") and is_truncated(line):
                    self._file.truncate(end)
                    return
                self._parse(line, number)
                end += len(line)
        if not line.endswith(b"\n"):
            self._file.write(b"\n")

    def _parse(self, line: bytes, number: int) -> None:
        record = read_answer(line, self.path, number)
        self._digests[record["custom_id"]] = record["digest"], record.get("seed")
        if settings := record.get("settings"):
            self._settings[json.dumps(settings, sort_keys=True)] = settings
        if self._keep:
            self.earlier.append(record)


def _open_or_create(path: Path) -> tuple[int, bool]:
    """Open a file to read it and to append to it; say whether it was not there before."""
    flags = os.O_RDWR | os.O_APPEND
    try:
        return open_descriptor(path, flags), False
    except FileNotFoundError:
        pass
    try:
        return open_descriptor(path, flags | os.O_CREAT | os.O_EXCL), True
    except FileExistsError:  # another process was quicker
        return open_descriptor(path, flags), False


def _check_is_there(file: IO[bytes], path: Path) -> None:
    """Check that a file has not been removed between its opening and its locking.

    Raises:
        DestinationError: the process that had made it has.
    """
    try:
        is_there = os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        is_there = False
    if not is_there:
        raise DestinationError(
            f"{path} was removed by another program just now: run the same command again"
        )


def read_answer(line: bytes, path: Path, number: int) -> dict[str, Any]:
    """Read a line of a file of answers.

    Args:
        path, number: of the line, for messages.
    Returns:
        Its object, or that under ``llamakit`` of a line of OpenAI's batch output; ``custom_id`` is
        the id, and ``digest`` the hash of the prompt, of both.
    Raises:
        FileFormatError: it is something else.
    """
    try:
        answer = parse_json(line, str(path))
        record = answer.get("llamakit")  # of a line of OpenAI's batch output
        name = answer["id"] if record is None else answer["custom_id"]
        record = {"digest": _digest(answer), **answer} if record is None else record
        digested, settings = record["digest"], record.get("settings")
        if not isinstance(name, str | int) or not isinstance(digested, str):
            raise TypeError
        return {**record, "custom_id": name, **({"settings": dict(settings)} if settings else {})}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(
            f"{path}, line {number}: expected an answer with an id, as --output writes them: pass "
            "another file"
        ) from error


def _digest(answer: Mapping[str, Any]) -> str:
    """Return the digest of a line's prompt: as the line has it, else of what it repeats."""
    if isinstance(answer.get("digest"), str):
        return str(answer["digest"])
    content = answer["prompt"] if "prompt" in answer else answer["messages"]
    return digest(content, answer.get("tools"))


def differences(recorded: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Say in what two records differ; the folder's name is no difference by itself."""
    differing = [
        key
        for key in {**recorded, **settings}
        if key != "model" and recorded.get(key) != settings.get(key)
    ]
    said = [
        f"{key} {_shown(recorded, key)}, not {_shown(settings, key)}"
        for key in differing
        if key != "weights"
    ]
    if "weights" in differing:
        said.insert(0, f"model {recorded.get('model')}, not {settings.get('model')}")
    return printable("; ".join(said), 400)


def _shown(record: Mapping[str, Any], key: str) -> str:
    return json.dumps(record[key], ensure_ascii=False) if key in record else "by default"


def name_of(prompt: Asked, index: int) -> str | int:
    """Return a prompt's id: its own, else one made from its number and its content.

    So prompts of the same number in different files have different ids.
    """
    return f"{index}-{prompt.digest[:12]}" if prompt.id is None else prompt.id


def check_names(prompts: Sequence[Asked], path: Path) -> None:
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


def is_truncated(line: bytes) -> bool:
    """Tell whether a line without a line end is the beginning of an answer."""
    try:
        parse_json(line, "the last line")
    except ValueError:
        return line.startswith(LINE_STARTS) or any(it.startswith(line) for it in LINE_STARTS)
    return False


def lock_answers(file: IO[bytes], path: Path, *, to_read: bool = False) -> None:
    """Lock a file of answers against other processes, where the system can.

    Args:
        to_read: only against those that write to it.
    Raises:
        DestinationError: another process has locked it.
    """
    try:
        lock_file(file.fileno(), shared=to_read)
    except BlockingIOError as error:
        raise DestinationError(
            f"{path}: another llamakit is writing its answers there; wait for it, or pass "
            "another --output"
        ) from error
