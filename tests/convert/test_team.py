"""Several ranks convert and verify together: the bytes, the status and the words of one process."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

from llamakit.api import export, plan_reshard, quantize, reshard, verify
from llamakit.checkpoint.teamwork import Team, working_in
from llamakit.convert.batches import batches
from llamakit.convert.moves import Move
from llamakit.convert.shared_moves import shared_moves
from llamakit.errors import DestinationError, ParallelError
from llamakit.runtime.heartbeat import VARIABLE

Run = Callable[..., "subprocess.CompletedProcess[str]"]
T = TypeVar("T")
Together = Callable[..., list[Any]]


@pytest.fixture
def source(reference_cases: Path) -> Path:
    return reference_cases / "mha-mp8"


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> Iterator[Together]:
    """Do some work as ranks that are threads with a store of torch's; return what each gives."""
    from torch import distributed

    from llamakit.runtime.store_team import StoreTeam

    monkeypatch.setenv(VARIABLE, "600")  # threads of a busy machine
    pools = []

    def work_on(size: int, work: Callable[[Team], T]) -> list[T | BaseException]:
        store = distributed.HashStore()

        def rank(number: int) -> T | BaseException:
            team = StoreTeam(number, store, [f"host-{it}" for it in range(size)])
            with working_in(team):
                try:
                    done = work(team)
                    team.gather("end")
                except BaseException as error:  # noqa: BLE001 - returned
                    team.fail(error)
                    return error
                finally:
                    team.close()
                return done

        pools.append(ThreadPoolExecutor(size))
        return list(pools[-1].map(rank, range(size)))

    yield work_on
    for pool in pools:
        pool.shutdown()


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("ranks", "convert"),
    [
        (3, lambda source, folder: reshard(source, folder, 4, verify=True)),
        (2, lambda source, folder: export(source, folder, "hf", max_shard_size="100kB")),
        (
            2,
            lambda source, folder: export(
                source, folder, "hf", quantize="int8", max_shard_size="99kB"
            ),
        ),
        (3, lambda source, folder: quantize(source, folder, "int8")),
        (2, lambda source, folder: reshard(source, folder, 1, dtype="bfloat16")),
    ],
)
def test_every_byte_is_that_of_one_process(
    convert: Callable[[Path, Path], object],
    ranks: int,
    together: Together,
    source: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "alone").mkdir()
    (tmp_path / "team").mkdir()

    convert(source, tmp_path / "alone" / "made")
    reports = together(ranks, lambda _: convert(source, tmp_path / "team" / "made"))

    assert {report["destination"] for report in reports} == {str(tmp_path / "team" / "made")}
    assert files_in(tmp_path / "team" / "made") == files_in(tmp_path / "alone" / "made")
    assert [path.name for path in (tmp_path / "team").iterdir()] == ["made"]


def test_a_place_or_a_source_that_the_hosts_do_not_share_is_refused(
    together: Together, source: Path, reference_cases: Path, tmp_path: Path
) -> None:
    other = reference_cases / "gqa-mp1"
    (tmp_path / "0").mkdir()
    (tmp_path / "1").mkdir()

    placed = together(2, lambda team: reshard(source, tmp_path / f"{team.rank}" / "made", 4))
    read = together(2, lambda team: reshard((source, other)[team.rank], tmp_path / "made", 1))

    shutil.copytree(source, tmp_path / "tuned")
    shard = tmp_path / "tuned" / "consolidated.00.pth"
    parameters = torch.load(shard, weights_only=True)
    parameters["output.weight"][-2] += 1
    torch.save(parameters, shard)
    tuned = tmp_path / "tuned"
    read += together(2, lambda team: reshard((source, tuned)[team.rank], tmp_path / "made", 1))
    shutil.rmtree(tuned)

    assert "is on no file system that all hosts share" in str(placed[1])
    assert str(placed[0]) == f"rank 1 on host host-1: {placed[1]}"
    assert all("for rank 1 than for rank 0: put it on a file system" in str(it) for it in read)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["0", "1"]


def team_of(number: int, count: int) -> Team:
    class Member(Team):
        rank, size = number, count

    return Member()


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_every_file_is_one_ranks_whatever_the_sizes(size: int) -> None:
    for sizes in ([], [0, 0], [5, 0, 5, 0], [9, 1, 1, 1], [1] * 5):
        files = dict(enumerate(sizes))

        shares = [team_of(rank, size).share(files) for rank in range(size)]

        assert sorted(it for share in shares for it in share) == list(files)
    assert team_of(0, 2).share({"a": 5, "b": 5, "c": 5, "d": 5}) == {"a", "b"}


@pytest.mark.parametrize("shards", [2, 4, 8])
def test_ranks_together_read_each_byte_once_where_no_column_is_split(
    shards: int, source: Path, tmp_path: Path
) -> None:
    plan = plan_reshard(source, tmp_path / "made", shards)

    shares = [shared_moves(plan.moves, plan.weights, team_of(rank, 2)) for rank in range(2)]

    assert sum(map(nbytes_of, shares)) <= nbytes_of(plan.moves) * 1.01  # norms are in each file


def nbytes_of(moves: Sequence[Move]) -> int:
    return sum(read.nbytes for batch in batches(moves) for read in batch.reads)


@pytest.mark.parametrize("deep", [False, True])
def test_a_damaged_file_is_found_by_whoever_reads_it(
    deep: bool, together: Together, source: Path, tmp_path: Path
) -> None:
    shutil.copytree(source, tmp_path / "model")
    damaged = tmp_path / "model" / "consolidated.05.pth"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")

    alone = verify(tmp_path / "model", deep=deep)
    first, *others = together(3, lambda _: verify(tmp_path / "model", deep=deep))

    assert not alone.good
    assert first.as_json() == alone.as_json()
    assert deep or [report.as_json() for report in others] == [alone.as_json()] * 2


@pytest.mark.parametrize("failing", [0, 1])
def test_what_stops_one_rank_stops_all_with_its_words_and_leaves_nothing(
    failing: int, together: Together, source: Path, tmp_path: Path
) -> None:
    def work(team: Team) -> None:
        def stop(_nbytes: int) -> None:
            if team.rank == failing:
                raise DestinationError("no more")

        reshard(source, tmp_path / "made", 4, progress=stop)

    errors = together(2, work)

    assert isinstance(errors[failing], DestinationError)
    assert isinstance(errors[1 - failing], ParallelError)
    assert str(errors[1 - failing]) == f"rank {failing} on host host-{failing}: no more"
    assert [error.exit_status for error in errors] == [2, 2]
    assert list(tmp_path.iterdir()) == []


def test_ranks_that_torchrun_starts_print_and_end_as_one(
    torchrun: Run, run_llamakit: Run, source: Path, tmp_path: Path
) -> None:
    words = ("reshard", str(source), "made", "-n", "4")

    alone = run_llamakit(*words)
    shutil.move(tmp_path / "made", tmp_path / "alone")
    done = torchrun(2, "-m", "llamakit", *words)

    assert (done.returncode, done.stdout) == (0, alone.stdout), done.stderr
    assert files_in(tmp_path / "made") == files_in(tmp_path / "alone")


@pytest.mark.soak
def test_a_refusal_is_printed_once(torchrun: Run, source: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "mine").touch()

    done = torchrun(2, "-m", "llamakit", "reshard", str(source), "made", "-n", "4")

    assert done.returncode != 0
    assert done.stderr.count("made exists already") == 1


LEAVES = """
import os
from llamakit.runtime.rank_environment import read_environment
from llamakit.runtime.store_team import join_team
join_team(read_environment(), 60)
os.kill(os.getpid(), 9)
"""


def test_a_rank_that_is_killed_is_named_with_its_host_and_nothing_is_left(
    run_script: Run, source: Path, port: int, tmp_path: Path
) -> None:
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common[VARIABLE] = "1"
    words = ("-m", "llamakit", "reshard", str(source), "made", "-n", "4")

    with ThreadPoolExecutor(2) as threads:
        leaving = threads.submit(run_script, "-c", LEAVES, env={**common, "RANK": "1"})
        done = run_script(*words, env={**common, "RANK": "0"})

    assert leaving.result().returncode != 0
    assert done.returncode == 1
    assert f"rank 1 of 2 on host {os.uname().nodename} has given no sign of life" in done.stderr
    assert list(tmp_path.glob("*made*")) == list(tmp_path.glob(".made*")) == []


@pytest.mark.soak
def test_a_hundred_kills_leave_a_whole_folder_or_none(source: Path, tmp_path: Path) -> None:
    reshard(source, tmp_path / "alone", 4)
    expected = files_in(tmp_path / "alone")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
    command += ["3", "-m", "llamakit", "reshard", str(source), "made", "-n", "4"]
    ended = []
    for _ in range(100):
        shutil.rmtree(tmp_path / "made", ignore_errors=True)
        run = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
        time.sleep(3 + secrets.randbelow(5000) / 1000)
        listed = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        if listed:
            os.kill(int(secrets.choice(listed)), signal.SIGKILL)
        ended.append(run.wait(timeout=120))

        assert not (tmp_path / "made").exists() or files_in(tmp_path / "made") == expected

    assert {0} < set(ended)
    subprocess.run(command, cwd=tmp_path, stderr=subprocess.DEVNULL, check=False)
    assert not list(tmp_path.glob(".made*"))
