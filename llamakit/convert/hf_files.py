"""The small files of a Hugging Face folder: config, generation config and tokenizer."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from llamakit.checkpoint.family_detection import family_of
from llamakit.checkpoint.generation_config import listed_tokens
from llamakit.checkpoint.params import ModelParams
from llamakit.checkpoint.rope_scaling import as_config, default_scaling
from llamakit.convert.conversion_plan import SmallFile
from llamakit.convert.hf_tokenizer_files import (
    TokenizerParts,
    as_json,
    read_parts,
    read_source,
    tokenizer_files,
)
from llamakit.convert.llama4_names import llama4_config
from llamakit.convert.model_kind import model_kind
from llamakit.convert.source_files import GENERATION_CONFIG, copy_of, license_files
from llamakit.protocols import Checkpoint
from llamakit.tokenizer.special_tokens import special_tokens

_SAMPLING = {"do_sample": True, "temperature": 0.6, "top_p": 0.9}
"""As Meta's code samples, and the hub's folders say."""


def hf_files(
    checkpoint: Checkpoint,
    tokenizer: Path | None,
    *,
    instruct: bool | None = None,
    folder: Path | None = None,
    more: Mapping[str, object] = MappingProxyType({}),
) -> tuple[list[SmallFile], str]:
    """Say what a Hugging Face folder has besides the weights and their index.

    The same checkpoint and tokenizer give the same bytes.

    Args:
        checkpoint: what config.json describes.
        tokenizer: a tokenizer.model or a tokenizer.json; what is next to it is copied.
        instruct: whether the model was trained on dialogs; None: what is there decides.
        folder: where its small files are, as ``small_files_of`` gives it; None: its own.
        more: other keys of config.json.
    Returns:
        The files, and a sentence that says whether it is a base or an instruct model.
    Raises:
        TokenizerError: the tokenizer is another model's, or does what no tokenizer.json says.
        FileFormatError: a file next to the tokenizer is damaged.
    """
    source = None if tokenizer is None else read_source(tokenizer)
    kind = model_kind(checkpoint.path, instruct, template=source.template if source else None)
    parts = read_parts(source, checkpoint, instruct=kind.instruct) if source else None
    context, path = context_length(checkpoint), checkpoint.path
    folder = folder or path
    ends = _ends(checkpoint, folder, parts, kind.instruct)
    files = [SmallFile("config.json", as_json({**config(checkpoint), **ends, **more}))]
    generation = folder / GENERATION_CONFIG
    if generation.exists():
        files.append(copy_of(generation, folder))
    else:
        values = as_json({**ends, **_SAMPLING, "max_length": context})
        files.append(SmallFile(GENERATION_CONFIG, values))
    if source is None:
        _log().warning(
            "%s has no tokenizer, so what is written has none; pass one with --tokenizer", path
        )
    else:
        files += tokenizer_files(source, parts, folder, context, kind)
    files += [copy_of(file, path) for file in license_files(path, tokenizer)]
    return files, kind.note


def config(checkpoint: Checkpoint) -> dict[str, object]:
    """Say what a config.json for this checkpoint holds, without the first and last token IDs.

    The settings of the rotary embedding and the dtype have two spellings, that of
    transformers 5 and that of those before.

    Source: transformers ``models/llama/configuration_llama.py``.
    """
    params = checkpoint.params
    dtype = matrix_dtype(checkpoint)
    scaling = rope_scaling(params)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": params.vocab_size,
        "hidden_size": params.dim,
        "intermediate_size": params.hidden_dim,
        "num_hidden_layers": params.n_layers,
        "num_attention_heads": params.n_heads,
        "num_key_value_heads": params.n_kv_heads,
        "head_dim": params.head_dim,
        "max_position_embeddings": context_length(checkpoint),
        "rms_norm_eps": params.norm_eps,
        "rope_parameters": {
            "rope_theta": params.rope_theta,
            **(scaling or {"rope_type": "default"}),
        },
        "rope_theta": params.rope_theta,
        "rope_scaling": scaling,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "pretraining_tp": 1,
        "tie_word_embeddings": params.tied_embeddings,
        "use_cache": True,
        "dtype": dtype,
        "torch_dtype": dtype,
        **llama4_config(params),
    }


def context_length(checkpoint: Checkpoint) -> int:
    """Say how many tokens a model was made for: what its file says, else by its family."""
    return replace(checkpoint.params, family=family_of(checkpoint).name).context


def rope_scaling(params: ModelParams) -> dict[str, object] | None:
    """Say how the rotary frequencies are stretched, or None if they are not.

    A Hugging Face config.json says it in full, a params.json only that it is so.
    """
    factor = {} if params.rope_factor is None else {"factor": params.rope_factor}
    if params.rope_scaling is not None:
        kept = {key: value for key, value in params.rope_scaling.items() if key != "rope_theta"}
        return kept | factor
    return as_config(default_scaling(params)) | factor if params.use_scaled_rope else None


def matrix_dtype(checkpoint: Checkpoint) -> str:
    """Name the dtype that most values have; norms may be finer."""
    counts: Counter[str] = Counter()
    for parameter in checkpoint.parameters.values():
        counts[parameter.dtype] += parameter.numel
    return counts.most_common(1)[0][0]


def _ends(
    checkpoint: Checkpoint, folder: Path, parts: TokenizerParts | None, instruct: bool
) -> dict[str, object]:
    """Name the tokens that begin and end a string: as the source lists them, else its tokenizer."""
    rows = checkpoint.params.vocab_size
    begin, end = (listed_tokens(folder, key, rows) for key in ("bos_token_id", "eos_token_id"))
    bos, stops = (parts.bos, parts.stops) if parts else _usual_ends(checkpoint, instruct)
    stops = end or stops
    return {
        "bos_token_id": begin[0] if begin else bos,
        "eos_token_id": list(stops) if len(stops) > 1 else stops[0],
    }


def _usual_ends(checkpoint: Checkpoint, instruct: bool) -> tuple[int, Sequence[int]]:
    """Return the tokens of a family whose tokenizer is not there."""
    params, family = checkpoint.params, family_of(checkpoint)
    if not family.special_tokens:
        return 1, [2]
    # A vocabulary larger than the family's is padded.
    first = min(params.vocab_size, family.vocabularies.start) - family.special_tokens
    special = special_tokens(first, params.vocab_size, params.use_scaled_rope)
    return first, [first + offset for offset in (special.stops if instruct else [special.eos])]


def _log() -> logging.Logger:
    return logging.getLogger("llamakit")
