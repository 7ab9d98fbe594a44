"""The fixtures that pytest offers wherever llamakit is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from llamakit.llama.llama import Llama
    from llamakit.protocols import Checkpoint, Tokenizer
    from llamakit.testing.rows import KitRow


@pytest.fixture(scope="session")
def llamakit_checkpoint() -> Checkpoint:
    """The bundled demo model, opened: Meta's format, 8 shards. Its folder is ``.path``."""
    from llamakit import demo, open_checkpoint

    return open_checkpoint(demo.path())


@pytest.fixture(scope="session")
def llamakit_tokenizer() -> Tokenizer:
    """The tokenizer of the bundled demo model: SentencePiece."""
    from llamakit.testing.small_checkpoints import embedded_tokenizer

    return embedded_tokenizer()


@pytest.fixture(scope="session")
def llamakit_model() -> Iterator[Llama]:
    """The bundled demo model, loaded once a session, in float32 on the CPU."""
    from llamakit import Llama, demo

    model = Llama.open(demo.path(), dtype="float32", device="cpu")
    yield model
    model.close()


@pytest.fixture
def llamakit_tiny(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a random checkpoint: ``llamakit_tiny(shards=2)`` is its folder."""

    def write(shards: int = 1, *, seed: int = 0) -> Path:
        from llamakit.testing.small_checkpoints import write_checkpoint

        folder = tmp_path / f"tiny-{shards}-{seed}"
        return folder if folder.exists() else write_checkpoint(folder, shards, seed=seed)

    return write


@pytest.fixture
def llamakit_rows() -> list[KitRow]:
    """Four rows with tokens and generators of their own, as ``make_rows()`` gives them."""
    from llamakit.testing.rows import make_rows

    return make_rows()
