"""How many replicas a cluster has room for, and what each of them gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llamakit.errors import UsageError


@dataclass(frozen=True)
class Room:
    """Replicas, and what each of them asks Ray for."""

    replicas: int
    cpus: int
    gpus: int


def find_room(
    nodes: Sequence[Mapping[str, float]], replicas: int | None, ranks: int, *, on_gpus: bool
) -> Room:
    """Divide the machines of a cluster among replicas.

    On GPUs a replica has one for each rank. On CPUs each has equal shares of the cores: with
    ``replicas`` None one replica a machine has them all.

    Args:
        nodes: what each machine has: ``CPU`` and ``GPU``.
        ranks: how many processes share a replica's model; they are on one machine.
    Raises:
        UsageError: there is no room for so many.
    """
    gpus = [int(node.get("GPU", 0)) for node in nodes]
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    if on_gpus:
        most = sum(count // ranks for count in gpus)
        count = _within(replicas, most, f"{ranks} of the {sum(gpus)} GPUs each")
        return Room(count, 0, ranks)
    least = min((it for it in cpus if it), default=0)
    most = sum(cpus)
    count = _within(replicas, most, f"one of the {most} CPUs each")
    share = least if replicas is None else _share(cpus, count)
    return Room(sum(it // share for it in cpus) if replicas is None else count, share, 0)


def _within(replicas: int | None, most: int, each: str) -> int:
    """Return the number of replicas.

    Raises:
        UsageError: they are too many.
    """
    if most < 1 or (replicas or 1) > most:
        raise UsageError(
            f"the Ray cluster has room for {most} replicas, {each}: pass --replicas auto, a "
            "smaller --model-parallel-size, or add machines"
        )
    return replicas or most


def _share(cpus: Sequence[int], replicas: int) -> int:
    """Return how many CPUs each replica can have at most."""
    return max(
        share for share in range(1, max(cpus) + 1) if sum(it // share for it in cpus) >= replicas
    )
