"""Workers, nodes and drivers are killed at random; the answers are those of one process."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import Generate, write_prompts

MINUTES = float(os.environ.get("LLAMAKIT_SOAK_MINUTES", "120"))


def replicas_of(cluster) -> list[int]:
    """Return the processes of a cluster's replicas, and of no other cluster's."""
    raylets = {
        info.process.pid
        for node in cluster.list_all_nodes()
        for info in node.all_processes.get("raylet", ())
    }
    found = []
    for entry in Path("/proc").iterdir():
        try:
            is_replica = b"ReplicaActor" in (entry / "cmdline").read_bytes()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if is_replica and parent in raylets:
            found.append(int(entry.name))
    return found


class Chaos:
    """Starts a command again and again until it ends well, and kills something now and then."""

    def __init__(self, cluster, generate: Generate, draw: random.Random) -> None:
        self.cluster, self.generate, self.draw = cluster, generate, draw
        self.killed: list[str] = []

    def run(self, words: list[str], kills: list[str], pause: float) -> None:
        """Run a command, and kill what ``kills`` lists, in this order.

        Args:
            pause: about how many seconds the replicas work between two kills.
        """
        kills, driver = list(kills), self.generate.start(*words, stderr=subprocess.DEVNULL)
        until = time.monotonic() + self.draw.uniform(0, 2 * pause)
        while driver.poll() is None or driver.returncode:
            if driver.poll() is not None:  # killed, or its cluster has failed: users do it again
                assert len(self.killed) > 0
                driver = self.generate.start(*words, stderr=subprocess.DEVNULL)
            if kills and replicas_of(self.cluster) and time.monotonic() > until:
                self._kill(kills.pop(0), driver)
                until = time.monotonic() + self.draw.uniform(0, 2 * pause)
            time.sleep(0.05)

    def _kill(self, what: str, driver: subprocess.Popen[str]) -> None:
        self.killed.append(what)
        if what == "driver":
            driver.kill()
            driver.wait()
        elif what == "node":
            node = self.draw.choice(sorted(self.cluster.worker_nodes, key=str))
            self.cluster.remove_node(node, allow_graceful=False)
            self.cluster.add_node(num_cpus=1, object_store_memory=128 << 20)
        else:
            os.kill(self.draw.choice(sorted(replicas_of(self.cluster))), signal.SIGKILL)


def run_round(cluster, generate: Generate, seed: int, count: int, kills: list[str], pause: float):
    """Answer prompts on a cluster that is killed meanwhile, and in one process; compare."""
    draw = random.Random(seed)
    draw.shuffle(kills)
    write_prompts(generate.folder / "prompts.jsonl", count)
    ours, theirs = f"{seed}-one.jsonl", f"{seed}/"
    chaos = Chaos(cluster, generate, draw)

    words = ["--prompts", "prompts.jsonl", "--output", theirs, "--on", f"ray:{cluster.address}"]
    chaos.run(words, kills, pause)
    generate("--prompts", "prompts.jsonl", "--output", ours)

    print(f"seed {seed}: {count} prompts, killed {' '.join(chaos.killed)}")
    found = generate.answers(f"{theirs}answers.jsonl")
    assert sorted(found) == sorted(f"p{it}" for it in range(count))
    assert found == generate.answers(ours)
    return chaos.killed


def test_no_answer_is_lost_or_there_twice_where_workers_nodes_and_drivers_are_killed(
    cluster, generate
):
    killed = run_round(cluster, generate, 1, 600, ["worker", "node", "driver"], 1)

    assert killed


@pytest.mark.soak
def test_ten_thousand_prompts_through_hours_of_kills(cluster, generate):
    end, seed = time.monotonic() + 60 * MINUTES, 100

    while time.monotonic() < end:
        kills = ["worker"] * 12 + ["node"] * 6 + ["driver"] * 4
        run_round(cluster, generate, seed, 10_000, kills, 6)
        seed += 1
