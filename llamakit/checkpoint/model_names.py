"""Which of the tensors that a trainer has saved are the model's, and whose names they have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from llamakit.checkpoint.tensor_names import (
    STYLES,
    Style,
    is_computed,
    shorten,
    to_metas,
    without_wrappers,
)
from llamakit.errors import ParametersError
from llamakit.printable import listed, printable


@dataclass(frozen=True)
class ModelNames:
    """The tensors of one model among all that are stored."""

    style: Style
    """Whose names they have."""
    names: Mapping[str, str]
    """Meta's name of each, by the one that is stored."""
    left_out: Collection[str]
    """Tensors that are of something else, such as an optimizer; tables that models compute are
    in neither."""


def find_model(names: Collection[str], source: str) -> ModelNames:
    """Find the tensors of a model, whatever is before their names and next to them.

    Args:
        names: of all tensors.
        source: where they are from, for messages.

    Raises:
        ParametersError: there is no Llama, there are several, or one with tensors that none has.
    """
    plain = {name: without_wrappers(name) for name in names}
    found = {style: _known(plain, style) for style in STYLES}
    style = max(found, key=lambda it: len(found[it]))
    if not found[style]:
        raise ParametersError(
            f"{source} holds no tensor of a Llama; its names are such as "
            f"{listed(sorted(names)[:3]) or 'none'}. Expected those of Meta, torchtitan, Hugging "
            "Face, torchtune or fairseq2."
        )
    prefix = _prefix_of(found[style], plain, source)
    model = {name: short for name, short in found[style].items() if plain[name] == prefix + short}
    others = [name for name in names if name not in model and not is_computed(plain[name])]
    _check_no_unknown(model, [it for it in others if plain[it].startswith(prefix)], plain, prefix)
    named = {name: to_metas(short, style) or short for name, short in model.items()}
    if len(set(named.values())) != len(named):
        twice = [it for it, count in Counter(named.values()).items() if count > 1]
        raise ParametersError(f"{source} holds several tensors that are {listed(twice)}.")
    return ModelNames(style, named, others)


def _known(plain: Mapping[str, str], style: Style) -> dict[str, str]:
    """Return the names that a style knows, each without what is before it."""
    found = {name: shorten(it, style) for name, it in plain.items() if not is_computed(it)}
    return {name: short for name, short in found.items() if short is not None}


def _prefix_of(found: Mapping[str, str], plain: Mapping[str, str], source: str) -> str:
    """Say what is before the names of the model; of several models the one that is called so."""
    prefixes = Counter(plain[name].removesuffix(short) for name, short in found.items())
    most = prefixes.most_common(1)[0][1]
    full = [prefix for prefix, count in prefixes.items() if 2 * count > most]
    called = [it for it in full if it == "" or it.split(".")[-2] == "model"]
    if len(full) > 1 and len(called) != 1:
        listed_ = " and ".join(repr(printable(it, 60)) for it in full[:3])
        raise ParametersError(
            f"{source} holds {len(full)} models, with the prefixes {listed_}; expected one, or one "
            "called 'model.'. Save the one that is meant alone."
        )
    return full[0] if len(full) == 1 else called[0]


def _check_no_unknown(
    model: Mapping[str, str], others: Collection[str], plain: Mapping[str, str], prefix: str
) -> None:
    """Refuse tensors within the model that no Llama has: without them it computes garbage."""
    tops = {short.partition(".")[0] for short in model.values()}
    known = {plain[name] for name in model}
    unknown = [
        name
        for name in others
        if plain[name].removeprefix(prefix).partition(".")[0] in tops
        and plain[name].rpartition(".")[0] not in known  # the state of an optimizer for one
    ]
    if unknown:
        raise ParametersError(
            f"the model holds tensors that no Llama has: {listed(unknown)}. It is of another "
            "architecture, or its weights are quantized or have biases, which is not read."
        )
