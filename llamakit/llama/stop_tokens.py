"""The tokens that end an answer: the tokenizer's, and those that the model's folder lists."""

from __future__ import annotations

from collections.abc import Iterable

from llamakit.checkpoint.generation_config import listed_tokens
from llamakit.protocols import Checkpoint, Tokenizer


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
