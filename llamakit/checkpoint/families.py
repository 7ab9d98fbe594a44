"""How the families of Llama differ, as data: one row each.

Which family a checkpoint is of is decided in ``params``, by its numbers, and in
``family_detection``, by all that there is. What a model computes follows from the numbers and names
in its files; a family fills in what those leave open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CODE_LLAMA_THETA = 1e6


@dataclass(frozen=True)
class RopeScaling:
    """How the frequencies of the rotary embedding are scaled for longer sequences.

    Source: ``apply_scaling`` in the ``models/llama3/model.py`` of Meta's llama-models, and
    transformers' ``modeling_rope_utils.py``.
    """

    rope_type: Literal["llama3", "linear", "dynamic"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192
    """In tokens: what the model was trained for before."""


@dataclass(frozen=True)
class Family:
    """What the files of one family of Llama leave open."""

    name: str
    embedding_axis: int
    """The axis on which Meta's format splits ``tok_embeddings.weight``."""
    context: int
    """How many tokens a model was made for."""
    rope_theta: float
    vocabularies: range
    """The sizes that a vocabulary has, with room for the tokens that finetunes add."""
    special_tokens: int = 0
    """How many tokens follow those in a tiktoken file, which does not list them."""
    scaled_context: int | None = None
    """Instead of ``context`` with ``use_scaled_rope``."""
    scaling: RopeScaling | None = None
    """What ``use_scaled_rope`` means where no file says a factor."""


LLAMA_2 = Family(
    name="llama 1/2",
    embedding_axis=1,
    context=4096,
    rope_theta=10000.0,
    vocabularies=range(32000, 33000),
)
CODE_LLAMA = Family(
    name="code llama",
    embedding_axis=1,
    context=16384,
    rope_theta=CODE_LLAMA_THETA,
    vocabularies=LLAMA_2.vocabularies,
)
LLAMA_3 = Family(
    name="llama 3",
    embedding_axis=0,
    context=8192,
    rope_theta=500000.0,
    vocabularies=range(128256, 130000),
    special_tokens=256,
    scaled_context=131072,
    scaling=RopeScaling("llama3", factor=8.0),
)
LLAMA_4 = Family(
    name="llama 4",
    embedding_axis=0,
    context=262144,
    rope_theta=500000.0,
    vocabularies=range(202048, 204000),
    special_tokens=2048,
    scaling=RopeScaling("llama3", factor=16.0, high_freq_factor=1.0),
)

FAMILIES = {family.name: family for family in (LLAMA_2, CODE_LLAMA, LLAMA_3, LLAMA_4)}

LLAMA_3_2_FACTOR = 32.0
LLAMA_3_2_SHAPES = ((2048, 16, 32, 8), (3072, 28, 24, 8))
"""``dim``, ``n_layers``, ``n_heads`` and ``n_kv_heads`` of Llama 3.2 1B and 3B.

Their factor is 32, although Meta's own code computes with 8, and no file says either: the answers
break down at about 80,000 tokens with 8 (meta-llama/llama-models#166, #241)."""
WIDEST_TIED = 3072
"""No model of Meta's that is wider uses the embedding as its output layer."""
