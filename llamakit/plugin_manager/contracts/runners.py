"""The contract of runners."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llamakit.plugin_manager.registry import Entry
from llamakit.protocols import AnswerPiece

_ANSWER = {
    *("prompt_tokens", "seed", "text", "tokens", "logprobs", "prompt_logprobs", "finish"),
    *("drafted", "accepted", "content", "tool_calls", "observed"),
}
"""What a whole answer has, no more and no less."""


def piece_fault(piece: Any, open_requests: Iterable[int]) -> str:
    """Say what is wrong with what a runner yields, or nothing.

    Args:
        open_requests: the indexes of the requests that have no answer yet.
    """
    if not isinstance(piece, AnswerPiece):
        return f"yielded {piece!r:.60}; expected the AnswerPieces of its replicas"
    if piece.index not in open_requests:
        return f"yielded a piece of the request {piece.index!r:.20}, which is answered or unknown"
    if piece.answer is None:
        return ""
    if not isinstance(piece.answer, Mapping) or set(piece.answer) != _ANSWER:
        return f"yielded {piece.answer!r:.60} as an answer; expected what its replica has made"
    return ""


def checked_pieces(
    entry: Entry, pieces: Iterable[AnswerPiece], indexes: Iterable[int]
) -> Iterator[AnswerPiece]:
    """Yield what a runner yields, and hold it to its contract.

    Args:
        indexes: of the requests that it was called with.
    Raises:
        PluginError: it breaks the contract, or has left a request out.
    """
    missing = set(indexes)
    for piece in pieces:
        if fault := piece_fault(piece, missing):
            raise entry.breach(fault)
        if piece.answer is not None:
            missing.remove(piece.index)
        yield piece
    if missing:
        raise entry.breach(
            f"ended without the answers to {len(missing)} requests, the first of them "
            f"{min(missing)}; the same command answers those that are missing"
        )
