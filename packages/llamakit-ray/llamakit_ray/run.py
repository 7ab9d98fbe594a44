"""Answers a job on a Ray cluster: blocks of requests go to replicas as these have finished others.

Rows come back to this process, which alone writes answers: a replica that is lost has written
nothing, and Ray runs its block again on another.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llamakit.errors import LlamakitError
from llamakit.files.json_reader import parse_json
from llamakit.protocols import AnswerJob, AnswerPiece
from llamakit_ray.actor import ReplicaActor
from llamakit_ray.cluster import connect, ray_errors
from llamakit_ray.room import Room, find_room

_BLOCKS_A_SLOT = 4
"""A block has so many requests for each that a replica answers at the same time, at most."""


def answers(job: AnswerJob) -> Iterator[AnswerPiece]:
    """Answer the requests of a job.

    Raises:
        LlamakitError: a request cannot be answered, or the cluster fails.
        UsageError: the cluster has no room for so many replicas.
    """
    job.check()
    ray = connect(job.address)
    try:
        ranks = job.options["loading"].get("model_parallel_size") or 1
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        device = job.options["loading"].get("device", "auto")
        has_gpus = any(node.get("GPU", 0) >= 1 for node in nodes)
        on_gpus = device == "cuda" or (device == "auto" and has_gpus)
        room = find_room(nodes, job.replicas, ranks, on_gpus=on_gpus)
        advice = ". The answers that are written are kept: the same command resumes"
        with ray_errors("the Ray cluster", advice=advice):
            yield from _pieces(_rows(job, room, ranks))
    finally:
        ray.shutdown()


def _rows(job: AnswerJob, room: Room, ranks: int) -> Iterator[dict[str, Any]]:
    """Run the job; yield the rows of its replicas."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    size = block_size(len(job.requests), room.replicas, job.options["loading"]["max_batch_size"])
    requests = [{"request": json.dumps(it)} for it in job.requests]
    blocks = math.ceil(len(requests) / size)
    data = ray.data.from_items(requests, override_num_blocks=blocks)
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, room.cpus // ranks))
    yield from data.map_batches(
        ReplicaActor,
        batch_size=None,
        fn_constructor_args=(json.dumps(job.options), str(Path.cwd()), threads),
        compute=ray.data.ActorPoolStrategy(
            size=min(room.replicas, blocks), max_tasks_in_flight_per_actor=1
        ),
        num_cpus=room.cpus,
        num_gpus=room.gpus or None,
    ).iter_rows()


def _pieces(rows: Iterator[dict[str, Any]]) -> Iterator[AnswerPiece]:
    """Yield each answer once, though Ray may have run a block twice."""
    seen: set[int] = set()
    for row in rows:
        if row["error"]:
            raise LlamakitError(row["error"])
        index = int(row["index"])
        if index not in seen:
            seen.add(index)
            answer = parse_json(row["answer"], "an answer")
            yield AnswerPiece(index, len(answer["tokens"]), answer["text"], answer)


def block_size(requests: int, replicas: int, slots: int) -> int:
    """Return how many requests a replica is called with.

    So many that its slots are in use, and so few that all replicas end at about the same time.

    Args:
        slots: how many a replica answers at the same time.
    """
    fair = math.ceil(requests / (_BLOCKS_A_SLOT * replicas))
    return min(_BLOCKS_A_SLOT * slots, max(slots, fair))
