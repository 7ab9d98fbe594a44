"""The vocabulary of a SentencePiece model as GGUF holds it.

Source: ``_create_vocab_sentencepiece`` in llama.cpp's ``conversion/base.py``.
"""

from __future__ import annotations

from pathlib import Path

from gguf import GGUFWriter, TokenType
from sentencepiece import SentencePieceProcessor

from llamakit.errors import TokenizerError

_PADDING_SCORE = -10000.0
_SPACE = "▁"
_PROBE = "a  ﬁ Å"
"""Two spaces, a ligature and a letter of two code points: normalization would change them."""


def read_tokenizer(path: Path, rows: int) -> SentencePieceProcessor:
    """Load a tokenizer that GGUF can hold for a model.

    Args:
        path: a tokenizer.model.
        rows: how many tokens the model's embedding has.

    Raises:
        TokenizerError: it is something else, or another model's.
    """
    try:
        tokenizer = SentencePieceProcessor(model_file=str(path))
    except RuntimeError as error:
        raise TokenizerError(
            f"{path}: not a SentencePiece model; GGUF files are written here for models with "
            "one, as Llama 1, Llama 2 and Code Llama have it: pass theirs with --tokenizer"
        ) from error
    if tokenizer.vocab_size() > rows:
        raise TokenizerError(
            f"{path} has {tokenizer.vocab_size()} tokens but the embedding has {rows} rows: it is "
            "the tokenizer of another model; pass the right one with --tokenizer"
        )
    if tokenizer.normalize(_PROBE).removeprefix(_SPACE) != _PROBE.replace(" ", _SPACE):
        raise TokenizerError(
            f"{path} changes characters or spaces before it encodes, which llama.cpp does not do "
            "for a Llama, so its tokens would differ; pass Meta's tokenizer with --tokenizer"
        )
    return tokenizer


def add_vocabulary(writer: GGUFWriter, tokenizer: SentencePieceProcessor, rows: int) -> None:
    """Write every piece, and unused ones up to the number of the embedding's rows."""
    ids = range(tokenizer.vocab_size())
    padding = rows - len(ids)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(
        [tokenizer.id_to_piece(token) for token in ids]
        + [f"[PAD{len(ids) + number}]" for number in range(padding)]
    )
    writer.add_token_scores(
        [tokenizer.get_score(token) for token in ids] + [_PADDING_SCORE] * padding
    )
    writer.add_token_types(
        [_type(tokenizer, token) for token in ids] + [TokenType.UNUSED] * padding
    )
    writer.add_bos_token_id(tokenizer.bos_id())
    writer.add_eos_token_id(tokenizer.eos_id())
    writer.add_unk_token_id(tokenizer.unk_id())
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(tokenizer.normalize("a").startswith(_SPACE))


def _type(tokenizer: SentencePieceProcessor, token: int) -> TokenType:
    if tokenizer.is_unknown(token):
        return TokenType.UNKNOWN
    if tokenizer.is_control(token):
        return TokenType.CONTROL
    if tokenizer.is_unused(token):
        return TokenType.UNUSED
    return TokenType.BYTE if tokenizer.is_byte(token) else TokenType.NORMAL
