"""Llama 4's text model under the names, and in the stacks, that transformers has for it.

Queries and keys keep their rows: transformers pairs neighbours in this family, as Meta does. The
experts of a layer are two stacks there, and the router is transposed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from llamakit.checkpoint.capabilities import raw_regions
from llamakit.checkpoint.checked_read import read_checked
from llamakit.checkpoint.dtypes import Array
from llamakit.checkpoint.hf_names import to_huggingface
from llamakit.checkpoint.layout import expected_shapes
from llamakit.checkpoint.llama4 import Architecture, architecture_of, expert_matrix
from llamakit.checkpoint.params import ModelParams
from llamakit.protocols import Checkpoint, Parameter, RawRegion

_FEED_FORWARD = {
    "w1.weight": "gate_proj.weight",
    "w3.weight": "up_proj.weight",
    "w2.weight": "down_proj.weight",
    "w_in_shared_FD.weight": "shared_expert.gate_proj.weight",
    "w_swiglu_FD.weight": "shared_expert.up_proj.weight",
    "w_out_shared_DF.weight": "shared_expert.down_proj.weight",
}

Read = Callable[[int, int], Array]
"""Reads rows ``start:stop``."""


class Llama4Names:
    """A checkpoint of Llama 4 whose parameters are those of transformers' ``Llama4ForCausalLM``."""

    form = "meta"

    def __init__(self, checkpoint: Checkpoint, architecture: Architecture) -> None:
        self.path, self.params = checkpoint.path, checkpoint.params
        self._checkpoint = checkpoint
        self._plain: dict[str, str] = {}
        self._made: dict[str, Read] = {}
        self.parameters: Mapping[str, Parameter] = self._describe(architecture)

    @property
    def nbytes_read(self) -> int:
        """How many bytes of weights have been read so far."""
        return self._checkpoint.nbytes_read

    def read(self, name: str, *, axis: int = 0, start: int = 0, stop: int | None = None) -> Array:
        """Read one parameter or a slice of it; of what is stacked or transposed, rows."""
        if name in self._plain:
            return read_checked(
                self._checkpoint, self._plain[name], axis=axis, start=start, stop=stop
            )
        assert axis == 0
        return self._made[name](start, self.parameters[name].shape[0] if stop is None else stop)

    def raw_regions(self, name: str) -> list[RawRegion] | None:
        """Say where a parameter is that only has another name."""
        if name not in self._plain:
            return None
        return raw_regions(self._checkpoint, self._checkpoint.parameters[self._plain[name]])

    def _describe(self, architecture: Architecture) -> dict[str, Parameter]:
        described: dict[str, Parameter] = {}
        for name in expected_shapes(self.params):
            stored = self._checkpoint.parameters[name]
            if expert_matrix(name) is not None:
                continue
            if name.endswith(".feed_forward.router_DE"):
                layer = name.split(".")[1]
                for parameter, read in self._of_experts(int(layer), architecture):
                    described[parameter.name] = parameter
                    self._made[parameter.name] = read
                continue
            theirs = _plain_name(name)
            self._plain[theirs] = name
            described[theirs] = Parameter(theirs, stored.shape, stored.dtype, stored.axis)
        return described

    def _of_experts(self, layer: int, architecture: Architecture) -> list[tuple[Parameter, Read]]:
        ours, theirs = f"layers.{layer}.feed_forward.", f"model.layers.{layer}.feed_forward."
        dim, width, count = self.params.dim, architecture.expert_dim, architecture.experts
        dtype = self._checkpoint.parameters[f"{ours}experts.0.moe_w_in_D_F"].dtype
        router = self._checkpoint.parameters[f"{ours}router_DE"].dtype
        gate_up, down = ("moe_w_in_D_F", "moe_w_swiglu_D_F"), ("moe_w_out_F_D",)
        shapes = {"gate_up_proj": (count, dim, 2 * width), "down_proj": (count, width, dim)}
        return [
            (
                Parameter(f"{theirs}router.weight", (count, dim), router, None),
                partial(self._router, f"{ours}router_DE"),
            ),
            *(
                (
                    Parameter(f"{theirs}experts.{name}", shapes[name], dtype, None),
                    partial(self._experts, f"{ours}experts", matrices),
                )
                for name, matrices in (("gate_up_proj", gate_up), ("down_proj", down))
            ),
        ]

    def _router(self, name: str, start: int, stop: int) -> Array:
        """``(dim, E)`` to ``(stop - start, dim)``."""
        whole = read_checked(self._checkpoint, name, axis=1, start=start, stop=stop)
        return np.ascontiguousarray(whole.T)

    def _experts(self, prefix: str, matrices: tuple[str, ...], start: int, stop: int) -> Array:
        """Return some experts, their matrices side by side: ``(stop - start, rows, columns)``."""
        return np.stack(
            [
                np.concatenate(
                    [
                        read_checked(self._checkpoint, f"{prefix}.{expert}.{matrix}")
                        for matrix in matrices
                    ],
                    axis=1,
                )
                for expert in range(start, stop)
            ]
        )


def with_llama4_names(checkpoint: Checkpoint) -> Checkpoint | None:
    """Return a checkpoint of Llama 4 as transformers names it; None for another family."""
    architecture = architecture_of(checkpoint.params)
    return None if architecture is None else Llama4Names(checkpoint, architecture)


def llama4_config(params: ModelParams) -> dict[str, object]:
    """Say what the config.json of a Llama 4 has besides, or otherwise, than that of a Llama.

    Source: transformers ``models/llama4/configuration_llama4.py``.
    """
    architecture = architecture_of(params)
    if architecture is None:
        return {}
    layers = range(params.n_layers)
    return {
        "architectures": ["Llama4ForCausalLM"],
        "model_type": "llama4_text",
        "intermediate_size": architecture.expert_dim,
        "intermediate_size_mlp": params.hidden_dim,
        "num_local_experts": architecture.experts,
        "num_experts_per_tok": architecture.top_k,
        "interleave_moe_layer_step": architecture.moe_step,
        "moe_layers": [layer for layer in layers if architecture.has_experts(layer)],
        "no_rope_layers": [int(architecture.has_rope(layer)) for layer in layers],
        "use_qk_norm": architecture.use_qk_norm,
        "attention_chunk_size": architecture.chunk,
        "attn_temperature_tuning": architecture.tunes_temperature,
        "floor_scale": int(architecture.floor_scale),
        "attn_scale": architecture.attn_scale,
    }


def _plain_name(name: str) -> str:
    head, _, part = name.partition(".feed_forward.")
    if part:
        return f"model.{head}.feed_forward.{_FEED_FORWARD[part]}"
    theirs = to_huggingface(name)
    assert theirs is not None
    return theirs
