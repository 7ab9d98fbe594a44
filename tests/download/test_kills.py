"""After SIGKILL the same command continues, and little is fetched twice."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import pytest
from faults import hang
from fetching import FAST, MB, assert_whole, fetch, files_in, serve_model
from server import Server

from llamakit.download.part_file import resumable_nbytes

BUFFERS = 1 * MB
"""What a kill may cost a connection, in bytes."""
AHEAD = 2 * MB
"""So much the server sends on while it is being killed."""


def kill_at_random(server, out, env, *, kills, connections, model, seed):
    """Start the command again and again, kill it somewhere, and let the last one end."""
    chance = random.Random(seed)
    command = [sys.executable, "-m", "llamakit", "download", model, "--output-dir", str(out), *FAST]
    command += ["--connections", str(connections)]
    sizes = {name: (server.folder / name).stat().st_size for name in files_in(server.folder)}
    total = sum(sizes.values())
    for number in range(kills):
        missing = total - sum(min(size, there(out / name)) for name, size in sizes.items())
        before = server.nbytes
        nbytes = before + int(missing / (kills - number + 1) * chance.uniform(0.2, 1.5))
        server.hold(min(nbytes + AHEAD, before + missing - 1))  # it cannot end before it is killed
        child = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
        server.wait_for(nbytes, 180)
        time.sleep(chance.uniform(0, 0.02))
        assert child.poll() is None
        child.kill()
        child.wait()
        server.release()
    subprocess.run(command, env=env, capture_output=True, timeout=300, check=True)
    assert_whole(out, server.folder)
    return total


def there(final):
    return final.stat().st_size if final.exists() else resumable_nbytes(final)


@pytest.fixture
def environment(isolated):
    return lambda server: {**isolated, "LLAMAKIT_URL": server.link, "NO_PROXY": "127.0.0.1"}


@pytest.mark.parametrize("seed", [1])
def test_a_few_kills_cost_a_mebibyte_a_connection_each(large_folder, out, environment, seed):
    with Server(large_folder, rate=8 * MB) as server:
        total = kill_at_random(
            server, out, environment(server), kills=3, connections=3, model="7B", seed=seed
        )

        assert server.nbytes <= total + 3 * 3 * BUFFERS


@pytest.mark.soak
def test_kills_of_eight_connections_on_eight_files(tmp_path, out, environment):
    folder = serve_model(tmp_path / "served", 8, 2 * MB, "llama-2-70b")
    with Server(folder, rate=1 * MB) as server:
        total = kill_at_random(
            server, out, environment(server), kills=2, connections=8, model="70B", seed=2
        )

        assert server.nbytes <= total + 2 * 8 * BUFFERS


@pytest.mark.soak
@pytest.mark.parametrize("seed", [3, 4, 5])
def test_twenty_kills_of_one_download(tmp_path, out, environment, seed):
    folder = serve_model(tmp_path / "served", nbytes=400 * MB)
    with Server(folder, rate=10 * MB) as server:
        total = kill_at_random(
            server, out, environment(server), kills=20, connections=8, model="7B", seed=seed
        )

        assert server.nbytes <= total + 20 * 8 * BUFFERS


@pytest.mark.soak
def test_twenty_kills_of_eight_files(tmp_path, out, environment):
    folder = serve_model(tmp_path / "served", 8, 40 * MB, "llama-2-70b")
    with Server(folder, rate=4 * MB) as server:
        total = kill_at_random(
            server, out, environment(server), kills=20, connections=8, model="70B", seed=6
        )

        assert server.nbytes <= total + 20 * 8 * BUFFERS


def test_a_dry_run_that_is_killed_leaves_nothing(tmp_path, server, out, environment):
    (tmp_path / "tmp").mkdir()
    server.fault(hang(), path="llama-2-7b/checklist.chk")
    command = [sys.executable, "-m", "llamakit", "download", "7B", "--output-dir", out, "--dry-run"]
    env = environment(server) | {"TMPDIR": str(tmp_path / "tmp")}
    child = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    while not any("llama-2-7b/checklist.chk" in ask.path for ask in server.requests):
        assert child.poll() is None
        time.sleep(0.01)

    child.kill()
    child.wait()

    assert list((tmp_path / "tmp").iterdir()) == []
    assert not out.exists()


def test_a_planted_part_or_state_is_not_written_through(tmp_path, server, out):
    (out / "llama-2-7b").mkdir(parents=True)
    (tmp_path / "precious").write_text("precious")
    shard = out / "llama-2-7b" / "consolidated.00.pth"
    for suffix in (".part", ".part.state", ".part.state.new"):
        shard.with_name(shard.name + suffix).symlink_to(tmp_path / "precious")
    (out / ".LICENSE.new").symlink_to(tmp_path / "precious")

    fetch(server, out)

    assert (tmp_path / "precious").read_text() == "precious"
    assert shard.read_bytes() == (server.folder / "llama-2-7b" / shard.name).read_bytes()
