"""Whose names the tensors of a file have, and the prefixes that training tools put before them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from llamakit.checkpoint.hf_names import to_meta
from llamakit.checkpoint.layout import is_parameter_name
from llamakit.errors import ParametersError
from llamakit.printable import printable

Style = Literal["meta", "huggingface", "torchtune", "fairseq2"]
AUTOMATIC = ""

_WRAPPERS = {
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FSDP",
    "_checkpoint_wrapped_module": "activation checkpointing",
    "_fpw_module": "fairscale's FSDP",
    "module": "DataParallel, DDP or DeepSpeed",
}
"""What training tools put into names, before them or between their parts, and who does."""
_DEEPEST = 6
_LAYER = re.compile(r"layers\.([0-9]+)\.(.+)")
_TORCHTUNE = {
    "attn.q_proj.weight": "attention.wq.weight",
    "attn.k_proj.weight": "attention.wk.weight",
    "attn.v_proj.weight": "attention.wv.weight",
    "attn.output_proj.weight": "attention.wo.weight",
    "mlp.w1.weight": "feed_forward.w1.weight",
    "mlp.w2.weight": "feed_forward.w2.weight",
    "mlp.w3.weight": "feed_forward.w3.weight",
    "sa_norm.scale": "attention_norm.weight",
    "mlp_norm.scale": "ffn_norm.weight",
}
"""Source: ``torchtune/models/convert_weights.py``. The rows are in Meta's order."""
_TORCHTUNE_TOP = {
    "norm.scale": "norm.weight",
    "tok_embeddings.weight": "tok_embeddings.weight",
    "output.weight": "output.weight",
}
_FAIRSEQ2 = {
    "self_attn.q_proj.weight": "attention.wq.weight",
    "self_attn.k_proj.weight": "attention.wk.weight",
    "self_attn.v_proj.weight": "attention.wv.weight",
    "self_attn.output_proj.weight": "attention.wo.weight",
    "self_attn_layer_norm.weight": "attention_norm.weight",
    "ffn.gate_proj.weight": "feed_forward.w1.weight",
    "ffn.output_proj.weight": "feed_forward.w2.weight",
    "ffn.inner_proj.weight": "feed_forward.w3.weight",
    "ffn_layer_norm.weight": "ffn_norm.weight",
}
"""Source: ``fairseq2/models/llama/interop.py``. The rows are in Meta's order."""
_FAIRSEQ2_TOP = {
    "decoder_frontend.embed.weight": "tok_embeddings.weight",
    "decoder.layer_norm.weight": "norm.weight",
    "final_proj.weight": "output.weight",
}
_COMPUTED = re.compile(r"(.*\.)?(rotary_emb\.inv_freq|freqs_cis|rope_cache|pos_encoder\.freqs)")
"""Tables that models save and compute again: those of transformers, torchtitan and fairseq2."""


@dataclass(frozen=True)
class StateDictOptions:
    """How the dict of weights is found in a file, and what its names lose."""

    key: str | None = None
    """Of the dict in a training checkpoint; None: the file is the dict."""
    strip_prefix: str | None = None
    """What names lose at their beginning; ``AUTOMATIC``: what training tools add; None: nothing."""


AS_STORED = StateDictOptions()


def from_torchtune(name: str) -> str | None:
    """Return Meta's name of a parameter of torchtune's, or None if it has none."""
    return _TORCHTUNE_TOP.get(name) or _of_layer(name, _TORCHTUNE)


def from_fairseq2(name: str) -> str | None:
    """Return Meta's name of a parameter of fairseq2's, or None if it has none."""
    if name in _FAIRSEQ2_TOP or not name.startswith("decoder."):
        return _FAIRSEQ2_TOP.get(name)
    return _of_layer(name.removeprefix("decoder."), _FAIRSEQ2)


def _of_layer(name: str, parts: Mapping[str, str]) -> str | None:
    layer = _LAYER.fullmatch(name)
    part = parts.get(layer[2]) if layer else None
    return f"layers.{layer[1]}.{part}" if layer and part else None


def is_computed(name: str) -> bool:
    """Say whether a tensor is a table that the model computes again, and no parameter."""
    return _COMPUTED.fullmatch(name) is not None


def to_metas(name: str, style: Style) -> str | None:
    """Return Meta's name of a parameter, or None if it has none.

    Args:
        name: without prefixes.
        style: whose names these are.
    """
    return STYLES[style](name)


def style_of(names: Collection[str]) -> Style | None:
    """Say whose names these are; None if hardly any is of a Llama."""
    counts = Counter(
        {style: sum(it(name) is not None for name in names) for style, it in STYLES.items()}
    )
    style, count = counts.most_common(1)[0]
    return style if count > len(names) // 2 else None


def stripped(names: Collection[str], prefix: str | None, source: str) -> dict[str, str]:
    """Take prefixes off names.

    Args:
        names: as they are stored.
        prefix: as ``StateDictOptions.strip_prefix``.
        source: where they are from, for messages.
    Returns:
        For each name the one without.

    Raises:
        ParametersError: none has the prefix, two names would be the same without, or names that
            are to lose nothing have one.
    """
    if prefix is None:
        _check_no_prefix(names, source)
        return {name: name for name in names}
    if prefix == AUTOMATIC:
        new = _without_wrappers(names)
    else:
        new = {name: name.removeprefix(prefix) for name in names}
    if prefix and all(name == short for name, short in new.items()):
        example = printable(min(names, default=""), 100)
        raise ParametersError(
            f"{source}: no key begins with {printable(prefix)!r}; they are such as {example}."
        )
    twice = [name for name, count in Counter(new.values()).items() if count > 1]
    if twice:
        both = " and ".join(printable(name, 100) for name in names if new[name] == twice[0])
        raise ParametersError(
            f"{source}: without prefixes {both} would have one name. Pass --strip-prefix the "
            "prefix of those that are meant, or save them alone."
        )
    return new


def _check_no_prefix(names: Collection[str], source: str) -> None:
    """Refuse names that are those of a Llama but for a prefix, and say how to read them."""
    is_wrapped = any(not _WRAPPERS.keys().isdisjoint(name.split(".")) for name in names)
    if style_of(names) is not None and not is_wrapped:
        return
    new = _without_wrappers(names)
    if style_of(new.values()) is None:
        return
    name = next(name for name, short in new.items() if name != short)
    added = _added(name, new[name])
    tools = [_WRAPPERS[part] for part in added if part in _WRAPPERS]
    who = f"which {' and '.join(tools)} adds" if tools else "which a training program has added"
    raise ParametersError(
        f"{source}: its keys have the prefix {printable('.'.join(added)) + '.'!r}, {who}: "
        f"{printable(name, 100)}, where {printable(new[name], 100)} is expected. Import them with "
        "llamakit import --strip-prefix SRC DST."
    )


def _added(name: str, short: str) -> list[str]:
    """Return the parts of a name that a shorter one lacks."""
    kept = short.split(".")
    added: list[str] = []
    for part in reversed(name.split(".")):
        if kept and kept[-1] == part:
            kept.pop()
        else:
            added.insert(0, part)
    return added


def _without_wrappers(names: Collection[str]) -> dict[str, str]:
    """Return each name without wrappers, as the style of which the most names then are."""
    plain = {name: without_wrappers(name) for name in names}
    tries = [{name: shorten(it, style) for name, it in plain.items()} for style in STYLES]
    found = [sum(it is not None for it in each.values()) for each in tries]
    best = tries[found.index(max(found))]
    return {name: best[name] or plain[name] for name in names}


def without_wrappers(name: str) -> str:
    """Return a name without what training tools put between its parts."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def shorten(name: str, style: Style) -> str | None:
    """Drop the first parts of a name until a style knows it; None if it never does."""
    for _ in range(_DEEPEST):
        if to_metas(name, style) is not None or is_computed(name):
            return name
        name = name.partition(".")[2]
    return None


STYLES: Mapping[Style, Callable[[str], str | None]] = {
    "meta": lambda name: name if is_parameter_name(name) else None,
    "huggingface": to_meta,
    "torchtune": from_torchtune,
    "fairseq2": from_fairseq2,
}
"""By whose names they are: Meta's name of each, or None."""
