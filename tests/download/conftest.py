"""A small model on a server."""

from __future__ import annotations

import pytest
from asking import NBYTES, SHARD
from download_kit import make_model
from server import Server


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
