"""A SentencePiece BPE model as Hugging Face's tokenizer.json.

It encodes any string to SentencePiece's tokens and decodes them alike, with three exceptions
that the format imposes:

- ``<s>``, ``</s>`` and ``<unk>`` in a string become the special tokens, which is Hugging
  Face's convention; SentencePiece takes them for text.
- A run of bytes that is not valid UTF-8 decodes to one U+FFFD for each byte;
  SentencePiece keeps the characters in it that are complete.
- SentencePiece joins pairs that make pieces of equal score from left to right, which a list of
  merges cannot say. Trained models give every piece a score of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from llamakit.convert.chat_template import llama2_template
from llamakit.convert.hf_tokenizer_json import added_tokens, bos_template
from llamakit.convert.sentencepiece_model import PieceType, SentencePieceModel
from llamakit.errors import TokenizerError
from llamakit.tokenizer.added_tokens import AddedToken

SPACE = "▁"
"""What SentencePiece writes for a space."""

_BYTE_PIECES = frozenset(f"<0x{byte:02X}>" for byte in range(256))
_KNOWN_TYPES = (PieceType.NORMAL, PieceType.UNKNOWN, PieceType.CONTROL, PieceType.BYTE)


class SentencePieceParts:
    """The files that are made of a SentencePiece model.

    Args:
        added: tokens that a fine-tune adds behind the pieces.
    """

    def __init__(self, model: SentencePieceModel, added: Sequence[AddedToken] = ()) -> None:
        self._model, self._added = model, added
        self.bos = token_id(model, model.bos_piece)
        self.stops = [token_id(model, model.eos_piece)]
        self.template = llama2_template()

    def tokenizer_json(self) -> bytes:
        """Return the tokenizer.json.

        Raises:
            TokenizerError: the model does something that the format cannot express.
        """
        return (
            json.dumps(tokenizer_json(self._model, self._added), ensure_ascii=False) + "\n"
        ).encode()

    def config(self, context: int) -> dict[str, object]:
        """Say what the tokenizer_config.json holds, a chat template aside."""
        return {
            # ``LlamaTokenizer`` changes the tokens of leading and repeated spaces
            "tokenizer_class": "PreTrainedTokenizerFast",
            **self.special_tokens_map(),
            "add_bos_token": True,
            "add_eos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": context,
        }

    def special_tokens_map(self) -> dict[str, object]:
        """Say what the special_tokens_map.json holds."""
        model = self._model
        return {
            "bos_token": model.bos_piece,
            "eos_token": model.eos_piece,
            "unk_token": model.unk_piece,
        }


def tokenizer_json(
    model: SentencePieceModel, added: Sequence[AddedToken] = ()
) -> dict[str, object]:
    """Say what a tokenizer.json for this model holds.

    The merges are pairs, which the tokenizers package reads since 0.20.

    Args:
        added: tokens that a fine-tune adds behind the pieces.

    Raises:
        TokenizerError: the model does something that the format cannot express.
    """
    _check_expressible(model)
    vocab = {piece.text: token for token, piece in enumerate(model.pieces)}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(model, added),
        "normalizer": _sequence(
            "normalizers",
            {"type": "Prepend", "prepend": SPACE},
            {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        ),
        "pre_tokenizer": None,
        "post_processor": bos_template(model.bos_piece, vocab[model.bos_piece]),
        "decoder": _sequence(
            "decoders",
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": model.unk_piece,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges(model),
        },
    }


def token_id(model: SentencePieceModel, text: str) -> int:
    """Return the id of a piece.

    Raises:
        ValueError: no such piece.
    """
    return [piece.text for piece in model.pieces].index(text)


def merges(model: SentencePieceModel) -> list[list[str]]:
    """List the pairs of pieces that BPE joins, the first to be joined first.

    SentencePiece joins any two neighbours that make a piece, the piece of the highest score
    first, so each way to split a piece into two is a pair.

    Returns:
        ``[left, right]`` strings; in the order of the joined piece's score.
    """
    tokens = {
        piece.text: token
        for token, piece in enumerate(model.pieces)
        if piece.type == PieceType.NORMAL
    }
    by_score = sorted(tokens, key=lambda text: (-model.pieces[tokens[text]].score, tokens[text]))
    return [
        [text[:split], text[split:]]
        for text in by_score
        # The longer left first: neighbours n, m, n of one run are n+m, n, as joined from the left.
        for split in range(len(text) - 1, 0, -1)
        if text[:split] in tokens and text[split:] in tokens
    ]


def _sequence(parts: str, *steps: Mapping[str, object]) -> dict[str, object]:
    return {"type": "Sequence", parts: list(steps)}


def _added_tokens(
    model: SentencePieceModel, added: Sequence[AddedToken]
) -> list[dict[str, object]]:
    own = [
        AddedToken(token, piece.text)
        for token, piece in enumerate(model.pieces)
        if piece.type in (PieceType.UNKNOWN, PieceType.CONTROL)
    ]
    return added_tokens([*own, *added])


def _check_expressible(model: SentencePieceModel) -> None:
    reason = _why_settings_do_not_fit(model) or _why_pieces_do_not_fit(model)
    if reason:
        raise TokenizerError(
            f"{model.path}: {reason}, which a tokenizer.json cannot express with the same tokens. "
            "Expected a BPE model as Llama 1, Llama 2 and Code Llama have it: pass theirs with "
            "--tokenizer"
        )


def _why_settings_do_not_fit(model: SentencePieceModel) -> str | None:
    reasons = {
        f"it is a {model.model_type} model": model.model_type != "BPE",
        "it has no byte fallback": not model.byte_fallback,
        f"it changes characters (normalization {model.normalization})": model.changes_characters,
        "it adds no space before a string": not model.add_dummy_prefix,
        "it removes repeated spaces": model.remove_extra_whitespaces,
        "it keeps spaces as they are": not model.escape_whitespaces,
        "it writes spaces after words": model.treat_whitespace_as_suffix,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _why_pieces_do_not_fit(model: SentencePieceModel) -> str | None:
    types = {piece.text: piece.type for piece in model.pieces}
    if len(types) != len(model.pieces):
        return "it has a piece twice"
    other = [piece for piece in model.pieces if piece.type not in _KNOWN_TYPES]
    if other:
        kind_name = other[0].type.name.lower().replace("_", "-")
        return f"its piece {other[0].text!r:.80} is {kind_name}"
    bytes_found = {text for text, kind in types.items() if kind == PieceType.BYTE}
    if bytes_found != _BYTE_PIECES:
        return "its byte pieces are not <0x00> to <0xFF>"
    for name, text, expected in (
        ("first", model.bos_piece, PieceType.CONTROL),
        ("last", model.eos_piece, PieceType.CONTROL),
        ("unknown", model.unk_piece, PieceType.UNKNOWN),
    ):
        if types.get(text) != expected:
            return f"it has no {name} token {text!r:.80}"
    normal = {text for text, kind in types.items() if kind == PieceType.NORMAL}
    lone = [character for text in normal for character in text if character not in normal]
    if SPACE not in normal or lone:
        return f"its character {min(lone, default=SPACE)!r} is no piece of its own"
    return None
