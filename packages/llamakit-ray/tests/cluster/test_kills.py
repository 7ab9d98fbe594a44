"""Workers, nodes and drivers are killed at random; the answers are those of one process."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import Generate, write_prompts

MINUTES = float(os.environ.get("LLAMAKIT_SOAK_MINUTES", "120"))
KINDS, WEIGHTS = ("worker", "node", "driver"), (6, 3, 2)
STALLED_SECONDS = 300


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
        self.killed: Counter[str] = Counter()
        self.failed = 0
        """How often the command ended by itself, without all answers."""

    def run(self, words: list[str], file: Path, pause: float) -> None:
        """Run a command, and kill one of each kind and then any, until it has ended well.

        Args:
            file: of its answers, which has to grow.
            pause: about how many seconds the replicas work between two kills.
        """
        kills = list(KINDS)
        self.draw.shuffle(kills)
        driver, progress = self._start(words), Progress(file)
        until = time.monotonic() + self.draw.uniform(0, 2 * pause)
        while driver.poll() is None or driver.returncode:
            if driver.poll() is not None:  # killed, or its cluster has failed: users do it again
                self.failed += driver.returncode != -signal.SIGKILL
                assert self.killed, self.said()
                driver = self._start(words)
            if replicas_of(self.cluster) and time.monotonic() > until:
                what = kills.pop(0) if kills else self.draw.choices(KINDS, WEIGHTS)[0]
                self._kill(what, driver)
                until = time.monotonic() + self.draw.uniform(0, 2 * pause)
            assert not progress.has_stalled(), self.said()
            time.sleep(0.05)

    def said(self) -> str:
        """Return the end of what the commands have written to stderr."""
        return self._log.read_text("utf-8")[-4000:]

    @property
    def _log(self) -> Path:
        return self.generate.folder / "stderr"

    def _start(self, words: list[str]) -> subprocess.Popen[str]:
        with self._log.open("ab") as log:
            return self.generate.start(*words, stderr=log.fileno())

    def _kill(self, what: str, driver: subprocess.Popen[str]) -> None:
        if what == "driver":
            driver.kill()
            driver.wait()
        elif what == "node":
            node = self.draw.choice(sorted(self.cluster.worker_nodes, key=str))
            self.cluster.remove_node(node, allow_graceful=False)
            self.cluster.add_node(num_cpus=1, object_store_memory=128 << 20)
        elif replicas := replicas_of(self.cluster):
            try:
                os.kill(self.draw.choice(sorted(replicas)), signal.SIGKILL)
            except ProcessLookupError:
                return
        self.killed[what] += 1


class Progress:
    """Notices that a file has not grown for long."""

    def __init__(self, file: Path) -> None:
        self._file, self._nbytes, self._since = file, -1, time.monotonic()

    def has_stalled(self) -> bool:
        nbytes = self._file.stat().st_size if self._file.exists() else 0
        if nbytes != self._nbytes:
            self._nbytes, self._since = nbytes, time.monotonic()
        return time.monotonic() - self._since > STALLED_SECONDS


def run_round(cluster, generate: Generate, seed: int, expected: str, pause: float) -> Chaos:
    """Answer prompts on a cluster that is killed meanwhile; compare with those of one process.

    Args:
        expected: the file of these.
    """
    start, chaos = time.monotonic(), Chaos(cluster, generate, random.Random(seed))
    words = ["--prompts", "prompts.jsonl", "--output", f"{seed}/", "--on", f"ray:{cluster.address}"]

    chaos.run(words, generate.folder / f"{seed}" / "answers.jsonl", pause)

    found, answers = generate.answers(f"{seed}/answers.jsonl"), generate.answers(expected)
    seconds, killed = time.monotonic() - start, dict(chaos.killed)
    print(f"seed {seed}: {len(found)} answers in {seconds:.0f} s; killed {killed}; ", end="")
    print(f"the command failed {chaos.failed} times by itself", flush=True)
    assert found == answers
    return chaos


def answer_alone(generate: Generate, count: int) -> str:
    """Write prompts, and answer them in one process; return the file of the answers."""
    write_prompts(generate.folder / "prompts.jsonl", count)
    generate("--prompts", "prompts.jsonl", "--output", "one.jsonl", timeout=3600)
    assert sorted(generate.answers("one.jsonl")) == sorted(f"p{it}" for it in range(count))
    return "one.jsonl"


def test_no_answer_is_lost_or_there_twice_where_workers_nodes_and_drivers_are_killed(
    cluster, generate
):
    expected = answer_alone(generate, 600)

    chaos = run_round(cluster, generate, 1, expected, 1)

    assert chaos.killed


@pytest.mark.soak
def test_ten_thousand_prompts_through_hours_of_kills(cluster, generate):
    end, seed = time.monotonic() + 60 * MINUTES, 100
    expected = answer_alone(generate, 10_000)

    while time.monotonic() < end:
        chaos = run_round(cluster, generate, seed, expected, 6)

        assert set(chaos.killed) == set(KINDS)
        seed += 1
