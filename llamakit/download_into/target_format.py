"""What a download is to become: ``reshard:N``, or the name of a built-in exporter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llamakit.convert.conversion_plan import ConversionPlan
from llamakit.errors import OptionError
from llamakit.plugin_manager.registry import Registry
from llamakit.protocols import Checkpoint, Exporter

RESHARD = "reshard"
_MAX_SIZE = 10_000

MakePlan = Callable[[Checkpoint, Path], ConversionPlan]
"""Plans to write a checkpoint to a destination."""


@dataclass(frozen=True)
class TargetFormat:
    """A format that a model is written in while it is fetched.

    Args:
        name: as it is typed, such as ``reshard:2``.
        suffix: of the folder's name, such as ``-mp2``.
    """

    name: str
    suffix: str
    make_plan: MakePlan


def read_target_format(text: str, exporters: Registry[Exporter]) -> TargetFormat:
    """Read ``reshard:N``, ``hf`` or ``safetensors``.

    Raises:
        OptionError: it is none of these; a third-party exporter is one of those.
    """
    name, _, number = text.partition(":")
    if name == RESHARD:
        if not (number.isascii() and number.isdigit() and 0 < int(number[:9]) <= _MAX_SIZE):
            raise OptionError(
                f"--into {text}: expected a number of shards after {RESHARD}:, such as {RESHARD}:2"
            )
        size = int(number)
        return TargetFormat(text, f"-mp{size}", lambda opened, to: _shards(opened, to, size))
    known = {"hf": _huggingface, "safetensors": _safetensors}
    if text in known:
        return TargetFormat(name, f"-{name}", known[name])
    if text in exporters:
        raise OptionError(
            f"--into {text}: the exporter {name} reads a model in its own order, so the model has "
            "to be on disk: download it without --into, then run llamakit export SRC DST "
            f"--format {name}"
        )
    raise OptionError(f"--into {text}: expected {RESHARD}:N, hf or safetensors")


def _shards(checkpoint: Checkpoint, destination: Path, size: int) -> ConversionPlan:
    from llamakit.convert.meta_format import plan_shards

    return plan_shards(checkpoint, destination, size)


def _safetensors(checkpoint: Checkpoint, destination: Path) -> ConversionPlan:
    from llamakit.convert.export import plan_safetensors

    return plan_safetensors(checkpoint, destination, {})


def _huggingface(checkpoint: Checkpoint, destination: Path) -> ConversionPlan:
    from llamakit.convert.export import plan_hf

    return plan_hf(checkpoint, destination, {})
