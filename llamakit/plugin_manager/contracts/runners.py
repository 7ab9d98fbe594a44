"""The contract of runners."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from llamakit.protocols import AnswerPiece

_COUNTS = ("prompt_tokens", "seed", "accepted")
_LISTS: Mapping[str, tuple[type, ...]] = {
    "tokens": (int,),
    "logprobs": (int, float),
    "prompt_logprobs": (int, float),
    "tool_calls": (Mapping,),
}
"""What the items of an answer's lists are."""
_ANSWER = {*_COUNTS, *_LISTS, "text", "content", "finish", "drafted", "observed"}
"""What a whole answer has, no more and no less."""


def piece_fault(piece: Any, open_requests: Iterable[int]) -> str:
    """Say what is wrong with what a runner yields, or nothing.

    Args:
        open_requests: the indexes of the requests that have no answer yet.
    """
    if not isinstance(piece, AnswerPiece):
        return f"yielded {piece!r:.60}; expected the AnswerPieces of its replicas"
    if type(piece.index) is not int or piece.index not in open_requests:
        return f"yielded a piece of the request {piece.index!r:.20}, which is answered or unknown"
    if type(piece.tokens) is not int or piece.tokens < 0 or not isinstance(piece.text, str):
        return (
            f"yielded {piece.tokens!r:.20} new tokens, {piece.text!r:.20}; expected a number, text"
        )
    if piece.answer is not None and not _is_answer(piece.answer):
        return f"yielded {piece.answer!r:.60} as an answer; expected what its replica has made"
    return ""


def _is_answer(answer: Any) -> bool:
    """Tell whether something is what ``Answer.as_json`` returns."""
    if not isinstance(answer, Mapping) or set(answer) != _ANSWER:
        return False
    return (
        all(type(answer[name]) is int for name in _COUNTS)
        and isinstance(answer["text"], str)
        and all(isinstance(answer[name], str | None) for name in ("content", "finish"))
        and isinstance(answer["drafted"], int | None)
        and isinstance(answer["observed"], Mapping)
        and all(_are(answer[name], kinds) for name, kinds in _LISTS.items())
    )


def _are(items: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(items, list | tuple) and all(isinstance(it, kinds) for it in items)


def checked_pieces(
    pieces: Iterable[AnswerPiece], indexes: Iterable[int], breach: Callable[[str], Exception]
) -> Iterator[AnswerPiece]:
    """Yield what a runner yields, and hold it to its contract.

    Args:
        indexes: of the requests that it was called with.
        breach: the error for what is wrong, such as ``Entry.breach``.
    Raises:
        Exception: that of ``breach``: it breaks the contract, or has left a request out.
    """
    missing = set(indexes)
    if not isinstance(pieces, Iterator):
        raise breach(f"returned {pieces!r:.60}; expected an iterator of AnswerPieces")
    for piece in pieces:
        if fault := piece_fault(piece, missing):
            raise breach(fault)
        if piece.answer is not None:
            missing.remove(piece.index)
        yield piece
    if missing:
        raise breach(
            f"ended without the answers to {len(missing)} requests, the first of them "
            f"{min(missing)}; the same command answers those that are missing"
        )
