"""The value of a merge method's parameter for one tensor of one model.

Source: ``evaluate_setting`` in mergekit's ``config.py``, ``resolve_parameter`` in its
``parameter_resolver.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from llamakit import LlamakitError
from llamakit_merge.config import Setting, Settings
from llamakit_merge.tensor_group import ParameterSpec

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def resolve(spec: ParameterSpec, scopes: Iterable[Settings], tensor: str, t: float) -> Any:
    """Return the value of a parameter, from the first scope that has one.

    Args:
        spec: the parameter.
        scopes: the settings that count, the closest first.
        tensor: the name that filters look in, as Hugging Face has it.
        t: how far through the layers of the slice, from 0 to 1, for a gradient.

    Raises:
        LlamakitError: no scope has it and it is required, or it is no such value.
    """
    for settings in scopes:
        if spec.name in settings:
            value = _evaluate(spec, settings[spec.name], tensor, t)
            if value is not None:
                return value
    if spec.required:
        raise LlamakitError(
            f"the parameter {spec.name!r} has no value for {tensor}; write it under parameters, of "
            "each model or of all."
        )
    return spec.default


def check_names(scopes: Iterable[Settings], specs: Iterable[ParameterSpec], method: str) -> None:
    """Check that settings name parameters of a method only.

    Raises:
        LlamakitError: one is another's.
    """
    known = [spec.name for spec in specs]
    for settings in scopes:
        if unknown := next((name for name in settings if name not in known), None):
            raise LlamakitError(
                f"parameters has {unknown!r:.60}, which {method} does not have; it has "
                f"{', '.join(known) or 'none'}."
            )


def _evaluate(spec: ParameterSpec, setting: Setting, tensor: str, t: float) -> Any:
    if isinstance(setting, dict):
        setting = [setting]
    if not isinstance(setting, list):
        return None if setting is None else _value(spec, setting)
    if not any(isinstance(entry, dict) for entry in setting):
        return _gradient(spec, [_value(spec, entry) for entry in setting], t)
    for entry in setting:
        _check_condition(spec, entry)
        wanted = entry.get("filter")
        if wanted in (None, "*") or str(wanted) in tensor:
            value = entry["value"]
            if isinstance(value, dict) or (
                isinstance(value, list) and any(isinstance(item, dict) for item in value)
            ):
                raise _refusal(spec, value)
            return _evaluate(spec, value, tensor, t)
    return None


def _check_condition(spec: ParameterSpec, entry: object) -> None:
    if (
        not isinstance(entry, dict)
        or "value" not in entry
        or not entry.keys() <= {"value", "filter"}
    ):
        raise LlamakitError(
            f"the parameter {spec.name!r} has {entry!r:.100} in its list; expected value and "
            "filter, such as {value: 0.5, filter: mlp}."
        )


def _gradient(spec: ParameterSpec, values: list[Any], t: float) -> Any:
    """Interpolate between numbers that are spread evenly over the layers; choose among truths."""
    if not values:
        return None
    if spec.kind is bool:
        return values[int(t * (len(values) - 1))]
    place = t * (len(values) - 1)
    low = int(place)
    high = min(len(values) - 1, low + 1)
    share = place - low
    return (1 - share) * values[low] + share * values[high]


def _value(spec: ParameterSpec, value: object) -> float | bool:
    if spec.kind is bool:
        text = str(value).lower()
        if text not in _TRUE + _FALSE:
            raise _refusal(spec, value)
        return text in _TRUE
    try:
        number = float(value) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise _refusal(spec, value)
    return number


def _refusal(spec: ParameterSpec, value: object) -> LlamakitError:
    expected = "true or false" if spec.kind is bool else "a number"
    return LlamakitError(
        f"the parameter {spec.name!r} is {value!r:.100}; expected {expected}, a list of them over "
        "the layers, or a list of {value, filter}."
    )
