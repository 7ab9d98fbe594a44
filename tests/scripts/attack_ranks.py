"""Try to enter the processes of another user, until they have all ended; print what was entered.

``attack_ranks.py UID AS`` becomes the user AS and says as JSON which processes of UID it saw and
what it got into. It looks for their listeners, descriptors, memory and files.
"""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH, PIDFD_OPEN, PIDFD_GETFD = 16, 434, 438
LISTENS, IS_LISTENING = "0A", 0x10000
NDESCRIPTORS = 64
PROC = Path("/proc")


class Exploding:
    """What a rank that unpickles would run."""

    def __reduce__(self) -> tuple[object, ...]:
        return (os._exit, (66,))


JUNK = pickle.dumps(Exploding()) + b"\0" * 4096


def processes_of(user: int) -> Iterator[tuple[int, str]]:
    """Yield the number and the command line of every process of a user."""
    for folder in PROC.glob("[0-9]*"):
        if owner(folder) == user:
            with suppress(OSError):  # it has ended meanwhile
                yield int(folder.name), (folder / "cmdline").read_text().replace("\0", " ")


def listeners_of(user: int) -> Iterator[tuple[int, str | tuple[str, int]]]:
    """Yield the family and the address of every listener of a user."""
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in (PROC / "net" / name).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == LISTENS and int(words[7]) == user:
                address, port = words[1].split(":")
                yield family, (readable(address), int(port, 16))
    for line in (PROC / "net" / "unix").read_text().splitlines()[1:]:
        words = line.split(maxsplit=7)
        path = words[7] if len(words) == 8 else ""
        if int(words[3], 16) & IS_LISTENING and owner(Path(path)) == user:
            yield socket.AF_UNIX, path


def readable(address: str) -> str:
    """Turn an address of ``/proc/net/tcp`` into what ``connect`` takes."""
    data = bytes.fromhex(address)
    words = (data[start : start + 4][::-1] for start in range(0, len(data), 4))
    return socket.inet_ntop(socket.AF_INET if len(data) == 4 else socket.AF_INET6, b"".join(words))


def owner(path: Path) -> int | None:
    try:
        return path.lstat().st_uid
    except OSError:  # it has gone meanwhile, or cannot be looked at
        return None


def connected(family: int, address: str | tuple[str, int]) -> str:
    with socket.socket(family) as attacker:
        attacker.settimeout(1)
        attacker.connect(address)
        attacker.sendall(JUNK)
    return f"connected to {address}"


def files_of(user: int) -> Iterator[Path]:
    for folder in {Path(tempfile.gettempdir()), Path("/dev/shm"), Path("/run")}:
        for path in folder.iterdir() if folder.is_dir() else ():
            if owner(path) == user:
                yield path


def opened(path: Path) -> str:
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    return f"opened {path}"


def read(path: Path) -> str:
    with path.open("rb") as file:
        if not file.read(1):  # a process that is just starting or ending
            raise OSError
    return f"read {path}"


def listed(folder: Path) -> str:
    return f"listed {folder}: {[it.name for it in folder.iterdir()]}"


def called(what: str, result: int) -> str:
    if result < 0:
        raise OSError(ctypes.get_errno(), what)
    return what


def copied(pid: int, descriptor: int) -> str:
    with os.fdopen(LIBC.syscall(PIDFD_OPEN, pid, 0)) as process:
        copy = LIBC.syscall(PIDFD_GETFD, process.fileno(), descriptor, 0)
        return called(f"copied descriptor {descriptor} of {pid}", copy)


def attempts(pid: int) -> Iterator[Callable[[], str]]:
    """Yield ways into one process."""
    folder = PROC / str(pid)
    for name in ("fd", "fdinfo", "map_files", "cwd"):
        yield lambda name=name: listed(folder / name)
    for name in ("environ", "maps", "stack"):
        yield lambda name=name: read(folder / name)
    for number in range(NDESCRIPTORS):
        yield lambda number=number: opened(folder / "fd" / str(number))
        yield lambda number=number: copied(pid, number)
    yield lambda: called(f"traced {pid}", LIBC.ptrace(PTRACE_ATTACH, pid, 0, 0))
    yield lambda: called(f"signalled {pid}", os.kill(pid, 0) or 0)


def entered(attempt: Callable[[], str]) -> str | None:
    try:
        return attempt()
    except (OSError, ValueError):
        return None


def become(user: int) -> None:
    """Give up root's rights; Python itself may be where only root can read it."""
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)


def main(user: int) -> None:
    seen: dict[int, str] = {}
    found: list[str] = []
    print("ready", flush=True)
    while (processes := dict(processes_of(user))) or not seen:
        seen |= {pid: words for pid, words in processes.items() if words}  # "" once it has ended
        ways = [lambda it=it: connected(*it) for it in listeners_of(user)]
        ways += [lambda path=path: opened(path) for path in files_of(user)]
        for pid in processes:
            ways += attempts(pid)
        found += filter(None, map(entered, ways))
        time.sleep(0.05)
    print(json.dumps({"seen": list(seen.values()), "entered": sorted(set(found))}))


if __name__ == "__main__":
    become(int(sys.argv[2]))
    main(int(sys.argv[1]))
