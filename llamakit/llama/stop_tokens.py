"""The tokens that end an answer: the tokenizer's, and those that the model's folder lists."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llamakit.checkpoint.json_fields import read_json
from llamakit.errors import ParamsError
from llamakit.protocols import Checkpoint, Tokenizer

CONFIGS = ("generation_config.json", "config.json")
"""Where Hugging Face's folders list stop tokens; the first that lists any counts."""


def stop_tokens(tokenizer: Tokenizer, checkpoint: Checkpoint) -> frozenset[int]:
    """Return the tokens that end an answer.

    They are the tokenizer's ``stop_ids``, or its ``eos_id`` where it has none, and the
    ``eos_token_id`` of the folder's configuration, which fine-tunes extend.

    Raises:
        ParamsError: the configuration is not JSON, or its ``eos_token_id`` are not token IDs.
    """
    own: Iterable[int] = getattr(tokenizer, "stop_ids", (tokenizer.eos_id,))
    for name in CONFIGS:
        path = checkpoint.path / name
        if path.exists() and (listed := _eos_token_ids(path, checkpoint.params.vocab_size)):
            return frozenset([*own, *listed])
    return frozenset(own)


def _eos_token_ids(path: Path, vocab_size: int) -> list[int]:
    """Read the ``eos_token_id`` of a configuration: one, a list or none."""
    value = read_json(path).get("eos_token_id")
    listed: list[Any] = value if isinstance(value, list) else [] if value is None else [value]
    wrong = [it for it in listed if type(it) is not int or not 0 <= it < vocab_size]
    if wrong:
        raise ParamsError(
            f"{path}: its eos_token_id has {wrong[0]!r:.40}; expected token IDs from 0 to "
            f"{vocab_size - 1}: correct it, or copy the file again from where the weights are"
        )
    return listed
