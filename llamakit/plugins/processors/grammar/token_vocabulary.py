"""The vocabulary of a tokenizer as llguidance reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llamakit.errors import TokenizerError

if TYPE_CHECKING:
    from llguidance import LLTokenizer

    from llamakit.protocols import Tokenizer


class TokenVocabulary:
    """A tokenizer's vocabulary, extended for the first token of an answer.

    Decoding drops the space that an answer's first token may begin with. So the engine's
    vocabulary has more entries after the tokenizer's: for each token that loses its space, one
    without it. The grammar is then matched against the string that is printed.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        import numpy

        self.size = tokenizer.vocab_size
        self.eos_id, self.bos_id = tokenizer.eos_id, tokenizer.bos_id
        pieces = _token_bytes(tokenizer)
        spaced = [
            token for token, piece in enumerate(pieces) if _loses_space(tokenizer, token, piece)
        ]
        self.lone_spaces = [token for token in spaced if len(pieces[token]) == 1]
        """Tokens that are a single space: at the beginning they print nothing."""
        first = [token for token in spaced if len(pieces[token]) > 1]
        self.first_ids = numpy.arange(self.size)
        """The engine's token for each token at the beginning of an answer."""
        self.first_ids[first] = numpy.arange(self.size, self.size + len(first))
        self.pieces = [*pieces, *(pieces[token][1:] for token in first)]
        self.engine = self._engine()

    def _engine(self) -> LLTokenizer:
        from llguidance import LLTokenizer, TokenizerWrapper

        return LLTokenizer(TokenizerWrapper(_EngineVocabulary(self)))


class _EngineVocabulary:
    """The vocabulary in the format that ``TokenizerWrapper`` requires."""

    def __init__(self, vocabulary: TokenVocabulary) -> None:
        self.eos_token_id, self.bos_token_id = vocabulary.eos_id, vocabulary.bos_id
        self.special_token_ids = [
            token for token, piece in enumerate(vocabulary.pieces) if not piece
        ]
        self.tokens = [
            piece or b"\xff<%d>" % token  # how the engine marks a special token
            for token, piece in enumerate(vocabulary.pieces)
        ]

    def __call__(self, _text: bytes) -> list[int]:
        """Return no tokens for a string: with ``no_forcing`` the engine does not use them."""
        return []


def vocabulary_of(tokenizer: Tokenizer) -> TokenVocabulary:
    """Return the vocabulary of a tokenizer, which is cached on it: building it takes a moment."""
    cache: dict[str, Any] = getattr(tokenizer, "__dict__", {})
    if "_constraint_vocabulary" not in cache:
        cache["_constraint_vocabulary"] = TokenVocabulary(tokenizer)
    vocabulary: TokenVocabulary = cache["_constraint_vocabulary"]
    return vocabulary


def _token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """Return the bytes of each token; none for special tokens."""
    token_bytes = getattr(tokenizer, "token_bytes", None)
    if token_bytes is None:
        raise TokenizerError(
            f"{tokenizer.path} does not provide the bytes of its tokens (token_bytes), which a "
            "grammar needs"
        )
    pieces: list[bytes] = list(token_bytes())
    for token in getattr(tokenizer, "special_ids", dict)().values():
        if token < len(pieces):
            pieces[token] = b""
    return pieces


def _loses_space(tokenizer: Tokenizer, token: int, piece: bytes) -> bool:
    return piece[:1] == b" " and tokenizer.decode([token]) == piece[1:].decode(errors="replace")
