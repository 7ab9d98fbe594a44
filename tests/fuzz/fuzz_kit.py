"""Runs a reader of foreign bytes on mutated seeds, in a child that has little memory and CPU time.

A case fails on any exception that is not a ``LlamakitError``, on a message that a terminal would
obey, on 300 MB of memory, on seconds of CPU time (both by rlimit), on a file opened that was not
named, and on a crash. A case is made from its number alone, so a failure can be run again.
"""

from __future__ import annotations

import mmap
import os
import resource
import struct
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import llamakit
from llamakit.errors import LlamakitError

MEMORY_NBYTES = 300 << 20
CPU_SECONDS = 5
"""The kernel counts whole seconds, so a case has between this and one second less."""
LONGEST_MUTATED = 4 << 10
"""Bytes of a hostile case that are mutated: a thousand cases of megabytes would take minutes."""
LONGEST_MESSAGE = 2000

BRACKETS = (b"[", b"{", b'{"a":', b"(", b'[{"a":', b"(?:", b"\x80(", b"((")
NUMBERS = (
    *(b"-1", b"0", b"1e999", b"NaN", b"-Infinity", b"1e-999", b"2147483648", b"4294967295"),
    *(b"18446744073709551616", b"9223372036854775807", b"9" * 5000, b"0.1e308", b"00", b"1_0"),
)
STRINGS = (
    *(rb'"\ud800"', rb"\udc00", b'"\\u0000"', b"\xed\xa0\x80", b"\xff\xfe", b"\xef\xbb\xbf"),
    *(b"\x1b]0;x\x07", "\u202e".encode(), b"\n", b"\r\n", b"\0", b"%00", b"..", b"/etc/passwd"),
    *(b"null", b"true", b'""', b",", b":", b'"', b"\\", b"*", b"{1,99999}", b" "),
)
INSTALLED = (sys.base_prefix + os.sep, sys.prefix + os.sep, str(Path(llamakit.__file__).parent))
"""Where modules are, some of which are imported late."""
SIZES = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 1 << 16, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 64) - 1)


@dataclass(frozen=True)
class Reader:
    """A reader of foreign bytes.

    Args:
        name: of the test.
        read: reads ``data``, or the file that holds it.
        seeds: what it reads gladly.
        hostile: what was found to break it, or one like it; always run first.
        file: the name of the file in its folder; other files may be there already.
        may_raise: what else it raises by contract.
        cases: how many a test of the suite runs.
        opens: files outside its folder that it opens on purpose.
    """

    name: str
    read: Callable[[bytes, Path], object]
    seeds: Sequence[bytes]
    hostile: Sequence[bytes] = ()
    file: str = "input"
    may_raise: tuple[type[Exception], ...] = ()
    cases: int = 300
    opens: tuple[str, ...] = ()


def check(reader: Reader, folder: Path, cases: int) -> None:
    """Run ``cases`` cases in a child; fail with the first that does what no input may do."""
    with mmap.mmap(-1, 8) as number:
        child = _fork()
        if child == 0:
            _be_child(reader, folder, cases, number)
        _, status = os.waitpid(child, 0)
        reached = int.from_bytes(number[:8], "little")
    report = folder / "report"
    said = report.read_text() if report.exists() else f"it ended with the wait status {status:#x}"
    assert status == 0, f"{reader.name}, case {reached}: {said}\n{case(reader, reached)[:400]!r}"
    assert reached == len(reader.seeds) + len(reader.hostile) + cases


def case(reader: Reader, number: int) -> bytes:
    """Make a case from its number: first the seeds and the hostile ones as they are."""
    fixed = [*reader.seeds, *reader.hostile]
    if number < len(fixed):
        return fixed[number]
    random = Random(f"{reader.name} {number}")
    short = [*reader.seeds, *(hostile[:LONGEST_MUTATED] for hostile in reader.hostile)]
    data = bytearray(random.choice(short))
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        random.choice(MUTATORS)(random, data, short)
    return bytes(data)


def truncate(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    del data[random.randrange(len(data) + 1) :]


def remove(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    start = random.randrange(len(data) + 1)
    del data[start : start + random.choice((1, 2, 4, 8, 64))]


def flip(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    for _ in range(random.choice((1, 1, 2, 8))):
        if data:
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def overwrite(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    """Put an extreme number where a length or an offset may be."""
    start, width = random.randrange(len(data) + 1), random.choice((1, 2, 4, 8))
    number = random.choice(SIZES) % (1 << 8 * width)
    data[start : start + width] = struct.pack("<Q", number)[:width]


def splice(random: Random, data: bytearray, others: Sequence[bytes]) -> None:
    """Put a piece of another case somewhere."""
    other = random.choice(others)
    start, at = random.randrange(len(other) + 1), random.randrange(len(data) + 1)
    piece = other[start : start + random.choice((1, 8, 64, 512))]
    data[at : at + random.choice((0, 0, len(piece)))] = piece


def repeat(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    start = random.randrange(len(data) + 1)
    piece = data[start : start + random.choice((1, 2, 8, 32))]
    data[start:start] = piece * random.choice((2, 10, 100, 1000))


def nest(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = random.randrange(len(data) + 1)
    data[at:at] = random.choice(BRACKETS) * random.choice((1, 65, 200, 20_000))


def insert(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    """Put a number, a surrogate or a word somewhere, perhaps in the place of another number."""
    word = random.choice(NUMBERS + STRINGS)
    at = random.randrange(len(data) + 1)
    end = at
    while end < len(data) and chr(data[end]) in "0123456789.-":
        end += 1
    data[at:end] = word


MUTATORS = (
    truncate,
    remove,
    flip,
    flip,
    overwrite,
    overwrite,
    splice,
    repeat,
    nest,
    insert,
    insert,
)


def _fork() -> int:
    with warnings.catch_warnings():  # other threads hold no lock that a reader takes
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _be_child(reader: Reader, folder: Path, cases: int, number: mmap.mmap) -> None:
    try:
        path = folder / "model" / reader.file  # a tokenizer may be in the folder above
        path.parent.mkdir()
        os.chdir(folder)
        for seed in reader.seeds:  # imports what it needs before the limits hold
            _run(reader, seed, path)
        _limit(resource.RLIMIT_AS, _address_space() + MEMORY_NBYTES)
        opened: list[str] = []
        named = (str(folder), *INSTALLED, *reader.opens)
        sys.addaudithook(lambda event, about: opened.extend(_opened(event, about, named)))
        for index in range(len(reader.seeds) + len(reader.hostile) + cases):
            number[:8] = index.to_bytes(8, "little")
            data = case(reader, index)
            _limit(resource.RLIMIT_CPU, int(time.process_time()) + CPU_SECONDS)
            _run(reader, data, path)
            if opened:
                raise AssertionError(f"it opened {opened}, which nobody named")
        number[:8] = (len(reader.seeds) + len(reader.hostile) + cases).to_bytes(8, "little")
    except BaseException:  # noqa: BLE001 - whatever it is, it is the finding
        _limit(resource.RLIMIT_AS, resource.RLIM_INFINITY)
        (folder / "report").write_text(traceback.format_exc()[-3000:], errors="backslashreplace")
        os._exit(1)
    os._exit(0)


def _run(reader: Reader, data: bytes, path: Path) -> None:
    path.write_bytes(data)
    try:
        reader.read(data, path)
    except reader.may_raise:
        pass
    except LlamakitError as error:
        said = str(error)
        assert said.isprintable(), f"a terminal would obey {said!r}"
        assert len(said) < LONGEST_MESSAGE, f"a message of {len(said)} characters: {said[:200]}"


def _limit(what: int, amount: int) -> None:
    resource.setrlimit(what, (amount, resource.getrlimit(what)[1]))


def _address_space() -> int:
    """Return how many bytes this process has mapped."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _opened(event: str, about: tuple[object, ...], named: tuple[str, ...]) -> Iterator[str]:
    if event == "open" and isinstance(about[0], str | bytes | os.PathLike):
        path = os.path.abspath(os.fsdecode(about[0]))  # noqa: PTH100 - of any type, in a hook
        if not path.startswith(named):
            yield path
