"""Prompt lookup: what followed the last few tokens where they stood before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llamakit.hookspecs import Registrar
    from llamakit.protocols import Drafter, DrafterFactory


def prompt_lookup(ngram: int = 3, least: int = 2, max: int = 10) -> Drafter:  # noqa: A002
    """Propose what followed the last tokens where they stood before, in the prompt or the answer.

    It costs no model. It pays where answers repeat what was said: summaries, code being edited,
    questions about a string.

    Args:
        ngram: how many of the last tokens are looked for at most; the longest match counts, and of
            equals the latest.
        least: how many have to match.
        max: how many tokens are proposed.
    Source: https://github.com/apoorvumang/prompt-lookup-decoding
    """
    if not 1 <= least <= ngram:
        raise ValueError(f"least is {least}; it has to be from 1 to ngram, {ngram}")
    if max < 1:
        raise ValueError(f"max is {max}; it has to be 1 or more")

    def draft(tokens: Sequence[int]) -> Sequence[int]:
        best, behind = least - 1, 0
        for end in _ends(tokens):
            length = _matching(tokens, end, ngram)
            if length >= best and length >= least:
                best, behind = length, end
        return tokens[behind : behind + max] if behind else ()

    return draft


def _ends(tokens: Sequence[int]) -> list[int]:
    """Return the positions behind earlier places of the last token, first to last."""
    ends: list[int] = []
    start, last = 0, len(tokens) - 1
    while True:
        try:
            start = tokens.index(tokens[-1], start, last) + 1
        except ValueError:
            return ends
        ends.append(start)


def _matching(tokens: Sequence[int], end: int, most: int) -> int:
    """How many tokens before ``end`` are the last tokens of all."""
    length = 1
    while length < most and length < end and tokens[end - 1 - length] == tokens[-1 - length]:
        length += 1
    return length


@hookimpl
def register_drafters(drafters: Registrar[DrafterFactory]) -> None:
    """Offer ``prompt-lookup``."""
    drafters.register("prompt-lookup", prompt_lookup, help="what followed the last tokens before")
