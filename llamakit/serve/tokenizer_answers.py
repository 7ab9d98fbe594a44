"""The answers of ``/tokenize``, as vLLM and llama.cpp write them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import StreamingResponse

from llamakit.serve.memory_return import MemoryReturn
from llamakit.serve.special_text import SpecialText
from llamakit.serve.token_texts import TokenTexts
from llamakit.serve.turns import Turns

TOKENS_A_TURN = 2048
"""Tokens of an answer that are written at once."""


@dataclass(frozen=True)
class Tokenized:
    """The tokens that a request asks for.

    Args:
        pieces: llamakit's own list of their texts is asked for.
        strings: vLLM's list of their texts is asked for.
        objects: llama.cpp's tokens with their pieces are asked for.
    """

    tokens: Sequence[int]
    pieces: bool = False
    strings: bool = False
    objects: bool = False


class TokenAnswers:
    """Answers ``/tokenize``, a piece at a time: neither all at once in memory, nor in one turn.

    Args:
        context: tokens of a sequence.
    """

    def __init__(
        self,
        texts: TokenTexts,
        special: SpecialText,
        turns: Turns,
        memory: MemoryReturn,
        context: int,
    ) -> None:
        self._texts, self._special, self._context = texts, special, context
        self._turns, self._memory = turns, memory

    def response(self, asked: Tokenized, client: Hashable) -> StreamingResponse:
        """Return the response to a client."""
        parts = self._parts(asked, client)
        if len(asked.tokens) > TOKENS_A_TURN:
            parts = self._returning(parts)
        return StreamingResponse(parts, media_type="application/json")

    async def _returning(self, parts: AsyncIterator[str]) -> AsyncIterator[str]:
        """Yield parts; then have memory returned: the tokens were there after the body had gone."""
        try:
            async for part in parts:
                yield part
        finally:
            self._memory.later()

    async def _parts(self, asked: Tokenized, client: Hashable) -> AsyncIterator[str]:
        lists: dict[str, Callable[[int], Any]] = {"tokens": self._object if asked.objects else int}
        lists |= {"pieces": self._texts.text} if asked.pieces else {}
        lists |= {"token_strs": self._text} if asked.strings else {}
        yield f'{{"count":{len(asked.tokens)},"max_model_len":{self._context}'
        for name, value in lists.items():
            yield f',"{name}":['
            for start in range(0, len(asked.tokens), TOKENS_A_TURN):
                await self._turns.wait(client)
                values = [value(token) for token in asked.tokens[start : start + TOKENS_A_TURN]]
                written = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
                yield ("," if start else "") + written[1:-1]
            yield "]"
        yield "}"

    def _text(self, token: int) -> str:
        return self._special.names.get(token) or self._texts.text(token)

    def _object(self, token: int) -> dict[str, Any]:
        """Return a token as llama.cpp does: a part of a character is a list of bytes."""
        piece: str | list[int] | None = self._special.names.get(token)
        if piece is None:
            nbytes = self._texts.nbytes(token)
            try:
                piece = bytes(nbytes).decode()
            except UnicodeDecodeError:
                piece = nbytes
        return {"id": token, "piece": piece}
