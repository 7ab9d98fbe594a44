"""Puts files of answers together: one answer an id, in the order of their questions.

What is kept of an answer is its number, its place and two hashes, some 200 bytes; its line is read
again when it is copied.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from llamakit.cli.answer_file import (
    check_names,
    differences,
    is_truncated,
    lock_answers,
    name_of,
    read_answer,
)
from llamakit.errors import DestinationError, FileFormatError
from llamakit.files.disk_errors import naming
from llamakit.files.file_stamp import Stamp, check_stamp, stamp
from llamakit.files.json_reader import MAX_NBYTES
from llamakit.files.regular_file import open_regular
from llamakit.llama.prompts import Prompt
from llamakit.printable import printable

_MOST_OPEN = 64
"""Files at a time: an array may have more tasks than a process may open files."""
_HASH = 8


class AnswerJoin:
    """The answers of several files, which are read alone.

    Args:
        paths: of files that ``generate --output`` has written.
        mixed: take them together although other models or settings have made some.
    Raises:
        FileFormatError: a file has other content, or an id is there twice.
        DestinationError: a file is being written, or other settings have made some answers.
    """

    def __init__(self, paths: Sequence[Path], *, mixed: bool = False) -> None:
        self.settings: Mapping[str, Any] | None = None
        self._made_by = Path()
        self._mixed = mixed
        self._stamps: dict[Path, Stamp] = {}
        self._places: dict[bytes, int] = {}
        """By the hash of an id: which item of the arrays is its answer."""
        self._numbers, self._starts = array("q"), array("q")
        self._lengths, self._sources = array("q"), array("q")
        self._digests, self._seeds = bytearray(), bytearray()
        self._paths: list[Path] = []
        for path in paths:
            self._read(path)

    def __len__(self) -> int:
        """How many answers there are."""
        return len(self._places)

    def counts(self) -> dict[str, int]:
        """Return how many answers each file has."""
        return {str(path): self._sources.count(at) for at, path in enumerate(self._paths)}

    def holds(self, path: Path) -> bool:
        """Tell whether a path leads to one of the files."""
        return path.exists() and stamp(path.stat())[:2] in {it[:2] for it in self._stamps.values()}

    def by_number(self) -> Sequence[int]:
        """Return the answers in the order of the numbers that their questions had.

        Raises:
            FileFormatError: numbers are missing, or there twice, or there is no answer at all.
        """
        if not self._places:
            raise FileFormatError(
                f"no answer is in {', '.join(map(str, self._paths[:_MOST_NAMED]))}"
                f"{' …' if len(self._paths) > _MOST_NAMED else ''}: name all parts, or run their "
                "commands again, which resume"
            )
        order = array("q", sorted(range(len(self)), key=self._numbers.__getitem__))
        missing: list[int] = []
        expected = 0
        for at in order:
            number = self._numbers[at]
            if number < expected:
                raise FileFormatError(
                    f"question {number + 1} has two answers, with two ids, the second in "
                    f"{self._where(at)}: these are parts of different files of questions"
                )
            if number > expected and len(missing) <= _MOST_NAMED:
                missing += range(expected + 1, min(number, expected + _MOST_NAMED + 1) + 1)
            expected = number + 1
        if missing:
            raise _incomplete(expected - len(self), [f"question {it}" for it in missing])
        return order

    def by_prompts(self, prompts: Sequence[Prompt], source: str) -> Sequence[int]:
        """Return the answers in the order of these prompts.

        Args:
            source: the name of their file.
        Raises:
            FileFormatError: one is not answered, is there twice, has changed, or there are others.
        """
        check_names(prompts, Path(source))
        names = [name_of(prompt, index) for index, prompt in enumerate(prompts)]
        order = array("q", (self._places.get(_hash(name, 16), -1) for name in names))
        pairs = zip(names, order, strict=True)
        if missing := [printable(repr(name)) for name, at in pairs if at < 0]:
            raise _incomplete(len(missing), missing)
        for name, at, prompt in zip(names, order, prompts, strict=True):
            asked = self._digests[_HASH * at : _HASH * (at + 1)]
            seeded = self._seeds[_HASH * at : _HASH * (at + 1)]
            if asked != _hash(prompt.digest, _HASH) or (
                prompt.seed is not None and seeded != _hash(prompt.seed, _HASH)
            ):
                raise FileFormatError(
                    f"{self._where(at)} answers another prompt, or seed, with the id "
                    f"{printable(repr(name))} than {source} has: pass the --prompts that were "
                    "answered"
                )
        if others := set(range(len(self))).difference(order):
            raise FileFormatError(
                f"{self._where(min(others))} has the answer to a prompt that {source} does not "
                f"have, one of {len(others)}: pass the --prompts that were answered"
            )
        return order

    def lines(self, order: Sequence[int]) -> Iterator[bytes]:
        """Yield the lines of answers in an order, each with its line end.

        Raises:
            DamagedFileError: a file has changed since it was read.
        """
        opened: OrderedDict[Path, IO[bytes]] = OrderedDict()
        try:
            for at in order:
                path = self._where(at)
                if path not in opened:
                    if len(opened) == _MOST_OPEN:
                        opened.popitem(last=False)[1].close()
                    check_stamp(path, self._stamps[path])
                    opened[path] = open_regular(path)
                with naming(path):
                    opened[path].seek(self._starts[at])
                    line = opened[path].read(self._lengths[at])
                yield line if line.endswith(b"\n") else line + b"\n"
            for path in self._stamps:
                check_stamp(path, self._stamps[path])
        finally:
            for file in opened.values():
                file.close()

    def _read(self, path: Path) -> None:
        with open_regular(path) as file:
            if self.holds(path):
                raise FileFormatError(f"{path} is named twice: name each part once")
            lock_answers(file, path, to_read=True)
            self._paths.append(path)
            self._stamps[path] = stamp(path.stat())
            start = 0
            with naming(path):
                for number, line in enumerate(iter(lambda: file.readline(MAX_NBYTES + 1), b""), 1):
                    self._add(path, number, start, line)
                    start += len(line)

    def _add(self, path: Path, number: int, start: int, line: bytes) -> None:
        where = f"{path}, line {number}"
        if not line.endswith(b"\n") and is_truncated(line):
            raise FileFormatError(f"{where} is cut off: run its command again, which resumes")
        record = read_answer(line, path, number)
        key = _hash(record["custom_id"], 16)
        if key in self._places:
            raise FileFormatError(
                f"{where}: the id {printable(repr(record['custom_id']))} has an answer in "
                f"{self._where(self._places[key])} too, which happens when parts are made with "
                "different N of --part I/N: make them again with one N"
            )
        index = record.get("index")
        if type(index) is not int or not 0 <= index < 1 << 62:
            raise FileFormatError(f"{where}: index is {index!r:.40}; expected a question's number")
        self._check_settings(record.get("settings"), path)
        self._places[key] = len(self._places)
        self._numbers.append(index)
        self._sources.append(len(self._paths) - 1)
        self._starts.append(start)
        self._lengths.append(len(line))
        self._digests += _hash(record["digest"], _HASH)
        self._seeds += _hash(record.get("seed"), _HASH)

    def _check_settings(self, settings: Mapping[str, Any] | None, path: Path) -> None:
        if settings is None or self._mixed or settings == self.settings:
            return
        if self.settings is None:
            self.settings, self._made_by = settings, path
        elif said := differences(self.settings, settings):
            raise DestinationError(
                f"{self._made_by} and {path} have answers that were made otherwise: {said}. Answer "
                "one of the parts again, or pass --mixed: every line says what made it"
            )

    def _where(self, at: int) -> Path:
        return self._paths[self._sources[at]]


_MOST_NAMED = 3


def _hash(value: str | int | None, nbytes: int) -> bytes:
    """Return a hash of an id, a digest or a seed, in which 1 is not "1"."""
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=nbytes).digest()


def _incomplete(count: int, missing: Sequence[str]) -> FileFormatError:
    shown = ", ".join(missing[:_MOST_NAMED]) + (" …" if count > _MOST_NAMED else "")
    return FileFormatError(
        f"{count} answer{' is' if count == 1 else 's are'} missing: {shown}. Name all parts, or "
        "run their commands again, which resume"
    )
