"""``llamakit reshard``, ``export`` and ``import``, killed, interrupted and short of space."""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llamakit.api import open_checkpoint

COMMANDS = {"reshard": ("reshard", "-n", "2"), "export": ("export", "--max-shard-size", "20MB")}
IMPORT = {"import": ("import", "-n", "2")}
COMPUTING = {"edit": ("edit", "--dtype", "bfloat16"), "quantize": ("quantize", "--bits", "int8")}


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def start(command, source, destination, **settings):
    name, *more = (COMMANDS | IMPORT | COMPUTING)[command]
    words = [sys.executable, "-m", "llamakit", name, str(source), str(destination), *more]
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings
    )


def finish(command, source, destination):
    process = start(command, source, destination)
    _, told = process.communicate(timeout=180)
    return process.returncode, told


def test_reshard_prints_a_plan_and_does_nothing(run_llamakit, reference_cases, tmp_path):
    words = ("reshard", reference_cases / "mha-mp8", tmp_path / "out", "-n", "2")
    planned = run_llamakit(*words, "--plan", "--json")
    assert planned.returncode == 0
    assert not (tmp_path / "out").exists()

    done = run_llamakit(*words, "--json")
    assert done.returncode == 0, done.stderr

    plan, report = json.loads(planned.stdout), json.loads(done.stdout)
    assert plan["refusals"] == []
    assert plan["files"] == [{"name": it["name"], "nbytes": it["nbytes"]} for it in report["files"]]
    assert run_llamakit(*words, "--plan").returncode == 1  # it exists now
    assert run_llamakit(*words).returncode == 2


def test_there_and_back_on_the_command_line(run_llamakit, reference_cases, tmp_path):
    assert run_llamakit("export", reference_cases / "gqa-mp1", "hf").returncode == 0
    assert run_llamakit("import", "hf", "meta", "-n", "2").returncode == 0

    one, back = open_checkpoint(reference_cases / "gqa-mp1"), open_checkpoint(tmp_path / "meta")
    assert all(one.read(it).tobytes() == back.read(it).tobytes() for it in back.parameters)


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (("reshard", "SRC", "out"), 2, "--model-parallel-size"),
        (("reshard", "SRC", "out", "-n", "3"), 1, "Sizes that fit: 1, 2, 4, 8"),
        (("reshard", "nothing", "out", "-n", "1"), 1, "no such folder"),
        (("export", "SRC", "out", "--format", "hff"), 2, "hf"),
        (("export", "SRC", "out", "--max-shard-size", "big"), 2, "5GB"),
        (("export", "SRC", "out", "--option", "x"), 2, "K=V"),
        (("import", "SRC", "no/out"), 2, "mkdir -p"),
    ],
)
def test_wrong_words_are_reported_in_a_sentence(
    run_llamakit, reference_cases, tmp_path, words, status, told
):
    source = str(reference_cases / "mha-mp8")
    result = run_llamakit(*[source if word == "SRC" else word for word in words])

    assert result.returncode == status
    assert told in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_no_conversion_imports_torch(reference_cases, tmp_path):
    code = (
        "import sys, llamakit\n"
        "llamakit.reshard(sys.argv[1], 'two', 2, dtype='bfloat16', verify=True)\n"
        "llamakit.export('two', 'hf')\n"
        "llamakit.export('two', 'st', 'safetensors')\n"
        "llamakit.import_checkpoint('hf', 'four', 4)\n"
        "assert 'torch' not in sys.modules\n"
    )
    source = str(reference_cases / "mha-mp8")

    subprocess.run([sys.executable, "-c", code, source], cwd=tmp_path, check=True)


def kill_at_random(command, source, folder, times, seed):
    """Kill a conversion at random moments; each time nothing half is there, then run it whole."""
    before = files(source)
    started = time.monotonic()
    whole = start(command, source, folder / "whole")
    assert whole.wait() == 0, whole.stderr.read()
    whole.communicate()
    duration = time.monotonic() - started
    moments = random.Random(seed)
    for _ in range(times):
        process = start(command, source, folder / "out")
        time.sleep(moments.uniform(0.1, 1) * duration)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if (folder / "out").exists():  # it was quicker
            assert files(folder / "out") == files(folder / "whole")
            (folder / "out").rename(folder / f"done{moments.random()}")
    assert files(source) == before
    process = start(command, source, folder / "out")
    assert process.wait() == 0, process.stderr.read()
    process.communicate()
    assert files(folder / "out") == files(folder / "whole")
    assert [path for path in folder.iterdir() if path.name.startswith(".out")] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_killed_at_any_moment_it_leaves_nothing_half(big_meta, tmp_path, command):
    kill_at_random(command, big_meta, tmp_path, 3, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("command", COMMANDS)
def test_killed_at_twenty_moments_it_leaves_nothing_half(big_meta, tmp_path, command):
    kill_at_random(command, big_meta, tmp_path, 20, seed=2)


@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_leaves_nothing(big_meta, tmp_path, command):
    for _ in range(20):  # on a busy machine it may be done before it is interrupted
        process = start(command, big_meta, tmp_path / "out")
        while process.poll() is None and not list(tmp_path.glob(".out.llamakit-*/out/*")):
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=180)
        if process.returncode:
            break
        shutil.rmtree(tmp_path / "out")

    assert process.returncode == 130
    assert "Traceback" not in told
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_leaves_nothing(big_meta, tmp_path, command):
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5 << 20, 5 << 20))

    process = start(command, big_meta, tmp_path / "out", preexec_fn=limit)
    _, told = process.communicate(timeout=180)

    assert process.returncode == 1
    assert "free some space" in told
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


@pytest.mark.parametrize("missing", ["all", "one"])
@pytest.mark.parametrize("command", COMMANDS | IMPORT)
def test_a_small_disk_without_room_for_files_is_left_as_it_was(
    reference_cases, small_disk, tmp_path, command, missing
):
    source = reference_cases / "gqa-mp1"
    if command == "import":
        assert finish("export", source, tmp_path / "hf")[0] == 0
        source = tmp_path / "hf"
    assert finish(command, source, tmp_path / "whole")[0] == 0
    nfiles = len(files(tmp_path / "whole"))
    disk = small_disk(100 << 20, nfiles=20)
    room = 2 + (nfiles - 1 if missing == "one" else 0)  # two are the folders that it makes
    others = [disk / f"other{number}" for number in range(20 - room)]
    for path in others:
        path.touch()

    status, told = finish(command, source, disk / "out")

    assert status == 1
    assert "No space left on device. What was written has been removed; free some space" in told
    assert "Traceback" not in told
    assert sorted(disk.iterdir()) == sorted(others)
    for path in others:
        path.unlink()
    assert finish(command, source, disk / "out")[0] == 0
    assert files(disk / "out") == files(tmp_path / "whole")


def test_a_small_disk_that_the_shards_fill_to_the_last_byte_is_left_as_it_was(
    run_llamakit, reference_cases, small_disk, tmp_path
):
    words = ("reshard", reference_cases / "gqa-mp1", "-n", "2")
    planned = json.loads(run_llamakit(*words, tmp_path / "out", "--plan", "--json").stdout)
    disk = small_disk(planned["nbytes"])  # no byte is left for params.json and checklist.chk

    done = run_llamakit(*words, disk / "out")

    assert done.returncode == 1
    assert "No space left on device. What was written has been removed" in done.stderr
    assert list(disk.iterdir()) == []


@pytest.mark.soak
@pytest.mark.parametrize("command", COMMANDS | COMPUTING)
def test_memory_does_not_grow_with_the_model(make_meta, tmp_path, command):
    params = {"dim": 1024, "n_layers": 14, "n_heads": 8, "vocab_size": 16000, "multiple_of": 256}
    source = make_meta(tmp_path / "source", params | {"norm_eps": 1e-5}, 8)
    assert sum(path.stat().st_size for path in source.iterdir()) > 400e6

    process = start(command, source, tmp_path / "out")
    peak = 0
    while process.poll() is None:
        peak = max(peak, rss_anon(process.pid))
        time.sleep(0.005)
    process.communicate()

    assert process.returncode == 0
    assert 20e6 < peak < 200e6


def rss_anon(pid):
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = [line for line in status.splitlines() if line.startswith("RssAnon:")]
    return int(lines[0].split()[1]) * 1024 if lines else 0
