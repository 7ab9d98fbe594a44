"""How the ranks of a model find each other: started by torchrun, or launched by rank 0."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

from llamakit.errors import ParallelError
from llamakit.runtime import launch
from llamakit.runtime.interrupt import import_torch
from llamakit.runtime.rank_group import Group, RankGroup, destroy_process_group
from llamakit.runtime.rank_links import SOCKETS, Links, inherited_links, make_links, say_ready

_current: RankGroup | None = None
"""The group of this process: torch.distributed and fairscale keep theirs in globals of their own,
so there is only one."""


def world_size() -> int:
    """Return how many ranks torchrun started, 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join(size: int | None, *, led: bool = False) -> Group:
    """Return the group of ``size`` ranks; joins torchrun's or launches worker processes.

    Args:
        size: how many ranks; None means as many as torchrun started, else one.
        led: under torchrun, the other ranks run ``llamakit.llama.worker``, not this same program.
    Raises:
        ParallelError: torchrun started another number, or this process already leads another.
    """
    started = world_size()
    size = size or started
    if started > 1 and size != started:
        raise ParallelError(
            f"torchrun started {started} ranks but the model parallel size is {size}: "
            f"pass --nproc_per_node {size} to torchrun, or leave the size out"
        )
    if size == 1:
        import_torch()
        return Group()
    if _current is None or not _current.is_open:
        return _join_torchrun(led) if started > 1 else _launch(size)
    if _current.size != size:
        raise ParallelError(
            f"this process leads {_current.size} ranks already: "
            f"close that model before loading one on {size}"
        )
    return _current


def _join_torchrun(led: bool) -> RankGroup:
    from torch import distributed

    distributed.init_process_group(_backend(), timeout=launch.IDLE)
    if not led and distributed.get_rank() > 0 and not os.environ.get("LLAMAKIT_PRINT_ALL_RANKS"):
        # The same script runs on every rank; the reference's Llama.build does this too.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    return _remember(RankGroup(distributed.get_rank(), world_size(), local_rank, led))


def _launch(size: int) -> RankGroup:
    links = make_links(size)
    workers = launch.Workers(links)
    with contextlib.ExitStack() as undo:
        undo.callback(workers.kill)
        import_torch()  # the workers import it at the same time
        undo.callback(destroy_process_group)
        workers.wait_until_ready()
        _join_local(links[0])
        group = _remember(RankGroup(0, size, 0, led=True, workers=workers))
        undo.pop_all()
        return group


def join_as_worker() -> RankGroup:
    """Join the process that launched this one."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if SOCKETS not in os.environ:
        return _join_torchrun(led=True)
    links = inherited_links(rank, size)
    import_torch()
    say_ready(links)
    _join_local(links)
    return _remember(RankGroup(rank, size, rank, led=True))


def _join_local(links: Links) -> None:
    """Make the process group of ranks that inherit their connections."""
    import torch
    from torch import distributed

    from llamakit.runtime import local_group

    local_group.register(links)
    backend: str = local_group.BACKEND
    store: Any = distributed.HashStore()  # type: ignore[attr-defined]
    if torch.cuda.is_available():
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")  # not the host's own address
        backend = f"cpu:{backend},cuda:nccl"
        store = distributed.FileStore(  # type: ignore[attr-defined]
            f"/proc/self/fd/{links.store.fileno()}", links.size
        )
    distributed.init_process_group(
        backend, store=store, rank=links.rank, world_size=links.size, timeout=launch.IDLE
    )


def _remember(group: RankGroup) -> RankGroup:
    global _current  # noqa: PLW0603
    _current = group
    return group


def _backend() -> str:
    """Return the backends: nccl for tensors on a GPU, gloo for those on a CPU (all messages)."""
    import torch

    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
