"""The variables of torchrun: what is right is read, anything else is one sentence."""

from __future__ import annotations

import pytest

from llamakit.errors import ParallelError
from llamakit.runtime.rank_environment import (
    JOIN_TIMEOUT,
    RankEnvironment,
    join_timeout,
    read_environment,
)

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
TWO = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "10.0.7.1", "MASTER_PORT": "29500"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (*NAMES, "LLAMAKIT_JOIN_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def set_all(environment: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "read"),
    [
        ({}, RankEnvironment()),
        ({"MASTER_ADDR": "10.0.7.1", "MASTER_PORT": "x"}, RankEnvironment()),
        ({"WORLD_SIZE": "1"}, RankEnvironment()),
        ({"WORLD_SIZE": "", "RANK": ""}, RankEnvironment()),
        ({"RANK": "0", "WORLD_SIZE": " 1 ", "LOCAL_RANK": "0"}, RankEnvironment(local_size=None)),
        (TWO, RankEnvironment(1, 2, 0, None, "10.0.7.1", 29500)),
        (
            {**TWO, "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "fe80::1%eth0"},
            RankEnvironment(1, 2, 1, 2, "fe80::1%eth0", 29500),
        ),
    ],
)
def test_what_is_right_is_read(
    environment: pytest.MonkeyPatch, variables: dict[str, str], read: RankEnvironment
) -> None:
    set_all(environment, variables)

    assert read_environment() == read


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"RANK": ""}, "WORLD_SIZE is 2, but RANK is not set"),
        ({"WORLD_SIZE": ""}, "RANK is 1, but WORLD_SIZE is not set"),
        ({"WORLD_SIZE": "", "RANK": "", "LOCAL_RANK": "0"}, "LOCAL_RANK is 0, but WORLD_SIZE is"),
        ({"MASTER_ADDR": ""}, "WORLD_SIZE is 2, but MASTER_ADDR is not set"),
        ({"MASTER_PORT": ""}, "WORLD_SIZE is 2, but MASTER_PORT is not set"),
        ({"RANK": "2"}, "RANK is 2, but WORLD_SIZE is 2: expected at most 1"),
        ({"WORLD_SIZE": "1"}, "RANK is 1, but WORLD_SIZE is 1: expected at most 0"),
        ({"RANK": "-1"}, "RANK is '-1', expected a whole number from 0 on"),
        ({"RANK": "one"}, "RANK is 'one', expected a whole number from 0 on"),
        ({"RANK": "1.0"}, "RANK is '1.0', expected a whole number from 0 on"),
        ({"RANK": "\u0663"}, "RANK is '\u0663', expected a whole number from 0 on"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0', expected a whole number from 1 on"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two', expected a whole number from 1 on"),
        ({"WORLD_SIZE": "9" * 5000}, "WORLD_SIZE is '9999"),
        ({"LOCAL_RANK": "2"}, "LOCAL_RANK is 2, but WORLD_SIZE is 2: expected at most 1"),
        (
            {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "1"},
            "LOCAL_RANK is 1, but LOCAL_WORLD_SIZE is 1: expected at most 0",
        ),
        ({"LOCAL_WORLD_SIZE": "4"}, "LOCAL_WORLD_SIZE is 4, but WORLD_SIZE is 2: expected at most"),
        ({"MASTER_PORT": "0"}, "MASTER_PORT is '0', expected a port from 1 to 65535"),
        ({"MASTER_PORT": "65536"}, "MASTER_PORT is '65536', expected a port from 1 to 65535"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT is 'http', expected a port from 1 to 65535"),
        ({"MASTER_ADDR": "tcp://10.0.7.1"}, "MASTER_ADDR is 'tcp://10.0.7.1', expected a host's"),
        ({"MASTER_ADDR": "é..x"}, "MASTER_ADDR is 'é..x', expected a host's"),
        ({"MASTER_ADDR": "a" * 64}, "MASTER_ADDR is 'aaaa"),
        ({"MASTER_ADDR": "a\nb\x1b[2J"}, r"MASTER_ADDR is 'a\nb\x1b[2J', expected a host's"),
    ],
)
def test_anything_else_is_one_sentence(
    environment: pytest.MonkeyPatch, changes: dict[str, str], message: str
) -> None:
    set_all(environment, TWO | changes)

    with pytest.raises(ParallelError) as caught:
        read_environment()

    assert str(caught.value).startswith(message)
    assert "to run one process, unset" in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("given", "variable", "expected"),
    [(None, "", JOIN_TIMEOUT), (None, "30", 30.0), (5.0, "30", 5.0)],
)
def test_the_join_timeout_is_the_given_one_or_the_variable(
    environment: pytest.MonkeyPatch, given: float | None, variable: str, expected: float
) -> None:
    environment.setenv("LLAMAKIT_JOIN_TIMEOUT", variable)

    assert join_timeout(given) == expected


@pytest.mark.parametrize("variable", ["soon", "0", "-1", "nan", "inf"])
def test_a_join_timeout_that_is_no_time_is_refused(
    environment: pytest.MonkeyPatch, variable: str
) -> None:
    environment.setenv("LLAMAKIT_JOIN_TIMEOUT", variable)

    with pytest.raises(ParallelError, match=r"LLAMAKIT_JOIN_TIMEOUT is .*: expected seconds"):
        join_timeout(None)


def test_a_command_says_it_before_anything_is_loaded(run_llamakit) -> None:  # type: ignore[no-untyped-def]
    done = run_llamakit("generate", "hello", env={"WORLD_SIZE": "2"})

    *_, last = done.stderr.splitlines()
    assert done.returncode == 1
    assert last.startswith("llamakit: error: WORLD_SIZE is 2, but RANK is not set")


def test_a_command_that_needs_no_ranks_runs_all_the_same(run_llamakit) -> None:  # type: ignore[no-untyped-def]
    done = run_llamakit("--version", env={"WORLD_SIZE": "2"})

    assert (done.returncode, done.stderr) == (0, "")
