"""Incremental detokenization: complete characters only, and never a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from llamakit.protocols import Tokenizer

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
LONGEST = 3
"""Bytes of a character that can be waiting for its last one."""
WINDOW = 16
"""How many tokens may be decoded again with each new one before the anchor moves."""


class TextStream:
    """Turns tokens into text as they come.

    The pieces together equal the text of all tokens decoded at once, up to the first stop string.

    Args:
        stop_strings: strings that end the answer and are not part of it.
    """

    def __init__(self, tokenizer: Tokenizer, stop_strings: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stops = [stop for stop in stop_strings if stop]
        self._tokens: list[int] = []
        self._anchor = 0  # tokens before this one are returned already and decide nothing
        self._given = ""  # the part already returned of the text from the anchor on
        self._held = ""  # decoded, but maybe the beginning of a stop string
        self.stopped = False

    def begin(self, tokens: Sequence[int]) -> str:
        """Take the tokens of the prompt that precedes the answer; return their text.

        Stop strings are not searched for in it.
        """
        self._tokens = list(tokens)
        text = self._decode(0)
        self._given = text[: len(text) - _unfinished(text)]
        return self._given

    def feed(self, token: int) -> str:
        """Take one token; return the text that is now final, often ``""``."""
        if self.stopped:
            return ""
        self._tokens.append(token)
        text = self._decode(self._anchor)
        certain = text[: len(text) - _unfinished(text)]
        fresh = certain[len(self._given) :]
        if fresh:
            self._given = certain
        if certain == text and len(self._tokens) - self._anchor > WINDOW:
            self._move_anchor()
        return self._release(fresh)

    def skip(self, tokens: Sequence[int]) -> None:
        """Take tokens whose text is returned with that of the next one: one decoding for all."""
        self._tokens += tokens

    def _move_anchor(self) -> None:
        """Decode from the newest token on, if its text does not depend on the tokens before it.

        A tokenizer may strip a space from the first token, so the anchor has to be a token with
        other text than spaces.
        """
        text = self._decode(len(self._tokens) - 1)
        if text.strip() and UNFINISHED not in text:
            self._anchor, self._given = len(self._tokens) - 1, text

    def _decode(self, start: int) -> str:
        return self._tokenizer.decode(self._tokens[start:])

    def finish(self) -> str:
        """Return the rest of the text when no token follows."""
        if self.stopped:
            return ""
        return self._release(self._decode(self._anchor)[len(self._given) :], last=True)

    def _release(self, fresh: str, last: bool = False) -> str:
        text = self._held + fresh
        places = ((text.find(stop), len(stop)) for stop in self._stops)
        # The stop string that is complete first, whatever the tokens that brought the others.
        ends = [(start + length, start) for start, length in places if start >= 0]
        if ends:
            self.stopped = True
            self._held = ""
            return text[: min(ends)[1]]
        keep = 0 if last else max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _unfinished(text: str) -> int:
    """Return how many characters at the end may still become one character."""
    count = len(text) - len(text.rstrip(UNFINISHED))
    return min(count, LONGEST)


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest suffix of ``text`` that is a prefix of ``stop``."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
