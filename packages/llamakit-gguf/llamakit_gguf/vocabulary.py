"""The vocabulary of a tokenizer as GGUF holds it.

It is read from the small files that an export to Hugging Face's format has, as llama.cpp's own
converter reads them.

Source: ``_create_vocab_sentencepiece`` and ``_set_vocab_gpt2`` in llama.cpp's
``conversion/base.py``, and ``SpecialVocab`` in its ``gguf-py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gguf import GGUFValueType, GGUFWriter, TokenType
from sentencepiece import SentencePieceProcessor

from llamakit.convert.conversion_plan import SmallFile
from llamakit.convert.hf_files import hf_files
from llamakit.errors import TokenizerError
from llamakit.files.json_reader import parse_json
from llamakit.files.regular_file import read_bytes
from llamakit.files.tokenizer_kind import tokenizer_kind
from llamakit.protocols import Checkpoint
from llamakit.tokenizer.added_tokens import MAX_NBYTES, AddedToken, read_added_tokens
from llamakit.tokenizer.sentencepiece import load as load_sentencepiece
from llamakit.tokenizer.tokenizer_json import load as load_tokenizer_json
from llamakit_gguf.sentencepiece_file import Piece, model_file, settings_of
from llamakit_gguf.tokenizers import SETTINGS

_PADDING_SCORE, _ADDED_SCORE = -10000.0, -1000.0
_SPACE = "▁"
_PROBE = "a  ﬁ Å"
"""Two spaces, a ligature and a letter of two code points: normalization would change them."""
_TOKENS = {"bos_token": 0, "eos_token": 1, "unk_token": 2, "pad_token": 3}
_SAMPLING = {"top_p": "top_p", "temperature": "temp"}


@dataclass
class Vocabulary:
    """What a GGUF file says of a tokenizer."""

    model: str
    """``llama`` (SentencePiece) or ``gpt2`` (byte-level BPE)."""
    pre: str
    tokens: list[str]
    kinds: list[int]
    note: str
    """A sentence for the user."""
    scores: list[float] = field(default_factory=list)
    merges: list[str] = field(default_factory=list)
    ends: dict[str, int] = field(default_factory=dict)
    """Token IDs by what they are for: ``bos``, ``eos``, ``unk``, ``pad``."""
    adds_space: bool | None = None
    """Before a string; None: it is not said, and GGUF's readers take what is usual."""
    chat_template: str = ""
    sampling: dict[str, float] = field(default_factory=dict)
    settings: bytes = b""
    """What follows the pieces in a SentencePiece model, if that is all that is missing to it."""


def read_vocabulary(
    checkpoint: Checkpoint, path: Path | None, folder: Path, instruct: bool | None
) -> Vocabulary:
    """Read the tokenizer of a checkpoint.

    Args:
        path: its tokenizer.model or tokenizer.json; None where there is none.
        folder: where the small files of the checkpoint are.
        instruct: whether the model was trained on dialogs; None: what is there decides.

    Raises:
        TokenizerError: there is none, it is another model's, or of a kind that GGUF cannot hold.
    """
    if path is None:
        raise TokenizerError(
            f"no tokenizer.model in {checkpoint.path} nor in its parent: pass it with --tokenizer "
            "FILE"
        )
    rows = checkpoint.params.vocab_size
    if not path.exists():
        raise TokenizerError(f"no such tokenizer file: {path}; pass one with --tokenizer")
    model = path.with_name("tokenizer.model")
    source = model if path.suffix == ".json" and model.exists() else path
    processor = None
    if source.suffix == ".json":
        load_tokenizer_json(source)  # refuses another kind than Llama 3's
    elif tokenizer_kind(source) != "ranks":
        processor = _read_processor(source, rows)
    found, note = hf_files(checkpoint, path, instruct=instruct, folder=folder)
    files = {file.name: file for file in found}
    config = _json(files.get("tokenizer_config.json"))
    if processor is None:
        vocabulary = _of_ranks(_json(files["tokenizer.json"]), source, rows, note)
    else:
        vocabulary = _of_pieces(processor, source, rows, note)
    vocabulary.ends |= _ends(vocabulary.tokens, config, _json(files["config.json"]))
    vocabulary.chat_template = _chat_template(files, config)
    generation = _json(files.get("generation_config.json"))
    vocabulary.sampling = {
        theirs: float(generation[ours])
        for ours, theirs in _SAMPLING.items()
        if type(generation.get(ours)) in (int, float)
    }
    return vocabulary


def add_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    """Write a tokenizer, its chat template, and how answers are sampled."""
    for name, value in vocabulary.sampling.items():
        writer.add_float32(f"general.sampling.{name}", value)
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
    writer.add_token_types(vocabulary.kinds)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    add = {
        "bos": writer.add_bos_token_id,
        "eos": writer.add_eos_token_id,
        "unk": writer.add_unk_token_id,
        "pad": writer.add_pad_token_id,
    }
    for name, token in vocabulary.ends.items():
        add[name](token)
    writer.add_add_bos_token(True)
    writer.add_add_sep_token(False)
    writer.add_add_eos_token(False)
    if vocabulary.adds_space is not None:
        writer.add_add_space_prefix(vocabulary.adds_space)
    if vocabulary.chat_template:
        writer.add_chat_template(vocabulary.chat_template)
    if vocabulary.settings:
        writer.add_key_value(
            SETTINGS, list(vocabulary.settings), GGUFValueType.ARRAY, GGUFValueType.UINT8
        )


def _read_processor(path: Path, rows: int) -> SentencePieceProcessor:
    """Load a SentencePiece model that GGUF can hold for a model."""
    processor = load_sentencepiece(path).sp_model
    if processor.vocab_size() > rows:
        raise _of_another_model(path, processor.vocab_size(), rows)
    if processor.normalize(_PROBE).removeprefix(_SPACE) != _PROBE.replace(" ", _SPACE):
        raise TokenizerError(
            f"{path} changes characters or spaces before it encodes, which llama.cpp does not do "
            "for a Llama, so its tokens would differ; pass Meta's tokenizer with --tokenizer"
        )
    return processor


def _of_pieces(processor: SentencePieceProcessor, path: Path, rows: int, note: str) -> Vocabulary:
    ids = range(processor.vocab_size())
    vocabulary = _padded("llama", "default", rows, note)
    vocabulary.scores = [_PADDING_SCORE] * rows
    for token in ids:
        vocabulary.tokens[token] = processor.id_to_piece(token)
        vocabulary.scores[token] = processor.get_score(token)
        vocabulary.kinds[token] = _kind(processor, token)
    vocabulary.settings = _settings(vocabulary, len(ids), path)
    vocabulary.ends = {
        "bos": processor.bos_id(),
        "eos": processor.eos_id(),
        "unk": processor.unk_id(),
    }
    adds_space = processor.normalize("a").startswith(_SPACE)
    vocabulary.adds_space = None if adds_space else False
    _add(vocabulary, read_added_tokens(path.parent, len(ids)), path)
    return vocabulary


def _of_ranks(value: Mapping[str, Any], path: Path, rows: int, note: str) -> Vocabulary:
    """Read a tokenizer.json of Llama 3, whose form has been checked."""
    vocabulary = _padded("gpt2", "llama-bpe", rows, note)
    model = value["model"]
    added = [
        AddedToken(entry["id"], entry["content"], entry["special"])
        for entry in value["added_tokens"]
    ]
    if (count := 1 + max([*model["vocab"].values(), *(entry.id for entry in added)])) > rows:
        raise _of_another_model(path, count, rows)
    for text, token in model["vocab"].items():
        vocabulary.tokens[token], vocabulary.kinds[token] = text, TokenType.NORMAL
    _add(vocabulary, added, path)
    vocabulary.merges = [
        merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]
    ]
    return vocabulary


def _padded(model: str, pre: str, rows: int, note: str) -> Vocabulary:
    """Return a vocabulary of unused tokens, one for each row of the embedding."""
    tokens = [f"[PAD{token}]" for token in range(rows)]
    return Vocabulary(model, pre, tokens, [TokenType.UNUSED] * rows, note)


def _add(vocabulary: Vocabulary, added: Sequence[AddedToken], path: Path) -> None:
    rows = len(vocabulary.tokens)
    for entry in added:
        if entry.id >= rows:
            raise _of_another_model(path, entry.id + 1, rows)
        vocabulary.tokens[entry.id] = entry.content
        vocabulary.kinds[entry.id] = TokenType.CONTROL if entry.special else TokenType.USER_DEFINED
        if vocabulary.scores:
            vocabulary.scores[entry.id] = _ADDED_SCORE


def _settings(vocabulary: Vocabulary, count: int, path: Path) -> bytes:
    """Return what follows the pieces, if the file is its pieces and that."""
    model = read_bytes(path)
    try:
        settings = settings_of(model)
    except IndexError:
        return b""
    entries = zip(vocabulary.tokens[:count], vocabulary.scores, vocabulary.kinds, strict=False)
    pieces = [Piece(text.encode(), score, int(kind)) for text, score, kind in entries]
    return settings if model_file(pieces, settings) == model else b""


def _kind(processor: SentencePieceProcessor, token: int) -> TokenType:
    if processor.is_unknown(token):
        return TokenType.UNKNOWN
    if processor.is_control(token):
        return TokenType.CONTROL
    if processor.is_unused(token):
        return TokenType.UNUSED
    return TokenType.BYTE if processor.is_byte(token) else TokenType.NORMAL


def _ends(
    tokens: Sequence[str], config: Mapping[str, Any], numbers: Mapping[str, Any]
) -> dict[str, int]:
    """Return the tokens that begin and end a string, as a tokenizer's config names them."""
    known = {token: at for at, token in enumerate(tokens)}
    ends = {}
    for name in _TOKENS:
        value, key = config.get(name), name.removesuffix("_token")
        content = value.get("content") if isinstance(value, dict) else value
        listed = numbers.get(f"{name}_id")
        first = listed[0] if isinstance(listed, list) else listed
        if isinstance(content, str) and content in known:
            ends[key] = known[content]
        elif type(first) is int:
            ends[key] = first
    return ends


def _chat_template(files: Mapping[str, SmallFile], config: Mapping[str, Any]) -> str:
    if "chat_template.jinja" in files:
        return _content(files["chat_template.jinja"]).decode("utf-8", "replace")
    template = config.get("chat_template") or _json(files.get("chat_template.json")).get(
        "chat_template"
    )
    if isinstance(template, list):  # several, by name
        named = {it.get("name"): it.get("template") for it in template if isinstance(it, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else ""


def _json(file: SmallFile | None) -> dict[str, Any]:
    """Return what a file of JSON holds; nothing where there is none."""
    if file is None:
        return {}
    value = parse_json(_content(file), file.name, max_nbytes=MAX_NBYTES)
    return value if isinstance(value, dict) else {}


def _content(file: SmallFile) -> bytes:
    return file.content if isinstance(file.content, bytes) else read_bytes(file.content)


def _of_another_model(path: Path, tokens: int, rows: int) -> TokenizerError:
    return TokenizerError(
        f"{path} has {tokens} tokens but the embedding has {rows} rows: it is the tokenizer of "
        "another model; pass the right one with --tokenizer"
    )
