"""How the ranks of a model find each other: started by torchrun, or launched by rank 0."""

from __future__ import annotations

import contextlib
import os

from llamakit.errors import ParallelError
from llamakit.runtime import launch
from llamakit.runtime.interrupt import import_torch
from llamakit.runtime.rank_group import Group, RankGroup, destroy_process_group

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
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    return _remember(RankGroup(distributed.get_rank(), world_size(), local_rank, led))


def _launch(size: int) -> RankGroup:
    listener = launch.listen()
    workers = launch.Workers(size, listener.getsockname()[1])
    with contextlib.ExitStack() as undo:
        undo.callback(workers.kill)
        import_torch()  # the workers import it at the same time
        from torch import distributed

        undo.callback(destroy_process_group)
        store = launch.open_store(size, listener)
        workers.wait_until_ready(store)
        distributed.init_process_group(
            _backend(), store=store, rank=0, world_size=size, timeout=launch.IDLE
        )
        group = _remember(RankGroup(0, size, 0, led=True, workers=workers))
        undo.pop_all()
        return group


def join_as_worker() -> RankGroup:
    """Join the process that launched this one."""
    from torch import distributed

    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if launch.STORE_PORT not in os.environ:
        return _join_torchrun(led=True)
    port = int(os.environ[launch.STORE_PORT])
    store = launch.find_store(size, port)
    store.set(f"ready/{rank}", "1")
    distributed.init_process_group(
        _backend(), store=store, rank=rank, world_size=size, timeout=launch.IDLE
    )
    return _remember(RankGroup(rank, size, rank, led=True))


def _remember(group: RankGroup) -> RankGroup:
    global _current  # noqa: PLW0603
    _current = group
    return group


def _backend() -> str:
    """Return the backends: nccl for tensors on a GPU, gloo for those on a CPU (all messages)."""
    import torch

    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
