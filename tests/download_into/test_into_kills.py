"""After SIGKILL at any moment the same command resumes, and the bytes are right."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from fetching import FAST, MB
from into_kit import DATA, content, fetch, hidden, two_steps
from into_kit import serve as serve_folder
from pth_files import save_pth
from server import Server

BUFFERS = 1 * MB
"""What a kill may cost a connection, in bytes."""


def command(out, *more):
    words = ["download", "70B", "--into", "reshard:2", "--output-dir", str(out), *FAST, *more]
    return [sys.executable, "-m", "llamakit", *words]


@pytest.fixture
def environment(isolated):
    return lambda server: {**isolated, "LLAMAKIT_URL": server.link, "NO_PROXY": "127.0.0.1"}


def test_a_kill_midway_costs_little_and_no_byte_is_wrong(folder, out, expected, environment):
    with Server(folder, rate=1 * MB) as server:
        server.hold(4 * MB + 200_000)  # of 4 MB of shards, and their indexes of 2 MB
        child = subprocess.Popen(command(out), env=environment(server), stderr=subprocess.DEVNULL)
        server.wait_for(4 * MB, 180)
        assert child.poll() is None
        child.kill()
        child.wait()
        server.release()
        fetch(server, out)

        assert server.nbytes < 6.2 * MB + 4 * BUFFERS
    assert content(out / "llama-2-70b-mp2") == expected
    assert list(out.iterdir()) == [out / "llama-2-70b-mp2"]


@pytest.fixture(scope="session")
def large(tmp_path_factory):
    """Eight shards, 230 MB together."""
    import json

    import numpy as np

    from llamakit import api

    root = tmp_path_factory.mktemp("large")
    whole = root / "llama-2-70b"
    whole.mkdir()
    params = {"dim": 1024, "n_layers": 6, "n_heads": 8, "multiple_of": 256, "norm_eps": 1e-5}
    (whole / "params.json").write_text(json.dumps(params))
    generator = np.random.default_rng(0)
    layer = {f"attention.{name}": (1024, 1024) for name in ("wq", "wk", "wv", "wo")}
    layer |= {"feed_forward.w1": (2816, 1024), "feed_forward.w3": (2816, 1024)}
    layer |= {"feed_forward.w2": (1024, 2816), "attention_norm": (1024,), "ffn_norm": (1024,)}
    shapes = {"tok_embeddings": (16_000, 1024), "norm": (1024,), "output": (16_000, 1024)}
    for index in range(6):
        shapes |= {f"layers.{index}.{name}": shape for name, shape in layer.items()}
    weights = {
        f"{name}.weight": generator.standard_normal(shape, dtype="float32").astype("float16")
        for name, shape in shapes.items()
    }
    save_pth(weights, whole / "consolidated.00.pth")
    (root / "sharded").mkdir()
    api.reshard(whole, root / "sharded" / whole.name, 8)
    tokenizer = DATA / "reference-cases" / "tokenizer.model"
    return serve_folder(root / "served", root / "sharded" / whole.name, tokenizer)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
def test_twenty_kills_at_any_moment(large, tmp_path, out, environment, seed):
    chance = random.Random(seed)
    expected = two_steps(large, "llama-2-70b", "reshard:2", tmp_path / "two")
    with Server(large, rate=8 * MB) as server:
        for _ in range(20):
            child = subprocess.Popen(
                command(out), env=environment(server), stderr=subprocess.DEVNULL
            )
            try:  # also while the result is completed
                status = child.wait(timeout=chance.uniform(0.5, 6))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            else:
                assert status == 0
                break
        else:
            subprocess.run(command(out), env=environment(server), capture_output=True, check=True)

    assert content(out / "llama-2-70b-mp2") == expected
    assert not hidden(out).exists()
