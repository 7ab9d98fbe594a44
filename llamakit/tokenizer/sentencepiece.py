"""The tokenizer of Llama 1, Llama 2 and Code Llama."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llamakit.errors import TokenizerError


class SentencePieceTokenizer:
    """A SentencePiece model.

    Source: the reference's ``llama/tokenizer.py``.
    """

    def __init__(self, path: Path) -> None:
        import sentencepiece

        self.path = path
        self._model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.vocab_size: int = self._model.vocab_size()
        self.bos_id: int = self._model.bos_id()
        self.eos_id: int = self._model.eos_id()

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        """Return the ids of ``text``; text never becomes a control id."""
        tokens: list[int] = self._model.encode(text)
        return [self.bos_id] * bos + tokens + [self.eos_id] * eos

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of ``tokens``; control ids have none, nor have ids beyond the pieces."""
        text: str = self._model.decode([token for token in tokens if token < self.vocab_size])
        return text


def load(path: Path) -> SentencePieceTokenizer:
    """Load a SentencePiece model.

    Raises:
        TokenizerError: the file is something else; the message says what.
    """
    try:
        return SentencePieceTokenizer(path)
    except RuntimeError as error:  # sentencepiece's only error
        raise TokenizerError(
            f"{path}: not a SentencePiece model ({_looks_like(path)}); expected the "
            "tokenizer.model that came with the weights: pass it with --tokenizer"
        ) from error


def _looks_like(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(256).lstrip()
    if not head:
        return "the file is empty"
    if head.startswith(b"<"):
        return "it is an HTML or XML page, perhaps of a download that failed"
    if head.startswith((b"{", b"[")):
        return "it is JSON"
    return f"it begins with {bytes(head[:8])!r}"
