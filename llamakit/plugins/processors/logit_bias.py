"""Logit bias: make some tokens likelier, less likely, or impossible."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from llamakit.hookspecs import Registrar
    from llamakit.protocols import LogitsProcessor, LogitsProcessorFactory, Row, Tokenizer


LARGEST = 10000.0


def logit_bias(tokenizer: Tokenizer, bias: str = "") -> LogitsProcessor:
    """Add to the logits of tokens that are named, at every step.

    Where that forbids all tokens that are left, the row stays as it is.

    Args:
        bias: ``ID:VALUE,ID:VALUE``. An ID is a number, or a string that is a single token. A
            VALUE is a number between -10000 and 10000, or ``-inf``, which forbids the token.
    Source: OpenAI, https://platform.openai.com/docs/api-reference/completions/create;
        ``SequenceBiasLogitsProcessor`` of transformers.
    """
    values = read_biases(bias, tokenizer)
    from llamakit.sampling import keep_some

    changes: dict[tuple[torch.device, int], torch.Tensor] = {}  # (V,); the logits show the V

    def process(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:  # (B, V) -> (B, V)
        place = (logits.device, logits.shape[-1])
        if place not in changes:
            changes[place] = logits.new_zeros(logits.shape[-1])
            for token, value in values.items():
                changes[place][token].fill_(value)
        return keep_some(logits + changes[place], logits)

    return process


def read_biases(text: str, tokenizer: Tokenizer) -> dict[int, float]:
    """Read ``ID:VALUE,ID:VALUE``.

    Raises:
        ValueError: there is something else, or a token that the tokenizer does not have.
    """
    values: dict[int, float] = {}
    for pair in text.split(",") if text else ():
        name, colon, value = pair.rpartition(":")
        if not colon or not name:
            raise ValueError(f"bias is written ID:VALUE,ID:VALUE, such as 13:-inf, not {pair!r}")
        token = _read_id(name.strip(), tokenizer)
        if token in values:
            raise ValueError(f"bias names the token {token} twice, the second time in {pair!r}")
        values[token] = _read_value(value, pair)
    return values


def _read_id(name: str, tokenizer: Tokenizer) -> int:
    if not (name.isascii() and name.isdecimal()):
        tokens = tokenizer.encode(name)
        if len(tokens) != 1:
            raise ValueError(
                f"{name!r} is not one token but {len(tokens)}: {', '.join(map(str, tokens))}; "
                "bias is for single tokens"
            )
        return tokens[0]
    if int(name) >= tokenizer.vocab_size:
        raise ValueError(f"there is no token {name}: the last is {tokenizer.vocab_size - 1}")
    return int(name)


def _read_value(text: str, pair: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text!r} in {pair!r} is not a number, nor -inf") from None
    if not (value == -math.inf or abs(value) <= LARGEST):
        raise ValueError(
            f"{text!r} in {pair!r} has to be between -10000 and 10000, or -inf, which forbids "
            "the id"
        )
    return value


@hookimpl
def register_logits_processors(processors: Registrar[LogitsProcessorFactory]) -> None:
    """Offer ``logit-bias``."""
    processors.register("logit-bias", logit_bias, help="add to the logits of some tokens")
