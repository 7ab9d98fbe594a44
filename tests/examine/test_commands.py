"""The commands: what they print, their JSON and their exit status."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys

import pytest
from tools_kit import change_shard, copy_case, random_model, write_model


@pytest.fixture
def twins(tmp_path):
    """Two models that differ in one value."""
    weights = random_model()
    a = write_model(tmp_path / "a", weights)
    weights["output.weight"][3, 5] = 9
    return a, write_model(tmp_path / "b", weights, 2)


def test_verify_prints_a_table_and_both_sums(run_llamakit, tmp_path):
    folder = copy_case(tmp_path / "root")
    with (folder / "consolidated.03.pth").open("ab") as file:
        file.write(b"!")
    (folder / "consolidated.04.pth").unlink()

    done = run_llamakit("verify", tmp_path / "root")

    lines = {line.split()[0]: line for line in done.stdout.splitlines() if "consolidated" in line}
    assert done.returncode == 1
    assert "OK" in lines["consolidated.00.pth"]
    assert "73370d75634b6075fbb20d7c40859b1c, found" in lines["consolidated.03.pth"]
    assert "missing" in lines["consolidated.04.pth"]
    assert done.stderr == ""


def test_verify_deep_in_json(run_llamakit, tmp_path):
    folder = copy_case(tmp_path / "root")
    shutil.copy(folder.parent / "tokenizer.model", tmp_path)

    good = run_llamakit("verify", "--deep", "--json", folder)
    change_shard(folder / "consolidated.00.pth", lambda it: it["output.weight"].fill_(float("nan")))
    bad = run_llamakit("verify", "--deep", "--json", folder)

    assert (good.returncode, bad.returncode) == (0, 1)
    assert json.loads(good.stdout)["good"]
    (report,) = json.loads(bad.stdout)["folders"]
    assert report["files"][0]["status"] == "mismatch"
    assert report["non_finite"][0]["name"] == "output.weight"


def test_inspect_prints_what_there_is_to_know(run_llamakit, reference_cases):
    done = run_llamakit("inspect", reference_cases / "gqa-mp1", "--tensors")

    assert done.returncode == 0
    for words in ("215,488", "float16", "llama 1/2", "2 for keys and values", "1, 2, 4, 8"):
        assert words in done.stdout
    assert "layers.2.feed_forward.w3.weight" in done.stdout


def test_inspect_in_json(run_llamakit, reference_cases):
    case = reference_cases / "mha-mp8"
    done = run_llamakit("inspect", case, "--json", "--tensors", "--max-batch-size", "2")

    told = json.loads(done.stdout)
    assert told["shards"] == 8
    assert told["max_batch_size"] == 2
    assert told["tensors"][0]["name"] == "tok_embeddings.weight"


def test_inspect_without_a_path_shows_the_demo_model(run_llamakit):
    done = run_llamakit("inspect", "--json")

    assert done.returncode == 0
    assert json.loads(done.stdout)["shards"] == 8
    assert "bundled demo model" in done.stderr


def test_inspect_of_parts_that_do_not_fit(run_llamakit, tmp_path):
    folder = write_model(tmp_path / "model", random_model())
    params = json.loads((folder / "params.json").read_text())
    (folder / "params.json").write_text(json.dumps(params | {"n_layers": 3}))

    done = run_llamakit("inspect", folder)

    assert done.returncode == 1
    assert "wrong: " in done.stdout


def test_diff_says_where_and_how_far(run_llamakit, twins):
    done = run_llamakit("diff", *twins)

    assert done.returncode == 1
    assert "first at [3, 5]" in done.stdout
    assert "1 of 21 parameters differ: 20 parameters are equal" in done.stdout


def test_diff_in_json(run_llamakit, twins):
    a, b = twins
    same, other = run_llamakit("diff", a, a, "--json"), run_llamakit("diff", a, b, "--json")

    assert (same.returncode, other.returncode) == (0, 1)
    assert json.loads(same.stdout)["same"]
    assert json.loads(other.stdout)["differing"][0]["first"] == [3, 5]


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["verify"], 2),
        (["verify", "--depp", "."], 2),
        (["verify", "nowhere"], 1),
        (["inspect", "nowhere"], 1),
        (["inspect", ".", "--max-seq-len", "0"], 2),
        (["diff", "."], 2),
        (["diff", "nowhere", "nowhere"], 1),
    ],
)
def test_wrong_words_and_wrong_data_have_their_statuses(run_llamakit, words, status):
    done = run_llamakit(*words)

    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_bar_is_shown_on_a_terminal_only(isolated, tmp_path):
    folder = copy_case(tmp_path / "root")
    ours, theirs = pty.openpty()

    done = subprocess.run(
        [sys.executable, "-m", "llamakit", "verify", folder, "--json"],
        env=isolated | {"TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=theirs,
        check=False,
    )

    assert json.loads(done.stdout)["good"]
    assert b"verifying" in os.read(ours, 100_000)


@pytest.mark.parametrize("command", ["verify", "inspect", "diff"])
def test_torch_is_not_imported(isolated, reference_cases, command):
    case = str(reference_cases / "mha-mp8")
    words = {"verify": ["--deep", case], "inspect": [case], "diff": [case, case]}[command]
    program = (
        f"import sys; from llamakit.cli.main import main; status = main({[command, *words]});"
        "assert not status; assert 'torch' not in sys.modules"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], env=isolated, capture_output=True, check=False
    )

    assert done.returncode == 0, done.stderr.decode()


def test_checksums_need_no_numpy(isolated, tmp_path):
    """Importing it took as long as hashing 200 MB does."""
    (tmp_path / "params.json").write_bytes(b"{}")
    (tmp_path / "checklist.chk").write_text("99914b932bd37a50b983c5e7c90ae93b  params.json\n")
    program = (
        "import sys; from llamakit.cli.main import main; "
        f"assert not main(['verify', {str(tmp_path)!r}]); assert 'numpy' not in sys.modules"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], env=isolated, capture_output=True, check=False
    )

    assert done.returncode == 0, done.stderr.decode()
