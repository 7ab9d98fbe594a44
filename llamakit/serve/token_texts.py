"""What single ids look like: their text, and its bytes."""

from __future__ import annotations

from llamakit.protocols import Tokenizer


class TokenTexts:
    """The text that each id adds to what stands before it.

    A tokenizer that tells the bytes of its ids is asked for those. Otherwise an id's text is what
    it adds to another id's, so that a space it begins with is seen.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}
        tell = getattr(tokenizer, "token_bytes", None)
        self._bytes = None if tell is None else list(tell())
        self._before = tokenizer.encode("a")[-1:]
        self._start = len(tokenizer.decode(self._before))

    def text(self, token: int) -> str:
        """Return an id's text; half a character is U+FFFD."""
        if token not in self._known:
            self._known[token] = self._find(token)
        return self._known[token]

    def width(self, token: int, *, at_start: bool) -> int:
        """Return how many characters an id adds to a text; some lose a space at its start."""
        if token >= self._tokenizer.vocab_size:
            return 0
        if at_start:
            return len(self._tokenizer.decode([token]))
        return len(self._tokenizer.decode([*self._before, token])) - self._start

    def nbytes(self, token: int) -> list[int]:
        """Return the bytes that an id stands for."""
        if self._bytes is not None and token < len(self._bytes):
            return list(self._bytes[token])
        return list(self.text(token).encode())

    def _find(self, token: int) -> str:
        if self._bytes is not None and token < len(self._bytes) and self._bytes[token]:
            return bytes(self._bytes[token]).decode(errors="replace")
        if token >= self._tokenizer.vocab_size:
            return f"<{token}>"  # a row of the embedding that the tokenizer has no text for
        return self._tokenizer.decode([*self._before, token])[self._start :] or f"<{token}>"
