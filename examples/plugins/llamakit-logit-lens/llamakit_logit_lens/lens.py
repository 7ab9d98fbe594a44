"""The observer: the likeliest next tokens after each layer, for each position.

Shapes: T new positions, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from llamakit.protocols import HiddenStates, Row, Tokenizer
from llamakit_logit_lens.picture import draw


class LogitLens:
    """Keeps the likeliest tokens of the newest positions of a row.

    Args:
        top: how many tokens of each position and layer.
        every: it reads every so many layers.
        last: how many positions are kept.
    """

    def __init__(self, tokenizer: Tokenizer, top: int, every: int, last: int) -> None:
        self._tokenizer = tokenizer
        self._top, self._every, self._last = top, every, last
        self._layers: Sequence[int] = ()

    def layers(self, count: int) -> Sequence[int]:
        """Return every so many layers, and the last one."""
        self._layers = sorted({*range(0, count, self._every), count})
        return self._layers

    def __call__(self, row: Row, states: HiddenStates, /) -> None:
        """Add the new positions, each with a list of ``(token, probability)`` for each layer."""
        kept = row.state.setdefault(self, deque(maxlen=self._last))
        wanted = min(len(states.tokens), self._last)
        by_layer = [self._likeliest(states, layer, wanted) for layer in self._layers]
        start = states.start + len(states.tokens) - wanted
        for place, cells in enumerate(zip(*by_layer, strict=True)):
            kept.append((start + place, cells))

    def _likeliest(
        self, states: HiddenStates, layer: int, wanted: int
    ) -> list[list[tuple[int, float]]]:
        """Return the likeliest tokens after a layer at the last positions of a pass."""
        logits = states.logits(layer)[-wanted:]  # (T, V)
        scores, tokens = logits.softmax(-1).topk(min(self._top, logits.shape[-1]))  # (T, top)
        return [
            list(zip(*pair, strict=True))
            for pair in zip(tokens.tolist(), scores.tolist(), strict=True)
        ]

    def result(self, row: Row, /) -> dict[str, Any]:
        """Return the layers, and for each position its token, the next one and the cells."""
        texts = _Texts(self._tokenizer)
        following = dict(enumerate(row.tokens[1:]))
        return {
            "layers": list(self._layers),
            "positions": [
                {
                    "position": position,
                    "token": row.tokens[position],
                    "text": texts[row.tokens[position]],
                    "next": following.get(position),
                    "cells": [[_entry(texts, *it) for it in cell] for cell in cells],
                }
                for position, cells in row.state[self]
            ],
        }

    def files(self, result: Any, /) -> Mapping[str, str]:
        """Draw the result."""
        return {"svg": draw(result)}


def _entry(texts: Mapping[int, str], token: int, probability: float) -> dict[str, Any]:
    return {"token": token, "text": texts[token], "probability": round(probability, 6)}


class _Texts(dict[int, str]):
    """The text of each token, with the space that it begins with; made when it is asked for."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._decode = tokenizer.decode
        self._bytes: Sequence[bytes] = getattr(tokenizer, "token_bytes", tuple)()
        special: Mapping[str, int] = getattr(tokenizer, "special_ids", dict)()
        self._names = {token: name for name, token in special.items()}

    def __missing__(self, token: int) -> str:
        known = self._bytes[token] if token < len(self._bytes) else b""
        text = known.decode("utf-8", "replace") if known else self._decode([token])
        self[token] = text or self._names.get(token) or f"<{token}>"
        return self[token]
