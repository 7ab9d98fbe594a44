"""Ranks that find each other: whom a rank waits for, for how long, and how to end that."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llamakit.errors import ParallelError
from llamakit.runtime import rendezvous
from llamakit.runtime.rank_environment import RankEnvironment


@pytest.fixture
def notice_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.distributed  # noqa: F401 - takes longer than the notice

    monkeypatch.setattr(rendezvous, "NOTICE_AFTER", 0.5)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)


@pytest.mark.usefixtures("notice_at_once")
@pytest.mark.parametrize(
    ("rank", "size", "awaited"),
    [(0, 2, "rank 1"), (0, 4, "rank 1, 2, 3"), (1, 2, "rank 0")],
)
def test_a_rank_says_whom_it_awaits_where_and_gives_up(
    rank: int, size: int, awaited: str, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = RankEnvironment(rank, size, host="127.0.0.1", port=port)

    with (
        pytest.raises(ParallelError) as caught,
        rendezvous.waiting(environment, timeout=2.5) as wait,
    ):
        rendezvous.meet(environment, wait)

    assert capsys.readouterr().err == (
        f"llamakit: rank {rank} of {size} waits for {awaited} at 127.0.0.1:{port}, "
        "for up to 2.5 s (--join-timeout); Ctrl-C cancels\n"
    )
    assert str(caught.value).startswith(
        f"rank {rank} of {size} waited 2.5 s for {awaited} at 127.0.0.1:{port}"
    )
    assert "LLAMAKIT_JOIN_TIMEOUT" in str(caught.value)


def test_a_port_that_is_in_use_is_one_sentence() -> None:
    with socket.create_server(("", 0)) as server:
        environment = RankEnvironment(0, 2, host="127.0.0.1", port=server.getsockname()[1])

        with (
            pytest.raises(ParallelError, match=r"^rank 0 of 2 cannot join .*: Is the port|in use"),
            rendezvous.waiting(environment, timeout=5) as wait,
        ):
            rendezvous.meet(environment, wait)


@contextmanager
def started(python: Path, rank: int, port: int, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with subprocess.Popen(
        [python, *arguments],
        env={**os.environ, **place, "RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("rank", [0, 1])
def test_ctrl_c_cancels_the_wait(forked_python: Path, rank: int, port: int) -> None:
    with started(forked_python, rank, port, "-m", "llamakit", "generate", "hello") as process:
        assert process.stderr is not None
        waits = next(line for line in process.stderr if "waits for" in line)

        process.send_signal(signal.SIGINT)

        assert process.wait(180) == 130
        assert f"rank {rank} of 2 waits for rank {1 - rank}" in waits
        assert "Traceback" not in process.stderr.read()


JOIN = """
import torch
from torch import distributed
from llamakit.runtime import launch, rank_setup

group = rank_setup.join(2, timeout=60)
gloo = distributed.group.WORLD._get_backend(torch.device("cpu"))
assert gloo.options._timeout == launch.IDLE, "only joining is short of time"
group.agree(None)
group.close()
again = rank_setup.join(2, timeout=60)
again.agree(None)
again.close()
"""


def test_a_rank_that_comes_late_is_awaited_and_then_may_idle(
    forked_python: Path, port: int
) -> None:
    with started(forked_python, 0, port, "-c", JOIN) as first:
        assert first.stderr is not None
        waits = next(line for line in first.stderr if "waits for" in line)

        with started(forked_python, 1, port, "-c", JOIN) as second:
            statuses = [first.wait(180), second.wait(180)]

    assert "waits for rank 1 at" in waits
    assert statuses == [0, 0]
