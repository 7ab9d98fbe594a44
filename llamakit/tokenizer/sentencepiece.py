"""The tokenizer of Llama 1, Llama 2 and Code Llama."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llamakit.errors import TokenizerError
from llamakit.files.regular_file import open_regular
from llamakit.printable import printable
from llamakit.tokenizer.added_tokens import read_added_tokens

if TYPE_CHECKING:
    import sentencepiece

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""The character that SentencePiece uses for a space."""
MAX_NBYTES = 32 << 20
"""Of a model: Llama 2's has 0.5 MB, and one of 256,000 pieces 5 MB."""
_TAG = re.compile(rf"{SPACE}?(<.+>|\[.+\])", re.DOTALL)
"""The spelling of pieces that are never text of a user's."""
_BYTE = re.compile("<0x[0-9A-F]{2}>")


class SentencePieceTokenizer:
    """A SentencePiece model.

    Args:
        path: its file.
        model: what that holds; None reads it.
        chat_template: of Hugging Face's, where the tokenizer's own file has one.
    Raises:
        RuntimeError: sentencepiece does not load it.
    Source: the reference's ``llama/tokenizer.py``.
    """

    def __init__(
        self, path: Path, model: bytes | None = None, *, chat_template: str | None = None
    ) -> None:
        import sentencepiece

        self.path, self.chat_template = path, chat_template
        proto = _read(path) if model is None else model
        self._model = sentencepiece.SentencePieceProcessor(model_proto=proto)
        self.vocab_size: int = self._model.vocab_size()
        self._model.id_to_piece(list(range(self.vocab_size)))  # fails where one is not UTF-8
        self.bos_id: int = self._model.bos_id()
        self.eos_id: int = self._model.eos_id()
        self.pad_id: int = self._model.pad_id()

    @property
    def sp_model(self) -> sentencepiece.SentencePieceProcessor:
        """The processor, by the reference's name."""
        return self._model

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        """Return the tokens of ``text``; text never becomes a control token."""
        tokens: list[int] = self._model.encode(text)
        return [self.bos_id] * bos + tokens + [self.eos_id] * eos

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of ``tokens``; control tokens and tokens beyond the pieces have none."""
        text: str = self._model.decode([token for token in tokens if token < self.vocab_size])
        return text

    def special_ids(self) -> Mapping[str, int]:
        """Return the special tokens by name: a prompt format may use them, text never becomes one.

        They are the control pieces, the user-defined pieces that are spelled ``<…>`` or ``[…]``,
        and the tokens that a Hugging Face folder adds after the pieces.

        Raises:
            TokenizerError: that file is not what it should be.
        """
        model = self._model
        special = {model.id_to_piece(token): token for token in self._special_pieces()}
        return {
            **special,
            **{new.content: new.id for new in read_added_tokens(self.path.parent, len(model))},
        }

    def token_bytes(self) -> list[bytes]:
        """Return the UTF-8 bytes that each token adds to the text; ``b""`` where it adds none."""
        model = self._model
        pieces = []
        for token in range(self.vocab_size):
            piece = model.id_to_piece(token)
            if model.is_control(token) or model.is_unknown(token) or model.is_unused(token):
                pieces.append(b"")
            elif model.is_byte(token):
                pieces.append(self._byte(piece))
            else:
                pieces.append(piece.replace(SPACE, " ").encode())
        return pieces

    def _byte(self, piece: str) -> bytes:
        """Return the byte of a piece such as ``<0x0A>``."""
        if not _BYTE.fullmatch(piece):
            raise TokenizerError(
                f"{self.path}: {printable(piece)!r} is marked as a byte; expected a piece such as "
                "<0x0A>: copy the file again"
            )
        return bytes([int(piece[3:5], 16)])

    def _special_pieces(self) -> list[int]:
        model = self._model
        return [
            token
            for token in range(self.vocab_size)
            if model.is_control(token)
            or (
                # the Python API does not show user-defined pieces: only they have a score of 0
                model.get_score(token) == 0
                and _TAG.fullmatch(model.id_to_piece(token))
                and not (model.is_unknown(token) or model.is_byte(token))
            )
        ]


def load(path: Path) -> SentencePieceTokenizer:
    """Load a SentencePiece model.

    Raises:
        TokenizerError: the file is something else; the message says what.
    """
    try:
        return SentencePieceTokenizer(path)
    except (RuntimeError, UnicodeDecodeError) as error:  # sentencepiece's errors, and its messages'
        raise TokenizerError(
            f"{path}: not a SentencePiece model ({_looks_like(path)}); expected the "
            "tokenizer.model that came with the weights: pass it with --tokenizer"
        ) from error


def _read(path: Path) -> bytes:
    with open_regular(path) as file:
        data = file.read(MAX_NBYTES + 1)
    if not data or len(data) > MAX_NBYTES:
        raise RuntimeError(f"{len(data)} bytes are no model")
    return data


def _looks_like(path: Path) -> str:
    with open_regular(path) as file:
        head = file.read(256).lstrip()
    if not head:
        return "the file is empty"
    if head.startswith(b"<"):
        return "it is an HTML or XML page, perhaps of a download that failed"
    if head.startswith((b"{", b"[")):
        return "it is JSON"
    if path.stat().st_size > MAX_NBYTES:
        return f"it has {path.stat().st_size} bytes"
    return f"it begins with {bytes(head[:8])!r}"
