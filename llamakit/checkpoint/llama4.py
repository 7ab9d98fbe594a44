"""Llama 4's text model: what its params.json adds, and how its files name and stack parameters.

Meta's files stack several matrices in one tensor: queries, keys and values; gate and up
projections; the experts of a layer. Each shard stacks its slices, so a tensor of several shards is
no concatenation of them. Here each matrix is a parameter of its own, a block of rows of the stack.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llamakit.checkpoint.families import LLAMA_4
from llamakit.checkpoint.file_layout import TensorSpec
from llamakit.checkpoint.json_fields import Fields
from llamakit.checkpoint.params import ModelParams
from llamakit.checkpoint.tensor_file import StoredTensor

_ATTENTION = ("attention.wq.weight", "attention.wk.weight", "attention.wv.weight")
_WQKV, _FC1 = "attention.wqkv.weight", "feed_forward.mlp.fc1_weight"
_RENAMED = {
    "attention.wqkv.layer_norm_weight": "attention_norm.weight",
    "feed_forward.norm.weight": "ffn_norm.weight",
    "feed_forward.mlp.layer_norm_weight": "ffn_norm.weight",
    "feed_forward.mlp.fc2_weight": "feed_forward.w2.weight",
}
_STORED = {
    **dict.fromkeys(_ATTENTION, _WQKV),
    "attention_norm.weight": "attention.wqkv.layer_norm_weight",
    **dict.fromkeys(("feed_forward.w1.weight", "feed_forward.w3.weight"), _FC1),
    "feed_forward.w2.weight": "feed_forward.mlp.fc2_weight",
    "ffn_norm.weight": "feed_forward.mlp.layer_norm_weight",
}
_STORED_WITH_EXPERTS = {"ffn_norm.weight": "feed_forward.norm.weight"}
_STACKS = {
    "feed_forward.experts.moe_w_in_eD_F": "moe_w_in_D_F",
    "feed_forward.experts.moe_w_swiglu_eD_F": "moe_w_swiglu_D_F",
    "feed_forward.experts.moe_w_out_eF_D": "moe_w_out_F_D",
}
"""Meta's name of the experts' matrices, and of one of them."""
_LAYER = re.compile(r"(layers\.[0-9]+\.)(.+)")
_EXPERT = re.compile(r"(layers\.[0-9]+\.feed_forward\.experts\.)[0-9]+\.(.+)")
_NOT_TEXT = re.compile(
    r".*\._?extra_state|.*\.(global_gate_stats_3E|running_gate_stats_3E|expert_activation_DE)"
)
"""State of the quantization, and statistics of the training."""


@dataclass(frozen=True)
class Architecture:
    """How the text model of Llama 4 differs from Llama 3.

    Source: ``models/llama4/args.py``, ``model.py`` and ``moe.py`` of Meta's llama-models.
    """

    experts: int
    top_k: int
    """How many experts a token goes to."""
    expert_dim: int
    """Width of an expert's feed-forward layer, and of the shared one's, in values."""
    moe_step: int
    """Every so many layers has experts; the others have a plain feed-forward layer."""
    nope_interval: int | None
    """Every so many layers has no rotary embedding, and attends to everything."""
    chunk: int | None
    """The other layers attend within chunks of so many tokens."""
    use_qk_norm: bool
    """Queries and keys are normalized after the rotary embedding."""
    tunes_temperature: bool
    """Queries of the layers without rotary embedding grow with the position."""
    floor_scale: float
    attn_scale: float

    def has_experts(self, layer: int) -> bool:
        """Tell whether a layer has experts."""
        return (layer + 1) % self.moe_step == 0

    def has_rope(self, layer: int) -> bool:
        """Tell whether a layer has the rotary embedding."""
        return self.nope_interval is None or (layer + 1) % self.nope_interval != 0


def architecture_of(params: ModelParams) -> Architecture | None:
    """Return what a params.json of Llama 4 adds; None for another family.

    Raises:
        ParamsError: a value is of a wrong type or out of range.
    """
    if params.family != LLAMA_4.name:
        return None
    fields = Fields(params.extra, Path("params.json"))
    moe = Fields(fields.optional_mapping("moe_args") or {}, Path("params.json: moe_args"))
    return Architecture(
        experts=moe.count("num_experts"),
        top_k=moe.optional_count("top_k") or 1,
        expert_dim=_expert_dim(params, fields, moe),
        moe_step=moe.optional_count("interleave_moe_layer_step") or 1,
        nope_interval=fields.optional_count("nope_layer_interval"),
        chunk=fields.optional_count("attention_chunk_size"),
        use_qk_norm=fields.flag("use_qk_norm", False),
        tunes_temperature=fields.flag("attn_temperature_tuning", False),
        floor_scale=fields.optional_number("floor_scale") or 8192.0,
        attn_scale=fields.optional_number("attn_scale") or 0.1,
    )


def _expert_dim(params: ModelParams, fields: Fields, moe: Fields) -> int:
    """Work out the width of an expert. Source: ``MoE.__init__`` in ``models/llama4/moe.py``."""
    width = int(2 * int((fields.optional_number("ffn_exp") or 4.0) * params.dim) / 3)
    width = int((params.ffn_dim_multiplier or 1.0) * width)
    if moe.flag("auto_scale_F", True):
        width = int(width / ((moe.optional_number("capacity_factor") or 1.0) + 1))
    multiple_of = params.multiple_of or 1
    return multiple_of * -(-width // multiple_of)


def layer_shapes(
    params: ModelParams, architecture: Architecture, layer: int
) -> dict[str, tuple[int, ...]]:
    """Return the whole shapes of a layer's parameters, by their names within the layer."""
    dim, hidden, width = params.dim, params.hidden_dim, architecture.expert_dim
    key_rows = params.n_kv_heads * params.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "attention.wq.weight": (dim, dim),
        "attention.wk.weight": (key_rows, dim),
        "attention.wv.weight": (key_rows, dim),
        "attention.wo.weight": (dim, dim),
    }
    if not architecture.has_experts(layer):
        shapes |= {
            "feed_forward.w1.weight": (hidden, dim),
            "feed_forward.w3.weight": (hidden, dim),
            "feed_forward.w2.weight": (dim, hidden),
        }
    else:
        shapes["feed_forward.router_DE"] = (dim, architecture.experts)
        for stack, rows in (("w_in_D", dim), ("w_swiglu_D", dim), ("w_out_F", width)):
            one = f"moe_{stack}_{'D' if stack == 'w_out_F' else 'F'}"
            shapes |= {
                f"feed_forward.experts.{expert}.{one}": (rows, dim + width - rows)
                for expert in range(architecture.experts)
            }
        shapes |= {
            "feed_forward.w_in_shared_FD.weight": (width, dim),
            "feed_forward.w_swiglu_FD.weight": (width, dim),
            "feed_forward.w_out_shared_DF.weight": (dim, width),
        }
    return shapes | {"attention_norm.weight": (dim,), "ffn_norm.weight": (dim,)}


AXES: dict[str, int] = {
    "feed_forward.w_in_shared_FD.weight": 0,
    "feed_forward.w_swiglu_FD.weight": 0,
    "feed_forward.w_out_shared_DF.weight": 1,
    "moe_w_in_D_F": 1,
    "moe_w_swiglu_D_F": 1,
    "moe_w_out_F_D": 0,
}
"""The axis on which each is split, by its name within the layer or the expert."""


def expert_matrix(name: str) -> str | None:
    """Return which matrix of an expert a parameter is, as ``AXES`` names it; None: of none."""
    match = _EXPERT.fullmatch(name)
    return match[2] if match else None


def unstack(
    tensors: Mapping[str, StoredTensor], params: ModelParams, size: int
) -> dict[str, StoredTensor]:
    """Return the parameters of one shard, each a block of what the file holds.

    Args:
        tensors: of the file, by Meta's names.
        size: how many shards there are.
    Returns:
        What is no stack of this model's shape is kept under its own name.
    """
    unstacked: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        if _NOT_TEXT.fullmatch(name):
            continue
        blocks = list(_blocks(name, params, size))
        if not blocks or tensor.shape[:1] != (sum(rows for _, rows in blocks),):
            unstacked[_renamed(name)] = tensor
            continue
        start = 0
        for block, rows in blocks:
            unstacked[block] = tensor.narrow(0, start, start + rows)
            start += rows
    return unstacked


def stack(tensors: Sequence[TensorSpec], params: ModelParams) -> list[TensorSpec]:
    """Return the tensors of a file as Meta names and stacks them.

    Args:
        tensors: the parameters of one shard; the blocks of a stack follow one another.
    """
    stacked: dict[str, TensorSpec] = {}
    for tensor in tensors:
        name = _stored_name(tensor.name, params)
        above = stacked[name].shape[0] if name in stacked else 0
        shape = (above + tensor.shape[0], *tensor.shape[1:]) if above else tensor.shape
        stacked[name] = replace(tensor, name=name, shape=shape)
    return list(stacked.values())


def in_stack_order(names: Sequence[str], params: ModelParams) -> list[str]:
    """Return the names of parameters with the blocks of each stack next to one another."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_stored_name(name, params), []).append(name)
    return [name for group in groups.values() for name in group]


def _blocks(name: str, params: ModelParams, size: int) -> Iterator[tuple[str, int]]:
    """Yield the parameters that a tensor stacks, and the rows of each in one shard."""
    architecture = architecture_of(params)
    match = _LAYER.fullmatch(name)
    if match is None or architecture is None:
        return
    layer, part = match.groups()
    if part == _WQKV:
        heads = (params.n_heads // size, *[max(1, params.n_kv_heads // size)] * 2)
        for block, count in zip(_ATTENTION, heads, strict=True):
            yield layer + block, count * params.head_dim
    elif part == _FC1:
        for block in ("feed_forward.w1.weight", "feed_forward.w3.weight"):
            yield layer + block, params.hidden_dim // size
    elif part in _STACKS:
        rows = architecture.expert_dim // size if part.endswith("eF_D") else params.dim
        for expert in range(architecture.experts):
            yield f"{layer}feed_forward.experts.{expert}.{_STACKS[part]}", rows


def _renamed(name: str) -> str:
    match = _LAYER.fullmatch(name)
    return match[1] + _RENAMED.get(match[2], match[2]) if match else name


def _stored_name(name: str, params: ModelParams) -> str:
    """Return the name of the tensor in Meta's files that holds a parameter, or stacks it."""
    layer, architecture = _LAYER.fullmatch(name), architecture_of(params)
    if layer is None or architecture is None:
        return name
    if expert := _EXPERT.fullmatch(name):
        return layer[1] + next(stack for stack, one in _STACKS.items() if one == expert[2])
    has_experts = architecture.has_experts(int(layer[1].split(".")[1]))
    stored = _STORED | (_STORED_WITH_EXPERTS if has_experts else {})
    return layer[1] + stored.get(layer[2], layer[2])
