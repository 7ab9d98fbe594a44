"""The process group of the ranks of one host: torch.distributed and fairscale run on it.

Tensors go through shared memory. A byte through the socket between two ranks says that a part is
there; a socket that is closed says that its rank has ended.

The memory has two sets of slots, used in turn: a rank may write into one set while a slower rank
still reads the other. It cannot be further ahead, since the next exchange needs that rank's byte.
"""

from __future__ import annotations

import mmap
import socket
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import distributed
from torch.distributed import ProcessGroup

from llamakit.runtime.rank_links import SLOT_NBYTES, Links

BACKEND = "llamakit"
"""What torch.distributed calls this group."""

_HERE = b"h"


def register(links: Links) -> None:
    """Make the group that ``links`` connect known to torch.distributed as ``BACKEND``."""
    peers = [(rank, link) for rank, link in enumerate(links.peers) if link is not None]
    memory = mmap.mmap(links.memory.fileno(), 2 * links.size * SLOT_NBYTES)
    together = Exchange(links.rank, peers, memory)

    def create(_store: Any, _rank: int, size: int, _timeout: timedelta) -> ProcessGroup:
        assert size in (1, links.size)  # fairscale's groups: all ranks, or each alone
        return LocalGroup(together if size > 1 else Exchange(0, [], mmap.mmap(-1, 2 * SLOT_NBYTES)))

    distributed.Backend.register_backend(BACKEND, create, devices=["cpu"])


class Exchange:
    """Shows every rank the parts of all ranks, a slot at a time.

    Args:
        peers: the other ranks, and the socket to each.
        memory: two sets of a slot a rank, shared by all ranks.
    """

    def __init__(
        self, rank: int, peers: Sequence[tuple[int, socket.socket]], memory: mmap.mmap
    ) -> None:
        self.rank, self.size = rank, len(peers) + 1
        self._peers = peers
        self._sets = torch.frombuffer(memory, dtype=torch.uint8).view(2, self.size, SLOT_NBYTES)
        self._turn = 0

    def parts(self, own: torch.Tensor) -> torch.Tensor:
        """Give this rank's part and return those of all ranks.

        Args:
            own: ``(nbytes,)`` uint8, at most ``SLOT_NBYTES``; as long on every rank.
        Returns:
            ``(size, nbytes)`` uint8 by rank, to be read before the next exchange but one.
        Raises:
            RuntimeError: a rank has ended: its connection is closed.
        """
        slots = self._sets[self._turn][:, : len(own)]
        self._turn = 1 - self._turn
        slots[self.rank].copy_(own)
        self.meet()
        return slots

    def meet(self) -> None:
        """Wait until every rank has come here. Raises as ``parts``."""
        try:
            for _, peer in self._peers:
                peer.sendall(_HERE)
            for rank, peer in self._peers:
                if peer.recv(1) != _HERE:
                    raise _closed(rank)
        except OSError as error:
            raise RuntimeError(f"connection to another rank is closed: {error}") from error

    def send(self, data: memoryview) -> None:
        """Send bytes to every other rank. Raises as ``parts``."""
        try:
            for _, peer in self._peers:
                peer.sendall(data)
        except OSError as error:
            raise RuntimeError(f"connection to another rank is closed: {error}") from error

    def receive(self, root: int, into: memoryview) -> None:
        """Receive what a rank sends. Raises as ``parts``."""
        peer = next(link for rank, link in self._peers if rank == root)
        try:
            while into:
                if not (count := peer.recv_into(into)):
                    raise _closed(root)
                into = into[count:]
        except OSError as error:
            raise RuntimeError(f"connection to rank {root} is closed: {error}") from error


def _closed(rank: int) -> RuntimeError:
    return RuntimeError(f"connection closed by rank {rank}")


class LocalGroup(ProcessGroup):
    """What torch.distributed calls: the collectives that the runtime and fairscale use."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange.rank, exchange.size)  # type: ignore[call-arg]  # torch's stub
        self._exchange = exchange

    def getBackendName(self) -> str:  # noqa: N802 (torch's name)
        """Return the name that torch.distributed registered."""
        return BACKEND

    def allreduce(  # type: ignore[override]  # one of torch's three forms
        self, tensors: list[torch.Tensor], opts: Any = None
    ) -> distributed.Work:
        """Add up the tensors of all ranks, in each of them, in the order of the ranks."""
        assert opts is None or opts.reduceOp == distributed.ReduceOp.SUM
        for tensor in tensors:
            values = tensor.contiguous()
            flat, step = values.view(-1), SLOT_NBYTES // tensor.itemsize
            for start in range(0, len(flat), step):
                part = flat[start : start + step]
                parts = self._exchange.parts(_bytes(part)).view(tensor.dtype)  # (size, values)
                torch.sum(parts, 0, out=part)
            if values is not tensor:
                tensor.copy_(values)
        return Done(tensors)

    def allgather(  # type: ignore[override]  # one of torch's two forms
        self,
        output_tensors: list[list[torch.Tensor]],
        input_tensors: list[torch.Tensor],
        _: Any = None,
    ) -> distributed.Work:
        """Copy the tensor of every rank to every rank."""
        for targets, tensor in zip(output_tensors, input_tensors, strict=True):
            data = _bytes(tensor)
            joined = [torch.empty_like(data) for _ in targets]
            for start in range(0, len(data), SLOT_NBYTES):
                slot = slice(start, start + SLOT_NBYTES)
                for whole, part in zip(joined, self._exchange.parts(data[slot]), strict=True):
                    whole[slot].copy_(part)
            for target, whole in zip(targets, joined, strict=True):
                target.copy_(whole.view(tensor.dtype).view(tensor.shape))
        return Done(output_tensors)

    def broadcast(  # type: ignore[override]  # one of torch's two forms
        self, tensors: list[torch.Tensor], opts: Any = None
    ) -> distributed.Work:
        """Copy the tensors of one rank to every rank."""
        root = 0 if opts is None else opts.rootRank
        for tensor in tensors:
            assert tensor.is_contiguous()
            data = memoryview(_bytes(tensor).numpy())  # type: ignore[arg-type]  # 3.10 types no buffers
            if self._exchange.rank == root:
                self._exchange.send(data)
            else:
                self._exchange.receive(root, data)
        return Done(tensors)

    def barrier(self, opts: Any = None) -> distributed.Work:  # noqa: ARG002
        """Wait until every rank is here."""
        self._exchange.meet()
        return Done(None)


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    """View a tensor as ``(nbytes,)`` uint8; one that is not contiguous is copied."""
    return tensor.contiguous().view(-1).view(torch.uint8)


class Done(distributed.Work):
    """Work that was finished when it was called."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self._future: torch.futures.Future[Any] = torch.futures.Future()
        self._future.set_result(result)

    def wait(self, timeout: timedelta | None = None) -> bool:  # noqa: ARG002
        """Return at once."""
        return True

    def is_completed(self) -> bool:
        """Return True."""
        return True

    def get_future(self) -> torch.futures.Future[Any]:
        """Return a future that has its result."""
        return self._future
