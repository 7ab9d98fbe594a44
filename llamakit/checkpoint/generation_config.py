"""The tokens that begin a string and end an answer, as a folder lists them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llamakit.checkpoint.json_fields import read_json
from llamakit.errors import ParamsError
from llamakit.protocols import Checkpoint, Tokenizer

CONFIGS = ("generation_config.json", "config.json")
"""Where folders list them; the first that lists any counts."""


def stop_tokens(tokenizer: Tokenizer, checkpoint: Checkpoint) -> frozenset[int]:
    """Return the tokens that end an answer.

    They are the tokenizer's ``stop_ids``, or its ``eos_id`` where it has none, and the
    ``eos_token_id`` of the folder's configuration, which fine-tunes extend.

    Raises:
        ParamsError: the configuration is not JSON, or its ``eos_token_id`` are not token IDs.
    """
    own: Iterable[int] = getattr(tokenizer, "stop_ids", (tokenizer.eos_id,))
    listed = listed_tokens(checkpoint.path, "eos_token_id", checkpoint.params.vocab_size)
    return frozenset([*own, *listed])


def listed_tokens(folder: Path, key: str, vocab_size: int) -> list[int]:
    """Read the ``eos_token_id``, or the like, of a folder: one, a list or none.

    Raises:
        ParamsError: the configuration is not JSON, or what it lists are not token IDs.
    """
    for name in CONFIGS:
        path = folder / name
        if path.exists() and (listed := _token_ids(path, key, vocab_size)):
            return listed
    return []


def _token_ids(path: Path, key: str, vocab_size: int) -> list[int]:
    value = read_json(path).get(key)
    listed: list[Any] = value if isinstance(value, list) else [] if value is None else [value]
    wrong = [token for token in listed if type(token) is not int or not 0 <= token < vocab_size]
    if wrong:
        raise ParamsError(
            f"{path}: its {key} has {wrong[0]!r:.40}; expected token IDs from 0 to "
            f"{vocab_size - 1}: correct it, or copy the file again from where the weights are"
        )
    return listed
