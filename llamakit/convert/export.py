"""Exporters: a checkpoint as a Hugging Face folder, or as .safetensors with Meta's names.

Each is what ``register_exporters`` takes: it writes to a destination that does not exist, and
``llamakit.export`` writes the destination atomically.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llamakit.checkpoint.capabilities import companion_files
from llamakit.checkpoint.layout import check_parameters
from llamakit.checkpoint.provenance import PROVENANCE
from llamakit.convert.companion_files import companion_copies
from llamakit.convert.conversion_plan import (
    ConversionPlan,
    SmallFile,
    copied_files,
    source_stamps,
    warn_if_multiplied_out,
)
from llamakit.convert.conversion_record import plan_record
from llamakit.convert.hf_files import hf_files
from llamakit.convert.hf_quantize import parse_scheme, quantization_config
from llamakit.convert.hf_weights import INDEX, plan_hf_weights
from llamakit.convert.meta_format import plan_safetensors_shards
from llamakit.convert.plan_execution import write_folder
from llamakit.convert.source_files import HF_FILES, small_files_of
from llamakit.errors import OptionError, suggestion
from llamakit.protocols import Checkpoint, ToolCommand

DEFAULT_MAX_SHARD_SIZE = "5GB"
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) *([KMGT]?)(i?)B?", re.IGNORECASE)
_COMMON = ("direct", "progress")


def export_hf(
    checkpoint: Checkpoint, destination: Path, options: Mapping[str, Any]
) -> dict[str, object]:
    """Write a folder that transformers loads: config, tokenizer and weights.

    Args:
        checkpoint: what is read.
        destination: the folder to make.
        options: ``max_shard_size``, such as ``"5GB"`` or a number of bytes; ``tokenizer``, a
            file; ``instruct``, true or false; ``quantize``, ``"int8"``; ``progress`` and
            ``direct``, as ``reshard`` takes them.
    Returns:
        ``files`` with the name and size of each, ``nbytes``, ``nbytes_read``, and ``notes``: what
        was decided, a sentence each.

    Raises:
        OptionError: an option that there is not, or of a wrong value.
        ParametersError: parameters are missing, or are of another model.
        TokenizerError: the tokenizer is of another model.
        NoSpaceError: there is no room.
    """
    return write_plan(plan_hf(checkpoint, destination, options), options)


def export_safetensors(
    checkpoint: Checkpoint, destination: Path, options: Mapping[str, Any]
) -> dict[str, object]:
    """Write Meta's parameters as .safetensors, a file for each shard.

    Args:
        checkpoint: what is read.
        destination: the folder to make.
        options: ``progress`` and ``direct``, as ``reshard`` takes them.
    Returns: as ``export_hf``.

    Raises:
        OptionError: an option that there is not.
        ParametersError: parameters are missing, or are of another model.
        NoSpaceError: there is no room.
    """
    return write_plan(plan_safetensors(checkpoint, destination, options), options)


def write_plan(plan: ConversionPlan, options: Mapping[str, Any]) -> dict[str, object]:
    """Make the folder of a plan and write everything into it.

    Args:
        plan: its destination does not exist.
        options: ``progress`` and ``direct``, as ``reshard`` takes them; others are not looked at.
    Returns: as ``write_folder``.

    Raises:
        NoSpaceError: there is no room.
    """
    direct, progress = (options.get(name) for name in _COMMON)
    return write_folder(plan, plan.destination, direct=direct, progress=progress)


def plan_hf(
    checkpoint: Checkpoint, destination: Path, options: Mapping[str, Any]
) -> ConversionPlan:
    """Plan what ``export_hf`` writes.

    Args and Raises: as ``export_hf``.
    """
    check_options(options, ("max_shard_size", "tokenizer", "instruct", "quantize"))
    limit = parse_size(options.get("max_shard_size") or DEFAULT_MAX_SHARD_SIZE)
    scheme = parse_scheme(checkpoint, options.get("quantize"))
    more = {"quantization_config": quantization_config(scheme)} if scheme else {}
    asked = {name: options.get(name) for name in ("max_shard_size", "instruct", "quantize")}
    with small_files_of(checkpoint) as (folder, own):
        tokenizer = Path(given) if (given := options.get("tokenizer")) else own
        instruct = options.get("instruct")
        beside, note = hf_files(checkpoint, tokenizer, instruct=instruct, folder=folder, more=more)
        if folder != checkpoint.path:  # the plan outlives it
            beside = [file.read_if_in(folder) for file in beside]
        check_parameters(checkpoint)
        warn_if_multiplied_out(checkpoint)
        weights = plan_hf_weights(checkpoint, limit, scheme)
        small = _with_companions(checkpoint, weights.small_files, beside)
        read = [*copied_files(small), *([tokenizer] if tokenizer else [])]
        command = ToolCommand("export", {"format": "hf", **asked})
        record = plan_record(checkpoint, command, weights.moves, read)
    return ConversionPlan(
        weights.checkpoint,
        destination,
        weights.moves,
        weights.files,
        tuple(small),
        source_stamps(checkpoint, weights.moves, small),
        has_checklist=False,
        record=record,
        notes=(note,),
    )


def plan_safetensors(
    checkpoint: Checkpoint, destination: Path, options: Mapping[str, Any]
) -> ConversionPlan:
    """Plan what ``export_safetensors`` writes.

    Args and Raises: as ``export_safetensors``.
    """
    check_options(options, ())
    command = ToolCommand("export", {"format": "safetensors"})
    return plan_safetensors_shards(checkpoint, destination, command)


def _with_companions(
    checkpoint: Checkpoint, own: Sequence[SmallFile], beside: Sequence[SmallFile]
) -> list[SmallFile]:
    """Join the files of the weights' plan, the checkpoint's companions, and what is not in them."""
    files = companion_files(checkpoint, "huggingface")
    small = [*own, *companion_copies(checkpoint, files, (INDEX, PROVENANCE, *HF_FILES))]
    taken = {file.name for file in small}
    return [*(file for file in beside if file.name not in taken), *small]


def parse_size(size: object) -> int:
    """Read a number of bytes, such as ``5GB``, ``500MiB`` or ``1000000``.

    Raises:
        OptionError: it is none.
    """
    match = _SIZE.fullmatch(str(size).strip())
    nbytes = 0
    if match is not None:
        power = " KMGT".index(match[2].upper() or " ")
        nbytes = int(float(match[1]) * (1024 if match[3] else 1000) ** power)
    if nbytes < 1:
        raise OptionError(f"{size!r} is not a size of files; write it as 5GB or 500MB")
    return nbytes


def check_options(options: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse an option that an exporter does not have; ``progress`` and ``direct`` all have.

    Raises:
        OptionError: the option that is closest is named.
    """
    for name in options:
        if name not in (*known, *_COMMON):
            raise OptionError(f"this export has no option {name!r}{suggestion(name, known)}")
