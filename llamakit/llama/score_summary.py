"""What the scores of many items say together."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from llamakit.llama.scoring import ItemScore, Score, perplexity


def as_dict(scored: ItemScore) -> dict[str, Any]:
    """Return the scores of one item as ``llamakit score --json`` prints them."""
    item = scored.item
    result: dict[str, Any] = {} if item.id is None else {"id": item.id}
    result["kind"] = item.kind
    if item.kind != "choices":
        (score,) = scored.scores
        result |= _score(score)
        if item.kind == "text":
            (string,) = item.continuations
            result |= {"words": len(re.split(r"\s+", string)), "nbytes": len(string.encode())}
        return result
    result |= {
        "choices": [_score(score) for score in scored.scores],
        "best": scored.best,
        "best_per_character": scored.best_per_character,
    }
    if item.answer is not None:
        result |= {
            "answer": item.answer,
            "correct": scored.best == item.answer,
            "correct_per_character": scored.best_per_character == item.answer,
        }
    return result


def _score(score: Score) -> dict[str, Any]:
    return {
        "logprob": score.logprob,
        "tokens": score.tokens,
        "greedy": score.greedy,
        "perplexity": _finite(score.perplexity),
    }


def summary(lines: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Sum up dicts as of ``as_dict``, by kind.

    Returns:
        For ``text`` the perplexity by token, word and byte, of all texts together; for
        ``continuation`` that by token, and how many are what greedy decoding writes; for
        ``choices`` the accuracy of those whose answer is known.
    """
    kinds: dict[str, list[Mapping[str, Any]]] = {"text": [], "continuation": [], "choices": []}
    for line in lines:
        kinds[line["kind"]].append(line)
    summaries = {"text": _texts, "continuation": _continuations, "choices": _choices}
    return {kind: summaries[kind](found) for kind, found in kinds.items() if found}


def _texts(lines: list[Mapping[str, Any]]) -> dict[str, Any]:
    logprob = math.fsum(line["logprob"] for line in lines)
    counts = {name: sum(line[name] for line in lines) for name in ("tokens", "words", "nbytes")}
    return {
        "items": len(lines),
        "logprob": logprob,
        **counts,
        "perplexity": _finite(perplexity(logprob, counts["tokens"])),
        "word_perplexity": _finite(perplexity(logprob, counts["words"])),
        "byte_perplexity": _finite(perplexity(logprob, counts["nbytes"])),
        "bits_per_byte": -logprob / counts["nbytes"] / math.log(2),
    }


def _continuations(lines: list[Mapping[str, Any]]) -> dict[str, Any]:
    logprob, tokens = (
        math.fsum(line["logprob"] for line in lines),
        sum(it["tokens"] for it in lines),
    )
    return {
        "items": len(lines),
        "logprob": logprob,
        "tokens": tokens,
        "perplexity": _finite(perplexity(logprob, tokens)),
        "greedy": sum(line["greedy"] for line in lines) / len(lines),
    }


def _choices(lines: list[Mapping[str, Any]]) -> dict[str, Any]:
    known = [line for line in lines if "answer" in line]
    result: dict[str, Any] = {"items": len(lines), "with_answer": len(known)}
    for name, key in (("accuracy", "correct"), ("accuracy_per_character", "correct_per_character")):
        if known:
            share = sum(line[key] for line in known) / len(known)
            result[name] = share
            result[f"{name}_stderr"] = _stderr(share, len(known))
    return result


def _stderr(share: float, count: int) -> float | None:
    """Return the standard error of a share; None for a single item."""
    return math.sqrt(share * (1 - share) / (count - 1)) if count > 1 else None


def _finite(number: float) -> float | None:
    """Return a number, or None where JSON has none: no probability is left."""
    return number if math.isfinite(number) else None
