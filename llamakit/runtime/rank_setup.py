"""How the ranks of a model find each other: started by torchrun, or launched by rank 0."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from datetime import timedelta
from typing import Any

from llamakit.errors import ParallelError
from llamakit.runtime import launch, rendezvous
from llamakit.runtime.group import Group
from llamakit.runtime.heartbeat import Heartbeat, StoreSigns, heartbeat_timeout
from llamakit.runtime.host_addresses import RankAddress, check_addresses, gloo_address, this_host
from llamakit.runtime.interrupt import import_torch
from llamakit.runtime.process_group import destroy_process_group
from llamakit.runtime.rank_environment import RankEnvironment, join_timeout, read_environment
from llamakit.runtime.rank_group import RankGroup
from llamakit.runtime.rank_links import SOCKETS, Links, inherited_links, make_links, say_ready

_current: RankGroup | None = None
"""The group of this process: torch.distributed and fairscale keep theirs in globals of their own,
so there is only one."""


_failed = False
"""Whether the ranks that torchrun started have not found each other: they are not awaited again."""


def join(size: int | None, *, led: bool = False, timeout: float | None = None) -> Group:
    """Return the group of ``size`` ranks; joins torchrun's or launches worker processes.

    Args:
        size: how many ranks; None means as many as torchrun started, else one.
        led: under torchrun, the other ranks run ``llamakit.llama.worker``, not this same program.
        timeout: seconds that the ranks have to find each other; as ``join_timeout``.
    Raises:
        ParallelError: torchrun started another number, this process already leads another, the
            variables of torchrun are wrong, or a rank has not come in time.
    """
    started = read_environment().size
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
        seconds = join_timeout(timeout)
        return _join_torchrun(led, seconds) if started > 1 else _launch(size, seconds)
    if _current.size != size:
        raise ParallelError(
            f"this process leads {_current.size} ranks already: "
            f"close that model before loading one on {size}"
        )
    return _current


def has_failed() -> bool:
    """Return whether the ranks that torchrun started have not found each other."""
    return _failed


def _join_torchrun(led: bool, timeout: float) -> RankGroup:
    global _failed  # noqa: PLW0603
    environment = read_environment()
    import_torch()
    try:
        with rendezvous.waiting(environment, timeout) as wait:
            heartbeat = _connect(environment, wait)
    except BaseException:
        _failed = True
        raise
    if not led and environment.rank > 0 and not os.environ.get("LLAMAKIT_PRINT_ALL_RANKS"):
        # The same script runs on every rank; the reference's Llama.build does this too.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    places = environment.rank, environment.size, environment.local_rank
    return _remember(RankGroup(*places, led, heartbeat=heartbeat))


def _connect(environment: RankEnvironment, wait: rendezvous.Wait) -> Heartbeat:
    """Make the process group of ranks that meet at torch's store."""
    from torch import distributed
    from torch.distributed.distributed_c10d import _set_pg_timeout

    heartbeat_timeout()  # a wrong variable is refused before anybody waits
    place = RankAddress(this_host(), gloo_address())
    store = rendezvous.meet(environment, wait)
    hosts = rendezvous.check_versions(environment, store)
    check_addresses(environment.rank, store, hosts, place)
    try:
        with rendezvous.interruptible():
            distributed.init_process_group(
                _backend(),
                store=store,
                rank=environment.rank,
                world_size=environment.size,
                timeout=timedelta(seconds=max(1.0, wait.left)),
            )
    except RuntimeError as error:
        raise rendezvous.not_connected(wait, error) from error
    _set_pg_timeout(launch.IDLE)
    return Heartbeat(StoreSigns(store), environment.rank, hosts)


def _launch(size: int, timeout: float) -> RankGroup:
    if os.name == "nt":
        raise ParallelError(
            "Windows gives a process no connections of another one, so llamakit starts no ranks "
            "there: leave --model-parallel-size out, or start the ranks with torchrun"
        )
    heartbeat_timeout()  # a wrong variable is refused before anybody waits
    links = make_links(size)
    workers = launch.Workers(links)
    with contextlib.ExitStack() as undo:
        undo.callback(workers.kill)
        import_torch()  # the workers import it at the same time
        undo.callback(destroy_process_group)
        workers.wait_until_ready(timeout)
        _join_local(links[0])
        heartbeat = _local_heartbeat(links[0])
        group = _remember(RankGroup(0, size, 0, led=True, workers=workers, heartbeat=heartbeat))
        undo.pop_all()
        return group


def join_as_worker(timeout: float | None = None) -> RankGroup:
    """Join rank 0, which launched this process or was started by torchrun. Raises as ``join``."""
    if SOCKETS not in os.environ:
        return _join_torchrun(led=True, timeout=join_timeout(timeout))
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    links = inherited_links(rank, size)
    import_torch()
    say_ready(links)
    _join_local(links)
    return _remember(RankGroup(rank, size, rank, led=True, heartbeat=_local_heartbeat(links)))


def _local_heartbeat(links: Links) -> Heartbeat:
    return Heartbeat(links, links.rank, [socket.gethostname()] * links.size, launched=True)


def _join_local(links: Links) -> None:
    """Make the process group of ranks that inherit their connections."""
    import torch
    from torch import distributed

    from llamakit.runtime import local_group

    local_group.register(links)
    backend: str = local_group.BACKEND
    store: Any = distributed.HashStore()  # type: ignore[attr-defined]  # torch's stub lacks it
    if torch.cuda.is_available():
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")  # not the host's own address
        backend = f"cpu:{backend},cuda:nccl"
        store = distributed.FileStore(  # type: ignore[attr-defined]  # nor has it this
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
