"""A server in a process of its own, and a model for servers in threads."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from server_kit import HTTP, Running, demo_folder, process

from llamakit.api import Llama


@pytest.fixture(scope="session")
def server() -> Iterator[Running]:
    """``llamakit serve`` as typed, with the bundled demo model."""
    words = ("--max-seq-len", "256", "--slots", "4", "--dtype", "float32", "--queue", "300")
    env = {name: value for name, value in os.environ.items() if not name.startswith("LLAMAKIT_")}
    with process(env, *words) as running:
        yield running


@pytest.fixture(scope="session", autouse=True)
def connections() -> Iterator[None]:
    """Close the connections that tests have opened."""
    yield
    HTTP.close()


@pytest.fixture(scope="session")
def llama() -> Iterator[Llama]:
    """The bundled demo model, for servers in threads."""
    with Llama.open(demo_folder(), max_seq_len=256, max_batch_size=4, dtype="float32") as llama:
        yield llama
