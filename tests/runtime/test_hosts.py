"""Ranks on several hosts: a wrong network is named at once, a lost rank in bounded time."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from torch import distributed

from llamakit.errors import ParallelError
from llamakit.runtime.heartbeat import VARIABLE, Heartbeat, StoreSigns, heartbeat_timeout
from llamakit.runtime.host_addresses import GLOO, NCCL, RankAddress, check_addresses, gloo_address
from llamakit.runtime.rank_environment import RankEnvironment
from llamakit.runtime.rank_links import make_links
from llamakit.runtime.rendezvous import check_versions

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def on_ranks(size: int, work: Callable[[int, Any], None]) -> list[str]:
    """Run work on threads that share a store; return what each raises."""
    store = distributed.HashStore()

    def rank(number: int) -> str:
        try:
            work(number, store)
        except ParallelError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(size) as threads:
        return list(threads.map(rank, range(size)))


def check(*places: RankAddress) -> list[str]:
    hosts = [place.host for place in places]
    return on_ranks(
        len(places), lambda rank, store: check_addresses(rank, store, hosts, places[rank])
    )


def test_ranks_of_one_host_may_use_loopback() -> None:
    assert check(RankAddress("a", "127.0.0.1"), RankAddress("a", "127.0.0.1")) == ["", ""]


def test_a_host_that_would_be_looked_for_at_its_loopback_is_named_on_every_rank() -> None:
    first, second, third = check(
        RankAddress("a", "192.0.2.1"), RankAddress("b", "127.0.1.1"), RankAddress("b", "")
    )

    assert first == second == third
    assert "rank 1 on host b would be looked for at 127.0.1.1" in first
    assert GLOO in first


@pytest.mark.parametrize(
    "sent",
    [
        b'{"host": "b"}',
        b'{"host": "b", "address": "elsewhere", "port": 0}',
        b'{"host": "b", "address": "", "port": 0, "more": 1}',
        b"[1, 2, 3]",
        b"7",
    ],
)
def test_what_no_rank_writes_to_the_store_is_named(sent: bytes) -> None:
    store = distributed.HashStore()
    store.set("place 1", sent)

    with pytest.raises(ParallelError, match="as place 1, which no rank of llamakit writes"):
        check_addresses(0, store, ["a", "b"], RankAddress("a", "192.0.2.1"))


def test_hosts_that_reach_each_other_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipaddress.IPv4Address.is_loopback", False)  # these hosts are threads

    assert (
        check(*(RankAddress(f"host {it // 2}", f"127.0.0.{it + 2}") for it in range(4))) == [""] * 4
    )


def test_a_host_that_cannot_be_reached_is_named_with_who_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ipaddress.IPv4Address.is_loopback", False)
    closed = "llamakit.runtime.host_addresses.socket.create_connection"
    monkeypatch.setattr(closed, refuse)

    first, second = check(RankAddress("a", "127.0.0.2"), RankAddress("b", "127.0.0.3"))

    assert first == second
    assert "rank 0 on host a cannot connect to rank 1 on host b at 127.0.0.3 (no route)" in first


def refuse(*_: object, **__: object) -> None:
    raise OSError(113, "no route")


@pytest.mark.parametrize("variable", [GLOO, NCCL])
def test_an_interface_that_is_not_there_is_refused(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "eth77")

    with pytest.raises(ParallelError, match=f"{variable} is 'eth77', .* it has .*lo"):
        gloo_address()


@pytest.mark.parametrize(("variable", "value"), [(GLOO, "lo"), (NCCL, "l"), (NCCL, "^docker")])
def test_an_interface_that_is_there_passes(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)

    address = gloo_address()

    assert address == "127.0.0.1" or variable == NCCL


def test_another_version_on_a_host_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    store = distributed.HashStore()
    store.set("program 1", '["host-b", "9.9.9"]')

    with pytest.raises(ParallelError, match=r"rank 1 on host host-b runs llamakit 9\.9\.9 and"):
        check_versions(RankEnvironment(0, 2), store)


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan", "1e99"])
def test_a_heartbeat_of_no_time_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, text)

    with pytest.raises(ParallelError, match=f"{VARIABLE} is '{text}': expected seconds"):
        heartbeat_timeout()


def hearts(monkeypatch: pytest.MonkeyPatch, ranks: Sequence[int]) -> list[Heartbeat]:
    """Start the heartbeats of some of three ranks."""
    monkeypatch.setenv(VARIABLE, "0.4")
    store = distributed.HashStore()
    started = [Heartbeat(StoreSigns(store), rank, ["a", "b", "c"]) for rank in ranks]
    for heartbeat in started:
        heartbeat.start()
    return started


def test_a_rank_that_gives_no_sign_of_life_is_named_with_its_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (leader,) = hearts(monkeypatch, [0])

    assert "rank 1 of 3 on host b has given no sign of life for 0.4 s" in str(leader.wait())


def test_ranks_that_have_ended_are_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    leader, *others = hearts(monkeypatch, [0, 1, 2])

    for heartbeat in others:
        heartbeat.stop()
    waiting = threading.Thread(target=leader.wait, daemon=True)
    waiting.start()
    waiting.join(0.8)

    assert waiting.is_alive()
    leader.stop()
    assert leader.wait() is None


@pytest.mark.parametrize("shared", [False, True])
def test_a_rank_that_recovers_is_missed_only_when_it_hangs_again(
    shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "0.1")
    links = make_links(2)
    signs = links[1] if shared else StoreSigns(distributed.HashStore())
    leader = Heartbeat(links[0] if shared else signs, 0, ["a", "a"], launched=shared)

    leader.start()
    assert "rank 1 of 2 on host a" in str(leader.wait())
    deadline = time.monotonic() + 60
    while leader.lost is not None and time.monotonic() < deadline:
        signs.write(1, secrets.token_hex(4).encode())
        time.sleep(0.01)

    assert leader.lost is None
    assert "rank 1 of 2 on host a" in str(leader.wait())  # it hangs once more
    leader.stop()
    for link in links:
        link.close()


COMMAND = "import sys\nfrom llamakit.cli.main import main\nsys.exit(main())"
HANGS = """
import os, signal, sys
from pathlib import Path
from llamakit.llama import worker
from llamakit.runtime import rank_group
Path("pid").write_text(str(os.getpid()))
follow = rank_group.RankGroup.follow
def stop_after_loading(group):
    message = follow(group)
    if message[0] == "bye":
        return message
    worker._load(message[1], group)
    os.kill(os.getpid(), signal.SIGSTOP)
rank_group.RankGroup.follow = stop_after_loading
worker.main()
"""


def test_a_rank_of_torchrun_that_hangs_is_named_with_its_host(
    run_script: Run, reference_cases: Path, port: int, tmp_path: Path
) -> None:
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    words = ("-c", f"from llamakit.runtime import launch; launch.NOTICE_TIMEOUT = 0.1\n{COMMAND}")
    command = ("generate", "hello", "-m", str(reference_cases / "mha-mp8"))

    with ThreadPoolExecutor(2) as threads:
        hanging = threads.submit(run_script, "-c", HANGS, env=common | {"RANK": "1"})
        done = run_script(*words, *command, env=common | {"RANK": "0", VARIABLE: "2"})
        with contextlib.suppress(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)

    assert done.returncode == 1, done.stderr
    assert hanging.result().returncode != 0
    assert f"rank 1 of 2 on host {socket.gethostname()} has given no sign of life" in done.stderr


@pytest.mark.soak
def test_a_launched_rank_that_hangs_is_named_and_ends(
    run_script: Run, reference_cases: Path
) -> None:
    script = f"""
import os, signal
from llamakit import Llama
from llamakit.runtime import launch, rank_setup
launch.NOTICE_TIMEOUT = 0.1
llama = Llama.build({str(reference_cases / "mha-mp8")!r}, max_seq_len=128, model_parallel_size=2)
worker = rank_setup._current._workers._processes[0].pid
print(worker, flush=True)
chunks = llama.stream_text("a", temperature=0, max_new_tokens=100)
next(chunks)
os.kill(worker, signal.SIGSTOP)
list(chunks)
"""

    done = run_script("-c", script, env={VARIABLE: "3"})

    assert done.returncode == 1
    assert "llamakit: rank 1 of 2 on host" in done.stderr
    assert "has given no sign of life for 3 s (LLAMAKIT_HEARTBEAT_TIMEOUT)" in done.stderr
    assert not Path(f"/proc/{int(done.stdout)}").exists()
