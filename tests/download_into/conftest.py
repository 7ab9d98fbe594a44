"""Meta's files of a small model on a server: as one shard, and as four."""

from __future__ import annotations

import pytest
from into_kit import DATA, PARAMS, list_files, random_weights, serve, two_steps
from pth_files import save_pth
from server import Server

from llamakit import api

TOKENIZER = DATA / "reference-cases" / "tokenizer.model"


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A model of one shard of 4 MB, of which more is fetched than its index."""
    model = tmp_path_factory.mktemp("whole") / "llama-2-7b"
    model.mkdir()
    (model / "params.json").write_text(PARAMS)
    save_pth(random_weights(6400), model / "consolidated.00.pth")
    list_files(model, "checklist.chk", sorted(model.iterdir()))
    return model


@pytest.fixture(scope="session")
def folder(whole, tmp_path_factory):
    """What is served: four shards of 1 MB."""
    root = tmp_path_factory.mktemp("sharded")
    model = root / "llama-2-70b"
    api.reshard(whole, model, 4)
    (model / "llamakit.json").unlink()
    shards = [path for path in sorted(model.iterdir()) if path.suffix in (".pth", ".json")]
    list_files(model, "checklist.chk", shards)
    return serve(root / "served", model, TOKENIZER)


@pytest.fixture(scope="session")
def expected(folder, tmp_path_factory):
    """What a download of the four shards and ``reshard -n 2`` make."""
    return two_steps(folder, "llama-2-70b", "reshard:2", tmp_path_factory.mktemp("two") / "out")


@pytest.fixture
def server(folder):
    with Server(folder) as server:
        yield server


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"
