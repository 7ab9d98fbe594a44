"""What connects the ranks that a command launches: socket pairs and memory that they inherit.

There is no address, no port and no file name, so another user has nothing to connect to.
"""

from __future__ import annotations

import os
import select
import socket
import tempfile
import time
from dataclasses import dataclass
from typing import IO

SOCKETS = "LLAMAKIT_RANK_SOCKETS"
"""The variable that names a worker's file descriptors: one socket a peer, the memory, the
store."""

SLOT_NBYTES = 1 << 20
"""Bytes of shared memory for one rank's part of a collective; longer tensors take several turns."""

READY = b"r"
_SIGN_NBYTES = 32


@dataclass(frozen=True)
class Links:
    """What one rank inherits.

    Args:
        peers: a socket to every other rank, by rank; None in its own place.
        memory: the file of the shared memory, ``2 * size`` slots and a sign of life a rank.
        store: a file for torch's ``FileStore``, which ranks with GPUs meet at.
    """

    rank: int
    peers: tuple[socket.socket | None, ...]
    memory: IO[bytes]
    store: IO[bytes]

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return len(self.peers)

    @property
    def descriptors(self) -> list[int]:
        """What a worker has to inherit."""
        sockets = [peer.fileno() for peer in self.peers if peer is not None]
        return [*sockets, self.memory.fileno(), self.store.fileno()]

    def write(self, rank: int, sign: bytes) -> None:
        """Write a rank's sign of life: at most 32 bytes. Raises ValueError when closed."""
        os.pwrite(self.memory.fileno(), sign.ljust(_SIGN_NBYTES, b"\0"), self._place(rank))

    def read(self, rank: int) -> bytes:
        """Return a rank's sign of life; empty where there is none yet. Raises as ``write``."""
        return os.pread(self.memory.fileno(), _SIGN_NBYTES, self._place(rank)).rstrip(b"\0")

    def _place(self, rank: int) -> int:
        return 2 * self.size * SLOT_NBYTES + rank * _SIGN_NBYTES

    def close(self) -> None:
        """Close what this process holds of them. Does nothing the second time."""
        for peer in self.peers:
            if peer is not None:
                peer.close()
        self.memory.close()
        self.store.close()


def make_links(size: int) -> list[Links]:
    """Make the sockets and the memory of ``size`` ranks, for rank 0 to give to its workers."""
    peers: list[list[socket.socket | None]] = [[None] * size for _ in range(size)]
    for one in range(size):
        for other in range(one + 1, size):
            peers[one][other], peers[other][one] = socket.socketpair()
    with _nameless_file() as memory, _nameless_file() as store:
        memory.truncate(size * (2 * SLOT_NBYTES + _SIGN_NBYTES))
        return [
            Links(rank, tuple(own), _copy(memory), _copy(store)) for rank, own in enumerate(peers)
        ]


def inherited_links(rank: int, size: int) -> Links:
    """Return what this worker has inherited, and take its numbers out of the environment."""
    *sockets, memory, store = map(int, os.environ.pop(SOCKETS).split(","))
    peers: list[socket.socket | None] = [socket.socket(fileno=number) for number in sockets]
    peers.insert(rank, None)
    assert len(peers) == size
    return Links(rank, tuple(peers), _opened(memory), _opened(store))


def wait_for_workers(links: Links, patience: float) -> list[int]:
    """Wait on rank 0 until every worker has said that it is there.

    Args:
        patience: seconds.
    Returns:
        The ranks that have not: they have ended, or were too slow.
    """
    waiting = {peer: rank for rank, peer in enumerate(links.peers) if peer is not None}
    deadline = time.monotonic() + patience
    while waiting and (left := deadline - time.monotonic()) > 0:
        for peer in select.select(list(waiting), [], [], left)[0]:
            if not peer.recv(1):
                return [waiting[peer]]
            del waiting[peer]
    return sorted(waiting.values())


def say_ready(links: Links) -> None:
    """Tell rank 0 that this worker is there."""
    leader = links.peers[0]
    assert leader is not None
    leader.sendall(READY)


def _nameless_file() -> IO[bytes]:
    """Make a file that only its descriptors lead to; in memory, where the system has that."""
    if hasattr(os, "memfd_create"):
        return _opened(os.memfd_create("llamakit-ranks"))
    return tempfile.TemporaryFile(buffering=0)


def _copy(file: IO[bytes]) -> IO[bytes]:
    return _opened(os.dup(file.fileno()))


def _opened(descriptor: int) -> IO[bytes]:
    return open(descriptor, "r+b", buffering=0)
