"""Windows over a sequence that is longer than the context: each token is scored once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """A part of a sequence whose last tokens are scored.

    Args:
        tokens: at most one more than the context holds: nothing follows the last one.
        first_scored: the first scored one of ``tokens``, 1 or more.
    """

    tokens: Sequence[int]
    first_scored: int


def windows(tokens: Sequence[int], first: int, context: int, stride: int) -> Iterator[Window]:
    """Split a sequence so that each token from ``first`` on is scored once.

    The first window scores as many tokens as fit; each later one ``stride``, after as many tokens
    as the context holds besides.

    Args:
        first: the first scored token, 1 or more.
        context: how many tokens the model looks at.
        stride: at most ``context``; equal to it, the windows are those of lm-evaluation-harness.
    Source: https://huggingface.co/docs/transformers/perplexity
    """
    done = first
    end = max(context + 1, first + stride)
    while done < len(tokens):
        end = min(end, len(tokens))
        start = max(0, end - 1 - context)
        yield Window(tokens[start:end], done - start)
        done, end = end, end + stride
