"""The tokenizer that is in a GGUF file: loaded, and as the files that Meta and others have.

SentencePiece's model is written again from its pieces, and Llama 3's ranks from its tokens.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llamakit.errors import TokenizerError
from llamakit.printable import printable
from llamakit.tokenizer.added_tokens import AddedToken
from llamakit.tokenizer.rank_tokenizer import RankTokenizer
from llamakit.tokenizer.sentencepiece import SentencePieceTokenizer
from llamakit.tokenizer.special_tokens import ALL_NAMES
from llamakit.tokenizer.tokenizer_json import from_vocabulary
from llamakit_gguf.header import Array, Value
from llamakit_gguf.sentencepiece_file import Piece, default_settings, model_file

if TYPE_CHECKING:
    from llamakit.checkpoint.params import ModelParams

SETTINGS = "llamakit.sentencepiece.settings"
"""Where our own export keeps what GGUF has no keys for: what follows the pieces in the file."""
_PREFIX = "tokenizer.ggml"
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_PRE = ("llama-bpe", "llama3", "llama-v3", "smaug-bpe")
"""Names of the pattern that splits strings for Llama 3."""
_MAX_NBYTES = 4 << 20
"""Of all tokens together: Llama 3's have 0.9 MB."""
_MAX_SETTINGS = 1 << 16
_ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")
_REMEDY = "pass the model's own with --tokenizer"


@dataclass(frozen=True)
class _Vocabulary:
    """What the keys of a file say of its tokens."""

    path: Path
    metadata: Mapping[str, Value]
    tokens: Sequence[bytes]
    kinds: Sequence[int]
    """Of each token; as in ``Piece``."""

    def token_id(self, key: str) -> int | None:
        """Return the token ID of a key; None where it has none."""
        value = self.metadata.get(f"{_PREFIX}.{key}")
        if value is None or value == (1 << 32) - 1:
            return None
        if type(value) is not int or not 0 <= value < len(self.tokens):
            raise self.damage(f"{key} is {printable(value)}, and it has {len(self.tokens)} tokens")
        return value

    @property
    def stops(self) -> list[int]:
        """The tokens that end an answer, as far as the file says."""
        found = (self.token_id(key) for key in _ENDS)
        return list(dict.fromkeys(token for token in found if token is not None))

    def damage(self, fault: str) -> TokenizerError:
        """Return the error for something that is wrong with it."""
        return TokenizerError(f"{self.path}: its tokenizer is damaged: {fault}; {_REMEDY}")


class GGUFSentencePieceTokenizer(SentencePieceTokenizer):
    """A SentencePiece model that was rebuilt from a GGUF file."""

    def __init__(
        self, path: Path, model: bytes, chat_template: str | None, stops: Sequence[int]
    ) -> None:
        super().__init__(path, model, chat_template=chat_template)
        self.stop_ids = frozenset([self.eos_id, *stops])

    def special_ids(self) -> dict[str, int]:
        """Return the special tokens by name; they are all in the file."""
        return {self._model.id_to_piece(token): token for token in self._special_pieces()}


def load(
    metadata: Mapping[str, Value], path: Path, params: ModelParams | None
) -> SentencePieceTokenizer | RankTokenizer | None:
    """Load the tokenizer of a GGUF file; None where it has none.

    Args:
        metadata: of the file ``path``.
        params: of the model, if there is one in the file.

    Raises:
        TokenizerError: it is of another kind than Llama's, or damaged.
    """
    kind = metadata.get(f"{_PREFIX}.model")
    if kind in (None, "none", "no_vocab"):
        return None
    if kind not in ("llama", "gpt2"):
        raise TokenizerError(
            f"{path}: its tokenizer is of the kind {printable(kind)}; expected llama "
            f"(SentencePiece) or gpt2 (the byte-level BPE of Llama 3): {_REMEDY}"
        )
    vocabulary = _vocabulary(metadata, path)
    if kind == "llama":
        return _load_sentencepiece(vocabulary)
    ranks = _load_ranks(vocabulary)
    return ranks if params is None else ranks.for_model(params)


def tokenizer_files(
    metadata: Mapping[str, Value], path: Path, params: ModelParams
) -> dict[str, bytes]:
    """Return the files of the tokenizer of a GGUF file, by name; none where it has none.

    Raises: as ``load``.
    """
    tokenizer = load(metadata, path, params)
    if tokenizer is None:
        return {}
    vocabulary = _vocabulary(metadata, path)
    files = {}
    if isinstance(tokenizer, RankTokenizer):
        files["tokenizer.model"] = _rank_file(tokenizer.ranks)
        if changed := _changed(tokenizer):
            files["tokenizer_config.json"] = _config(changed)
    else:
        files["tokenizer.model"] = _model(vocabulary)
    if tokenizer.chat_template:
        files["chat_template.jinja"] = tokenizer.chat_template.encode()
    if stops := vocabulary.stops:
        ends = {"bos_token_id": tokenizer.bos_id, "eos_token_id": stops if stops[1:] else stops[0]}
        files["generation_config.json"] = (json.dumps(ends) + "\n").encode()
    return files


def _vocabulary(metadata: Mapping[str, Value], path: Path) -> _Vocabulary:
    tokens = _array(metadata, "tokens").strings()
    kinds = [int(it) for it in _array(metadata, "token_type").numbers()] or [_NORMAL] * len(tokens)
    vocabulary = _Vocabulary(path, metadata, tokens, kinds)
    if not tokens or len(kinds) != len(tokens):
        raise vocabulary.damage(f"it has {len(tokens)} tokens and {len(kinds)} token types")
    if (nbytes := sum(map(len, tokens))) > _MAX_NBYTES:
        raise vocabulary.damage(f"its tokens have {nbytes} bytes in all")
    return vocabulary


def _array(metadata: Mapping[str, Value], key: str) -> Array:
    value = metadata.get(f"{_PREFIX}.{key}")
    return value if isinstance(value, Array) else Array(0, 0, b"")


def _chat_template(metadata: Mapping[str, Value]) -> str | None:
    template = metadata.get("tokenizer.chat_template")
    return template if isinstance(template, str) and template else None


def _load_sentencepiece(vocabulary: _Vocabulary) -> SentencePieceTokenizer:
    try:
        return GGUFSentencePieceTokenizer(
            vocabulary.path,
            _model(vocabulary),
            _chat_template(vocabulary.metadata),
            vocabulary.stops,
        )
    except (RuntimeError, UnicodeDecodeError) as error:  # sentencepiece's, and its messages'
        raise vocabulary.damage("its pieces make no SentencePiece model") from error


def _model(vocabulary: _Vocabulary) -> bytes:
    """Write the SentencePiece model of a file again."""
    scores = [float(it) for it in _array(vocabulary.metadata, "scores").numbers()]
    tokens, kinds = vocabulary.tokens, vocabulary.kinds
    if len(scores) != len(tokens) or not all(map(math.isfinite, scores)):
        raise vocabulary.damage(f"it has {len(tokens)} tokens and {len(scores)} finite scores")
    if not set(kinds) <= set(range(1, 7)):
        raise vocabulary.damage("it has token types that there are not")
    count = len(tokens)
    while count and kinds[count - 1] == _UNUSED and tokens[count - 1].startswith(b"[PAD"):
        count -= 1  # rows of the embedding that are no pieces
    pieces = [
        Piece(token, 0.0 if kind == _USER_DEFINED else score, kind)
        for token, score, kind in zip(tokens[:count], scores, kinds, strict=False)
    ]
    return model_file(pieces, _settings(vocabulary, pieces))


def _settings(vocabulary: _Vocabulary, pieces: Sequence[Piece]) -> bytes:
    kept = vocabulary.metadata.get(SETTINGS)
    if isinstance(kept, Array) and 0 < len(kept.content) <= _MAX_SETTINGS:
        return kept.content
    unknown = [at for at, piece in enumerate(pieces) if piece.kind == _UNKNOWN]
    ids = {
        name: found if (found := vocabulary.token_id(f"{key}_token_id")) is not None else default
        for name, key, default in (
            ("unk", "unknown", unknown[0] if unknown else 0),
            ("bos", "bos", 1),
            ("eos", "eos", 2),
        )
    }
    if max(ids.values()) >= len(pieces):
        raise vocabulary.damage("its first or last token is none of its pieces")
    adds_space = vocabulary.metadata.get(f"{_PREFIX}.add_space_prefix", True)
    return default_settings(pieces, **ids, adds_space=adds_space is not False)


def _load_ranks(vocabulary: _Vocabulary) -> RankTokenizer:
    path, metadata = vocabulary.path, vocabulary.metadata
    pre = metadata.get(f"{_PREFIX}.pre")
    if pre not in _PRE:
        raise TokenizerError(
            f"{path}: its tokenizer splits strings as {printable(pre)}; expected {_PRE[0]}, as "
            f"Llama 3 does: {_REMEDY}"
        )
    tokens, kinds = vocabulary.tokens, vocabulary.kinds
    count = next((at for at, kind in enumerate(kinds) if kind != _NORMAL), len(kinds))
    try:
        names = [token.decode() for token in tokens]
        merges = [merge.decode() for merge in _array(metadata, "merges").strings()]
    except UnicodeDecodeError as error:
        raise vocabulary.damage("a token or a merge is not UTF-8") from error
    added = [
        AddedToken(token, names[token], kinds[token] == _CONTROL)
        for token in range(count, len(tokens))
        if kinds[token] in (_CONTROL, _USER_DEFINED) and names[token]
    ]
    if len({entry.content for entry in added}) != len(added):
        raise vocabulary.damage("two of its special tokens have one name")
    if _NORMAL in kinds[count:]:
        raise vocabulary.damage("tokens of text follow its special tokens")
    vocab = {name: token for token, name in enumerate(names[:count])}
    if len(vocab) != count:
        raise vocabulary.damage("a token is there twice")
    return from_vocabulary(
        path, vocab, merges, added, stops=vocabulary.stops, chat_template=_chat_template(metadata)
    )


def _rank_file(ranks: Sequence[bytes]) -> bytes:
    lines = (b"%s %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(ranks))
    return b"".join(lines)


def _changed(tokenizer: RankTokenizer) -> list[AddedToken]:
    """Return the added tokens of a fine-tune: those that no Llama 3 has."""
    return [it for it in tokenizer.added if not it.special or it.content not in ALL_NAMES]


def _config(added: Sequence[AddedToken]) -> bytes:
    listed = {
        str(entry.id): {"content": entry.content, "special": entry.special} for entry in added
    }
    return (json.dumps({"added_tokens_decoder": listed}, indent=2) + "\n").encode()
