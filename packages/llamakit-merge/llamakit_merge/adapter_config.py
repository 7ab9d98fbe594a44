"""What an adapter_config.json says of how an adapter is merged.

Source: ``LoraConfig`` in PEFT's ``tuners/lora/config.py``, ``get_pattern_key`` in its
``utils/other.py``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llamakit import LlamakitError
from llamakit.errors import InvalidJSONError
from llamakit.files.json_reader import read_json_file

CONFIG = "adapter_config.json"

_MERGED: dict[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "trainable_token_indices": (None, []),
    "target_parameters": (None, []),
    "alora_invocation_tokens": (None, []),
    "layer_replication": (None, []),
    # The other ways to begin change the weights of the model too.
    "init_lora_weights": (True, False, None, "gaussian", "orthogonal", "eva"),
}
"""What the config of an adapter that is merged here says, where it says anything."""
_HARMLESS = ("use_rslora", "use_dora", "eva_config", "runtime_config")
"""Of the keys that switch variants of LoRA on, ``use_…`` and ``…_config``, those known here."""
_PATTERN = re.compile(r"[\w.^$|()\[\]\\*+?-]{1,200}")
_CHOICES = re.compile(r"[*+?(]")
_MAX_CHOICES = 2
"""More of ``*``, ``+``, ``?`` and ``(a|b)`` in one pattern could take a time that explodes."""
_MAX_PATTERNS, _MAX_CHOOSING = 10_000, 32
"""Of all patterns, a name of a module each as a rule, and of those with choices."""


@dataclass(frozen=True)
class AdapterConfig:
    """How the factors of an adapter become a difference."""

    alpha: float
    is_rslora: bool = False
    """The product is divided by the root of the rank, not by the rank."""
    alphas: Mapping[re.Pattern[str], float] = field(default_factory=dict)
    """Another alpha for modules whose name ends in a match of the pattern."""
    rank: float | None = None
    """Of the factors; None where nothing says it."""
    ranks: Mapping[re.Pattern[str], float] = field(default_factory=dict)
    """Another rank for modules, as ``alphas``."""
    trained_whole: tuple[str, ...] = ()
    """Modules that were trained as copies, by the end of their names."""
    keeps_tied: bool = False

    def scale(self, module: str, rank: int) -> float:
        """Return what the product of a module's factors is multiplied by.

        Args:
            module: its name, such as ``model.layers.0.self_attn.q_proj``.
            rank: of its factors.
        """
        alpha = next(_matches(self.alphas, module), self.alpha)
        return alpha / (math.sqrt(rank) if self.is_rslora else rank)

    def rank_of(self, module: str) -> float | None:
        """Return the rank that the factors of a module should have, if anything says it."""
        return next(_matches(self.ranks, module), self.rank)

    def is_trained_whole(self, module: str) -> bool:
        """Tell whether a module was trained as a copy of its own."""
        return any(module == end or module.endswith(f".{end}") for end in self.trained_whole)


def read_adapter_config(path: Path) -> AdapterConfig:
    """Read an adapter_config.json.

    Raises:
        LlamakitError: it cannot be read, or is of an adapter of another kind.
    """
    values = _read(path)
    for key, value in values.items():
        if not _is_merged(key, value):
            raise LlamakitError(
                f"{path}: {key!r:.80} is {value!r:.80}, and adapters of this kind are not merged "
                "here. Merge it with PEFT's merge_and_unload, and import the result."
            )
    modules = values.get("modules_to_save") or []
    if not isinstance(modules, list) or not all(isinstance(module, str) for module in modules):
        raise _refusal(path, f"'modules_to_save' is {modules!r:.80}")
    return AdapterConfig(
        _number(path, "lora_alpha", values.get("lora_alpha")),
        values.get("use_rslora") is True,
        _patterns(path, "alpha_pattern", values.get("alpha_pattern") or {}),
        _number(path, "r", values["r"]) if "r" in values else None,
        _patterns(path, "rank_pattern", values.get("rank_pattern") or {}),
        tuple(modules),
        values.get("ensure_weight_tying") is True,
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        values = read_json_file(path)
    except (OSError, InvalidJSONError) as error:
        raise _refusal(path, str(error)) from None
    if not isinstance(values, dict):
        raise _refusal(path, f"it is {type(values).__name__}, not an object")
    return values


def _refusal(path: Path, reason: str) -> LlamakitError:
    return LlamakitError(
        f"{path} is not the config of a LoRA adapter ({reason}); expected the folder that PEFT or "
        f"torchtune saved, with {CONFIG} and adapter_model.safetensors."
    )


def _is_merged(key: str, value: object) -> bool:
    if key in _MERGED:
        return value in _MERGED[key]
    is_variant = key.startswith("use_") or key.endswith("_config")
    return not value or not is_variant or key in _HARMLESS


def _number(path: Path, key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refusal(path, f"{key!r:.80} is {value!r:.80}, no number")
    return float(value)


def _matches(values: Mapping[re.Pattern[str], float], module: str) -> Iterator[float]:
    return (value for pattern, value in values.items() if pattern.match(module))


def _patterns(path: Path, key: str, values: object) -> dict[re.Pattern[str], float]:
    """Read the patterns of modules that have an alpha or a rank of their own."""
    if not isinstance(values, dict) or len(values) > _MAX_PATTERNS:
        raise _refusal(path, f"{key!r} is {values!r:.80}")
    choosing = [pattern for pattern in values if _CHOICES.search(pattern)]
    if len(choosing) > _MAX_CHOOSING:
        raise _refusal(path, f"{key!r} has {len(choosing)} patterns with choices in them")
    return {_compiled(path, key, it): _number(path, it, value) for it, value in values.items()}


def _compiled(path: Path, key: str, pattern: str) -> re.Pattern[str]:
    """Refuse a regular expression that could take forever: a file of others says it."""
    is_simple = (
        _PATTERN.fullmatch(pattern)
        and len(_CHOICES.findall(pattern)) <= _MAX_CHOICES
        and not re.search(r"\)[*+?]", pattern)
    )
    try:
        if is_simple:
            return re.compile(rf"(.*\.)?({pattern})$")
    except re.error:
        pass
    raise _refusal(path, f"{key!r} has the pattern {pattern!r:.80}, which is not read here")
