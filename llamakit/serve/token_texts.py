"""The text and the bytes of single tokens, for ``logprobs`` and ``/tokenize``."""

from __future__ import annotations

from llamakit.protocols import Tokenizer


class TokenTexts:
    """The text that each token adds to the tokens before it.

    If the tokenizer has ``token_bytes``, the text is decoded from those. Otherwise it is what the
    token adds to the text of another token, so that a leading space is kept.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}
        token_bytes = getattr(tokenizer, "token_bytes", None)
        self._bytes = None if token_bytes is None else list(token_bytes())
        self._before = tokenizer.encode("a")[-1:]
        self._start = len(tokenizer.decode(self._before))

    def text(self, token: int) -> str:
        """Return a token's text; half a character is U+FFFD."""
        if token not in self._known:
            self._known[token] = self._find(token)
        return self._known[token]

    def width(self, token: int, *, at_start: bool) -> int:
        """Return how many characters a token adds; some tokens lose a space at the start."""
        if token >= self._tokenizer.vocab_size:
            return 0
        if at_start:
            return len(self._tokenizer.decode([token]))
        return len(self._tokenizer.decode([*self._before, token])) - self._start

    def nbytes(self, token: int) -> list[int]:
        """Return the bytes of a token."""
        if self._bytes is not None and token < len(self._bytes):
            return list(self._bytes[token])
        return list(self.text(token).encode())

    def _find(self, token: int) -> str:
        if self._bytes is not None and token < len(self._bytes) and self._bytes[token]:
            return bytes(self._bytes[token]).decode(errors="replace")
        if token >= self._tokenizer.vocab_size:
            return f"<{token}>"  # a row of the embedding that the tokenizer has no text for
        return self._tokenizer.decode([*self._before, token])[self._start :] or f"<{token}>"
