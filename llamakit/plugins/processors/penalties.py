"""Penalties: what was there before becomes less likely, once or each time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from llamakit.hookspecs import Registrar
    from llamakit.protocols import LogitsProcessor, LogitsProcessorFactory, Row


def repetition_penalty(penalty: float = 1.1, prompt: bool = True, last: int = 0) -> LogitsProcessor:
    """Divide positive logits of tokens that were there before, and multiply negative ones.

    Args:
        penalty: 1 changes nothing, more makes repeating less likely; 0.01 to 100.
        prompt: whether the prompt's tokens count, as in transformers, or the answer's alone.
        last: how many of the latest tokens count; 0 is all.
    Source: Keskar and others 2019, https://arxiv.org/abs/1909.05858;
        ``RepetitionPenaltyLogitsProcessor`` of transformers.
    """
    _check(penalty, 0.01, 100, last)
    from llamakit.sampling import count_ids

    def process(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:  # (B, V) -> (B, V)
        seen = count_ids(logits, rows, prompt=prompt, last=last) > 0
        less = (logits * penalty).where(logits < 0, logits / penalty)
        return less.where(seen, logits)

    return process


def frequency_penalty(penalty: float = 0.5, prompt: bool = False, last: int = 0) -> LogitsProcessor:
    """Subtract ``penalty`` from a logit for each time that the token was there.

    Args:
        penalty: -2 to 2; below 0 makes repeating likelier.
        prompt: whether the prompt's tokens count too; with OpenAI only the answer's do.
        last: how many of the latest tokens count; 0 is all.
    Source: OpenAI, https://platform.openai.com/docs/api-reference/completions/create
    """
    return _subtraction(penalty, prompt, last, once=False)


def presence_penalty(penalty: float = 0.5, prompt: bool = False, last: int = 0) -> LogitsProcessor:
    """Subtract ``penalty`` from the logits of tokens that were there, however often.

    Args:
        penalty: -2 to 2; below 0 makes repeating likelier.
        prompt: whether the prompt's tokens count too; with OpenAI only the answer's do.
        last: how many of the latest tokens count; 0 is all.
    Source: OpenAI, https://platform.openai.com/docs/api-reference/completions/create
    """
    return _subtraction(penalty, prompt, last, once=True)


def _subtraction(penalty: float, prompt: bool, last: int, *, once: bool) -> LogitsProcessor:
    _check(penalty, -2, 2, last)
    from llamakit.sampling import count_ids

    def process(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:  # (B, V) -> (B, V)
        counts = count_ids(logits, rows, prompt=prompt, last=last)
        return logits - penalty * ((counts > 0) if once else counts)

    return process


def _check(penalty: float, least: float, most: float, last: int) -> None:
    """Refuse options out of range. Raises ValueError."""
    if not least <= penalty <= most:
        raise ValueError(f"penalty is {penalty}; it has to be between {least:g} and {most:g}")
    if last < 0:
        raise ValueError(f"last is {last}; it has to be 0 (all tokens) or more")


@hookimpl
def register_logits_processors(processors: Registrar[LogitsProcessorFactory]) -> None:
    """Offer the three penalties."""
    processors.register(
        "repetition-penalty",
        repetition_penalty,
        help="make tokens that were there before less likely",
    )
    processors.register(
        "frequency-penalty",
        frequency_penalty,
        help="subtract a penalty for each time that a token was there",
    )
    processors.register(
        "presence-penalty", presence_penalty, help="subtract a penalty from tokens that were there"
    )
