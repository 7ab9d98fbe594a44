"""params.json: the numbers that a Meta checkpoint is built by."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llamakit.checkpoint.families import CODE_LLAMA, FAMILIES, LLAMA_2, LLAMA_3, LLAMA_4, Family
from llamakit.checkpoint.foreign_params import check_is_llama, describe_foreign_keys
from llamakit.checkpoint.json_fields import Fields, read_json
from llamakit.errors import ParamsError
from llamakit.printable import listed

_KNOWN = frozenset(
    {"dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "multiple_of", "ffn_dim_multiplier"}
    | {"norm_eps", "rope_theta", "use_scaled_rope", "rope_scaling_factor", "max_seq_len"}
    | {"hidden_dim", "head_dim"}  # of Mistral's params.json
)
_CARRIED = frozenset(
    {"max_batch_size"}  # of no use here, written back as it was
    | {"ffn_exp", "moe_args", "nope_layer_interval", "attention_chunk_size", "use_qk_norm"}
    | {"attn_temperature_tuning", "floor_scale", "attn_scale", "rope_high_freq_factor"}
)
"""Known, and kept in ``extra``: those of Llama 4 are read by ``llama4``."""

_LLAMA_4_KEYS = frozenset({"moe_args", "nope_layer_interval", "attention_chunk_size"})
_MAX_LAYERS = 4096
_MAX_HEADS = 1 << 16
"""405B has 126 layers and 128 heads."""

_META_FEED_FORWARDS = (
    (256, None), (4096, 1.3), (1024, 1.3), (4096, 1.2), (256, 1.5), (32, None),
)  # fmt: skip
"""The pairs ``multiple_of``, ``ffn_dim_multiplier`` that Meta's models have."""


@dataclass(frozen=True)
class ModelParams:
    """The shape of a model, every number resolved.

    A checkpoint of one's own makes it by keyword, ``ModelParams(dim=64, n_layers=2, …)``, from
    ``llamakit.checkpoint.params``: the attributes up to ``hidden_dim`` have to be given, the
    others have a default.
    """

    dim: int
    """Width of the residual stream, in values."""
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    hidden_dim: int
    """Width of the feed-forward layers, in values."""
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    multiple_of: int | None = None
    """None: the file gives ``hidden_dim`` itself, or there was no file."""
    ffn_dim_multiplier: float | None = None
    use_scaled_rope: bool = False
    rope_factor: float | None = None
    """How far RoPE is scaled, where a params.json or the user says so."""
    max_seq_len: int | None = None
    """In tokens; most params.json do not say."""
    tied_embeddings: bool = False
    """The output layer is the embedding, transposed."""
    rope_scaling: Mapping[str, object] | None = field(default=None, hash=False)
    """As a Hugging Face config.json has it."""
    family: str | None = None
    """Which Llama it is, as ``families`` calls it; None: its numbers decide."""
    extra: Mapping[str, object] = field(default_factory=dict, hash=False)
    """Keys of params.json that nothing here reads, verbatim."""

    @property
    def head_dim(self) -> int:
        """Values in one attention head."""
        return self.dim // self.n_heads

    @property
    def context(self) -> int:
        """How many tokens the model was made for: what the file says, else by its family."""
        if self.max_seq_len is not None:
            return self.max_seq_len
        family = family_by_numbers(self)
        return (self.use_scaled_rope and family.scaled_context) or family.context


def family_by_numbers(params: ModelParams, evidence: int = 0) -> Family:
    """Return the family that the params name, or else the one that their numbers show.

    Args:
        evidence: what else there is: for Llama 3 if positive, for Llama 2 if negative. A number
            counts 1 or 2.
    """
    if params.family in FAMILIES:
        return FAMILIES[params.family]
    if _LLAMA_4_KEYS & set(params.extra):
        return LLAMA_4
    evidence += 2 * (params.vocab_size in LLAMA_3.vocabularies)
    evidence -= 2 * (params.vocab_size in LLAMA_2.vocabularies)
    evidence += 2 * params.use_scaled_rope + (params.rope_theta == LLAMA_3.rope_theta)
    if evidence > 0:
        return LLAMA_3
    return CODE_LLAMA if params.rope_theta == CODE_LLAMA.rope_theta else LLAMA_2


def hidden_dim(dim: int, multiple_of: int, ffn_dim_multiplier: float | None = None) -> int:
    """Work out the width of the feed-forward layers.

    Args:
        dim: width of the residual stream, in values.
        multiple_of: the result is rounded up to a multiple of this.
        ffn_dim_multiplier: an extra factor that 70B and later models have.
    Source: the reference's ``llama/model.py``, ``FeedForward.__init__``.
    """
    hidden = int(2 * 4 * dim / 3)
    if ffn_dim_multiplier is not None:
        hidden = int(ffn_dim_multiplier * hidden)
    return multiple_of * ((hidden + multiple_of - 1) // multiple_of)


def read_params(path: Path) -> Mapping[str, object]:
    """Read a params.json; one that holds everything below a key ``model`` is unwrapped.

    The original Llama Guard's and those that fairseq2 writes do so.

    Raises:
        ParamsError: it is absent, an error page, not JSON or not an object.
    """
    values = read_json(path)
    nested = values.get("model")
    return nested if "dim" not in values and isinstance(nested, dict) else values


def parse_params(
    values: Mapping[str, object], path: Path, *, vocab_size: int | None = None
) -> ModelParams:
    """Check the values of a params.json and resolve what it leaves open.

    Keys that nothing here reads are kept in ``extra`` and named in one warning.

    Args:
        values: what ``read_params`` returned.
        path: the file that they are from, for messages.
        vocab_size: rows of the output layer, for a file that says -1 or nothing.

    Raises:
        ParamsError: a key is missing, or a value is of a wrong type or out of range.
        UnsupportedModelError: it is a Mistral with parts that no Llama has.
    """
    if problem := describe_foreign_keys(values):
        raise ParamsError(f"{path} {problem}")
    fields = Fields(values, path)
    dim, multiple_of = fields.count("dim"), fields.optional_count("multiple_of") or 256
    n_heads, multiplier = fields.count("n_heads"), fields.optional_number("ffn_dim_multiplier")
    hidden = fields.optional_count("hidden_dim")  # Mistral's; Meta's files give what implies it
    params = ModelParams(
        dim=dim,
        n_layers=fields.count("n_layers"),
        n_heads=n_heads,
        n_kv_heads=fields.optional_count("n_kv_heads") or n_heads,
        vocab_size=_vocab_size(values, fields, path, vocab_size),
        hidden_dim=hidden or hidden_dim(dim, multiple_of, multiplier),
        norm_eps=_norm_eps(fields, path),
        rope_theta=fields.optional_number("rope_theta") or 10000.0,
        multiple_of=None if hidden else multiple_of,
        ffn_dim_multiplier=multiplier,
        use_scaled_rope=fields.flag("use_scaled_rope", False),
        rope_factor=fields.optional_number("rope_scaling_factor"),
        max_seq_len=fields.optional_count("max_seq_len"),
        extra={key: value for key, value in values.items() if key not in _KNOWN},
    )
    check_heads(params, path)
    check_is_llama(values, params.head_dim, path)
    _name_unknown_keys(params, path)
    return params


def check_heads(params: ModelParams, path: Path) -> None:
    """Check that the numbers fit one another.

    Raises:
        ParamsError: the heads do not divide, or a number is absurd.
    """
    is_absurd = params.n_layers > _MAX_LAYERS or params.n_heads > _MAX_HEADS
    if is_absurd or params.hidden_dim < 1:
        raise ParamsError(
            f"{path}: no model has {params.n_layers} layers of {params.n_heads} heads and "
            f"feed-forward layers {params.hidden_dim} wide; copy the file "
            "again from where the weights are."
        )
    for name, whole, part in (
        ("width", params.dim, params.n_heads),
        ("attention heads", params.n_heads, params.n_kv_heads),
    ):
        if whole % part:
            into = "heads" if name == "width" else "key/value heads"
            raise ParamsError(
                f"{path}: {whole} ({name}) does not divide by {part} ({into}); "
                "copy the file again from where the weights are."
            )


def to_meta_json(params: ModelParams) -> dict[str, object]:
    """Say what a params.json for this model holds, unknown keys included.

    What is at its default is left out where Meta leaves it out: the reference passes every key to
    ``ModelArgs``, and Llama 2's knows fewer of them. A model whose file did not say how wide its
    feed-forward layers are gets a ``multiple_of`` and multiplier that give that width.
    """
    multiple_of, multiplier = params.multiple_of, params.ffn_dim_multiplier
    if multiple_of is None:
        multiple_of, multiplier = feed_forward_keys(params.dim, params.hidden_dim)
    values: dict[str, object] = {
        "dim": params.dim,
        "n_layers": params.n_layers,
        "n_heads": params.n_heads,
        "n_kv_heads": params.n_kv_heads if params.n_kv_heads != params.n_heads else None,
        "vocab_size": params.vocab_size,
        "multiple_of": multiple_of,
        "ffn_dim_multiplier": multiplier,
        "norm_eps": params.norm_eps,
        "rope_theta": params.rope_theta if params.rope_theta != 10000.0 else None,
        "use_scaled_rope": params.use_scaled_rope or None,
        "rope_scaling_factor": params.rope_factor,
        "max_seq_len": params.max_seq_len,
    }
    return {key: value for key, value in values.items() if value is not None} | dict(params.extra)


def feed_forward_keys(dim: int, hidden: int) -> tuple[int, float | None]:
    """Find a ``multiple_of`` and an ``ffn_dim_multiplier`` that give a width; Meta's, if any do.

    Args:
        dim: width of the residual stream, in values.
        hidden: width of the feed-forward layers, in values.
    """
    for multiple_of, multiplier in _META_FEED_FORWARDS:
        if hidden_dim(dim, multiple_of, multiplier) == hidden:
            return multiple_of, multiplier
    # The half keeps the truncation that follows off the next lower integer.
    return 1, (hidden + 0.5) / int(2 * 4 * dim / 3)


def _vocab_size(values: Mapping[str, object], fields: Fields, path: Path, found: int | None) -> int:
    said = None if values.get("vocab_size") == -1 else fields.optional_count("vocab_size")
    resolved = said or found
    if resolved is None:
        raise ParamsError(
            f"{path} leaves 'vocab_size' open and no output.weight says it; "
            "add it to the file, or bring the shards that hold it."
        )
    return resolved


def _norm_eps(fields: Fields, path: Path) -> float:
    eps = fields.optional_number("norm_eps")
    if eps is None:
        # Nothing else in a checkpoint shows this number, so a wrong guess must not be silent.
        _log().warning("%s has no 'norm_eps'; 1e-05 is taken, as the reference does", path)
    return eps or 1e-5


def _name_unknown_keys(params: ModelParams, path: Path) -> None:
    unknown = sorted(key for key in params.extra if key not in _CARRIED)
    if unknown:
        _log().warning(
            "%s: kept, but of no effect here: %s", path, listed([repr(name) for name in unknown])
        )


def _log() -> logging.Logger:
    return logging.getLogger("llamakit")
