"""The tokenizer of a Hugging Face folder: what its source has, and what is made for it.

A fine-tune's own files are copied. What is not there is made of the tokenizer.model: see
``hf_tokenizer`` for SentencePiece and ``hf_rank_tokenizer`` for tiktoken ranks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamakit.convert.conversion_plan import SmallFile
from llamakit.convert.hf_rank_tokenizer import RankParts
from llamakit.convert.hf_tokenizer import SentencePieceParts
from llamakit.convert.model_kind import ModelKind
from llamakit.convert.sentencepiece_model import read_sentencepiece_model
from llamakit.convert.source_files import (
    SPECIAL_TOKENS_MAP,
    TEMPLATES,
    TOKENIZER,
    TOKENIZER_CONFIG,
    TOKENIZER_JSON,
    copy_of,
    tokenizer_companions,
)
from llamakit.errors import FileFormatError, TokenizerError
from llamakit.files.json_reader import read_json_file
from llamakit.files.tokenizer_kind import tokenizer_kind
from llamakit.protocols import Checkpoint
from llamakit.tokenizer import rank_tokenizer, sentencepiece, tokenizer_json
from llamakit.tokenizer.added_tokens import read_added_tokens

TokenizerParts = RankParts | SentencePieceParts
"""What the files are made of."""


@dataclass(frozen=True)
class TokenizerSource:
    """A tokenizer and the files next to it.

    Args:
        path: a tokenizer.model, or a tokenizer.json where there is none.
        companions: by name; a tokenizer.json too.
        config: what the tokenizer_config.json says; empty if there is none.
        template: the file with a chat template.
    """

    path: Path
    companions: Mapping[str, Path]
    config: Mapping[str, Any]
    template: str | None

    @property
    def model(self) -> Path | None:
        """The SentencePiece model, if it is one or one is next to it."""
        is_json = self.path.suffix == ".json"
        model = self.path.with_name(TOKENIZER) if is_json else self.path
        return None if not model.exists() or tokenizer_kind(model) == "ranks" else model


def read_source(path: Path) -> TokenizerSource:
    """Find what is next to a tokenizer.

    Raises:
        TokenizerError: there is no such file.
        FileFormatError: its tokenizer_config.json is no JSON object.
    """
    if not path.exists():
        raise TokenizerError(f"no such tokenizer file: {path}; pass one with --tokenizer")
    companions = {file.name: file for file in tokenizer_companions(path.parent)}
    if path.suffix == ".json":
        companions[TOKENIZER_JSON] = path
    config = read_json_file(companions[TOKENIZER_CONFIG]) if TOKENIZER_CONFIG in companions else {}
    if not isinstance(config, dict):
        raise FileFormatError(f"{companions[TOKENIZER_CONFIG]}: expected a JSON object")
    template = next((name for name in TEMPLATES if name in companions), None)
    if template is None and config.get("chat_template"):
        template = TOKENIZER_CONFIG
    return TokenizerSource(path, companions, config, template)


def read_parts(
    source: TokenizerSource, checkpoint: Checkpoint, *, instruct: bool
) -> TokenizerParts | None:
    """Work out the files of a tokenizer; None for a tokenizer.json of another kind than Llama 3's.

    Raises:
        TokenizerError: the tokenizer is another model's, or does what no tokenizer.json says.
    """
    if source.model is not None:
        return _sentencepiece_parts(source.model, checkpoint)
    try:
        is_json = source.path.suffix == ".json"
        ranks = tokenizer_json.load(source.path) if is_json else rank_tokenizer.load(source.path)
    except TokenizerError:
        if not is_json:
            raise
        return None
    assert ranks is not None
    return RankParts(ranks.for_model(checkpoint.params), instruct=instruct)


def _sentencepiece_parts(path: Path, checkpoint: Checkpoint) -> SentencePieceParts:
    sentencepiece.load(path)  # what SentencePiece itself does not load is refused in its words
    model = read_sentencepiece_model(path)
    rows = checkpoint.params.vocab_size
    if len(model.pieces) > rows:
        raise TokenizerError(
            f"{path} has {len(model.pieces)} tokens but the embedding of {checkpoint.path} has "
            f"{rows} rows: it is the tokenizer of another model; pass the right one with "
            "--tokenizer"
        )
    return SentencePieceParts(model, read_added_tokens(path.parent, len(model.pieces)))


def tokenizer_files(
    source: TokenizerSource,
    parts: TokenizerParts | None,
    checkpoint: Path,
    context: int,
    kind: ModelKind,
) -> list[SmallFile]:
    """Say which files of the tokenizer a Hugging Face folder has.

    Args:
        parts: as ``read_parts`` returns them.
        checkpoint: its folder.
        context: how many tokens the model was made for.
        kind: of the model; one that takes dialogs gets a chat template, unless the source has one.
    """
    files = {name: copy_of(file, checkpoint, name) for name, file in source.companions.items()}
    if source.model is not None:
        files[TOKENIZER] = copy_of(source.model, checkpoint, TOKENIZER)
    if parts is None:
        return list(files.values())
    config = dict(source.config)
    if TOKENIZER_JSON not in files:
        files[TOKENIZER_JSON] = SmallFile(TOKENIZER_JSON, parts.tokenizer_json())
        config = {**parts.config(context), **config, **_CLASS}
    config = config or parts.config(context)
    if kind.has_template and source.template is None:
        config["chat_template"] = parts.template
    if config != source.config:
        files[TOKENIZER_CONFIG] = SmallFile(TOKENIZER_CONFIG, as_json(config))
    if not source.config and SPECIAL_TOKENS_MAP not in files:
        special = as_json(parts.special_tokens_map())
        files[SPECIAL_TOKENS_MAP] = SmallFile(SPECIAL_TOKENS_MAP, special)
    return list(files.values())


def as_json(values: Mapping[str, object]) -> bytes:
    """Write a small JSON file."""
    return (json.dumps(values, ensure_ascii=False, indent=2) + "\n").encode()


_CLASS = {"tokenizer_class": "PreTrainedTokenizerFast"}
"""The one that takes a tokenizer.json as it is."""
