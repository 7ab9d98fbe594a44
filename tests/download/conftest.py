"""A small model on a server, a large one and one of eight shards; the command, with the link."""

from __future__ import annotations

import sys

import pexpect
import pytest
from asking import NBYTES, SHARD
from download_kit import make_model
from fetching import FAST, MB, serve_model
from server import Server
from terminals import Shown


@pytest.fixture
def folder(tmp_path):
    make_model(tmp_path / "served", nbytes=NBYTES)
    return tmp_path / "served"


@pytest.fixture
def shard(folder):
    return (folder / SHARD).read_bytes()


@pytest.fixture
def server(folder):
    with Server(folder) as server:
        yield server


@pytest.fixture(scope="session")
def large_folder(tmp_path_factory):
    """A shard of three segments."""
    return serve_model(tmp_path_factory.mktemp("large") / "served", nbytes=20 * MB + 12_345)


@pytest.fixture(scope="session")
def sharded_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded") / "served"
    return serve_model(folder, 8, 700_000, "llama-2-70b")


@pytest.fixture
def large(large_folder):
    with Server(large_folder) as server:
        yield server


@pytest.fixture
def sharded(sharded_folder):
    with Server(sharded_folder) as server:
        yield server


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def download(run_llamakit, out):
    """Run the command into ``out``, with the link in the environment."""

    def run(*args, link=None, env=None, model="7B", **more):
        words = ["download", model, "--output-dir", out, *FAST, *args]
        env = {"NO_PROXY": "127.0.0.1"} | (env or {}) | ({"LLAMAKIT_URL": link} if link else {})
        return run_llamakit(*words, env=env, **more)

    return run


@pytest.fixture
def terminal(isolated, out):
    children = []

    def spawn(*words, **env):
        child = pexpect.spawn(
            sys.executable,
            ["-m", "llamakit", "download", *words, "--output-dir", str(out), *FAST],
            env={**isolated, "TERM": "xterm", "NO_PROXY": "127.0.0.1", **env},
            encoding="utf-8",
            timeout=180,
            dimensions=(40, 200),
        )
        child.delaybeforesend = 0.1
        child.logfile_read = Shown()
        children.append(child)
        return child

    yield spawn
    for child in children:
        child.close(force=True)
