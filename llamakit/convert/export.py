"""Exporters: a checkpoint as a Hugging Face folder, or as .safetensors with Meta's names.

Each is what ``register_exporters`` takes: it writes to a destination that does not exist, and
``llamakit.export`` writes the destination atomically.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llamakit.checkpoint.atomic_folder import check_space
from llamakit.checkpoint.capabilities import companion_files
from llamakit.checkpoint.file_layout import TensorSpec
from llamakit.checkpoint.hf_names import to_huggingface
from llamakit.checkpoint.layout import OUTPUT, check_parameters, expected_shapes
from llamakit.checkpoint.provenance import PROVENANCE
from llamakit.checkpoint.safetensors_writer import SafetensorsLayout
from llamakit.convert.companion_files import companion_copies
from llamakit.convert.conversion_plan import (
    ConversionPlan,
    SmallFile,
    copied_files,
    execute_plan,
    source_stamps,
    warn_if_multiplied_out,
)
from llamakit.convert.conversion_record import plan_record
from llamakit.convert.hf_files import hf_files
from llamakit.convert.hf_quantize import (
    SCHEMES,
    hf_rounding,
    quantization_config,
    rounded_names,
    shapes_file,
)
from llamakit.convert.llama4_names import with_llama4_names
from llamakit.convert.meta_format import plan_safetensors_shards
from llamakit.convert.moves import Move, WeightFile, make_move, whole
from llamakit.convert.quantize import specs_of
from llamakit.convert.source_files import HF_FILES, small_files_of
from llamakit.errors import OptionError, suggestion
from llamakit.protocols import Checkpoint, ToolCommand

DEFAULT_MAX_SHARD_SIZE = "5GB"
INDEX = "model.safetensors.index.json"
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
    Returns:
        ``files`` with the name, size and md5 of each, ``nbytes``, ``nbytes_read``, and ``notes``
        where something was decided.

    Raises:
        NoSpaceError: there is no room.
    """
    check_space(plan.destination, plan.nbytes)
    plan.destination.mkdir()
    direct, progress = (options.get(name) for name in _COMMON)
    written = execute_plan(plan, plan.destination, direct=direct, progress=progress)
    files: list[dict[str, Any]] = [
        {"name": name, "nbytes": (plan.destination / name).stat().st_size, "md5": md5}
        for name, md5 in written.items()
    ]
    nbytes = sum(file["nbytes"] for file in files)
    notes = {"notes": list(plan.notes)} if plan.notes else {}
    return {"files": files, "nbytes": nbytes, "nbytes_read": plan.nbytes_read, **notes}


def plan_hf(
    checkpoint: Checkpoint, destination: Path, options: Mapping[str, Any]
) -> ConversionPlan:
    """Plan what ``export_hf`` writes.

    Args and Raises: as ``export_hf``.
    """
    check_options(options, ("max_shard_size", "tokenizer", "instruct", "quantize"))
    limit = parse_size(options.get("max_shard_size") or DEFAULT_MAX_SHARD_SIZE)
    given, instruct = options.get("tokenizer"), options.get("instruct")
    scheme = options.get("quantize")
    rounded = rounded_names(checkpoint, scheme)
    more = {"quantization_config": quantization_config(scheme)} if scheme else {}
    asked = {name: options.get(name) for name in ("max_shard_size", "instruct", "quantize")}
    command = ToolCommand("export", {"format": "hf", **asked})
    with small_files_of(checkpoint) as (folder, own):
        tokenizer = Path(given) if given else own
        small, note = hf_files(checkpoint, tokenizer, instruct=instruct, folder=folder, more=more)
        if folder != checkpoint.path:  # the plan outlives it
            small = [file.read_if_in(folder) for file in small]
        plan = plan_huggingface(
            checkpoint,
            destination,
            limit,
            small,
            command,
            tokenizer,
            rounded=rounded,
            scheme=scheme,
        )
    return replace(plan, notes=(note,))


def plan_safetensors(
    checkpoint: Checkpoint, destination: Path, options: Mapping[str, Any]
) -> ConversionPlan:
    """Plan what ``export_safetensors`` writes.

    Args and Raises: as ``export_safetensors``.
    """
    check_options(options, ())
    command = ToolCommand("export", {"format": "safetensors"})
    return plan_safetensors_shards(checkpoint, destination, command)


def plan_huggingface(
    checkpoint: Checkpoint,
    destination: Path,
    limit: int,
    files_beside: Sequence[SmallFile],
    command: ToolCommand,
    tokenizer: Path | None = None,
    *,
    rounded: Collection[str] = (),
    scheme: str | None = None,
) -> ConversionPlan:
    """Plan a Hugging Face folder.

    Args:
        checkpoint: what is read.
        destination: the folder to make.
        limit: how many bytes of weights a file may have; a larger tensor has a file alone.
        files_beside: as ``hf_files`` returns them.
        command: what llamakit.json says was asked for.
        tokenizer: what tokenizer.json was made of, for llamakit.json.
        rounded: Meta's names of weights that are written in 8 bits. The scales are in files of
            their own, one for each file of weights.
        scheme: how, one of ``hf_quantize.SCHEMES``.

    Raises:
        ParametersError: parameters are missing, or are of another model.
        PluginError: the checkpoint has companion files with the names of others.
    """
    check_parameters(checkpoint)
    warn_if_multiplied_out(checkpoint)
    companions = companion_files(checkpoint, "huggingface")
    given = checkpoint
    renamed = with_llama4_names(checkpoint)
    checkpoint = renamed or checkpoint
    names = list(
        renamed.parameters
        if renamed
        else (
            name
            for name in expected_shapes(checkpoint.params)
            if not (name == OUTPUT and checkpoint.params.tied_embeddings)
        )
    )
    groups = _group(checkpoint, names, limit)
    moves: list[Move] = []
    tensors: list[list[TensorSpec]] = []
    for group in groups:
        file = len(tensors)
        tensors += [[], []] if any(name in rounded for name in group) else [[]]
        for name in group:
            parameter = checkpoint.parameters[name]
            theirs = name if renamed else to_huggingface(name)
            assert theirs is not None
            move = make_move(checkpoint, parameter, [whole(parameter, file)], order="huggingface")
            if name in rounded:
                move = replace(move, rounding=hf_rounding(theirs, parameter, file + 1, scheme))
            moves.append(move)
            for index, spec in specs_of(theirs, parameter, move):
                tensors[index].append(spec)
    packs = SCHEMES.get(scheme or "") == "pack-quantized"
    count = len(tensors) + packs
    files = [
        WeightFile(_file_name(index, count), SafetensorsLayout(specs))
        for index, specs in enumerate(tensors)
    ]
    small: list[SmallFile] = []
    listed = files
    if packs:
        shapes = {str(to_huggingface(name)): checkpoint.parameters[name].shape for name in rounded}
        written, described = shapes_file(_file_name(count - 1, count), shapes)
        small, listed = [written], [*files, described]
    small += [SmallFile(INDEX, _index(listed))] if len(listed) > 1 else []
    small += companion_copies(checkpoint, companions, (INDEX, PROVENANCE, *HF_FILES))
    taken = {file.name for file in small}
    made_of = [] if tokenizer is None else [tokenizer]
    small = [*(file for file in files_beside if file.name not in taken), *small]
    return ConversionPlan(
        checkpoint,
        destination,
        tuple(moves),
        tuple(files),
        tuple(small),
        source_stamps(checkpoint, moves, small),
        has_checklist=False,
        record=plan_record(given, command, moves, [*copied_files(small), *made_of]),
    )


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


def _group(checkpoint: Checkpoint, names: Sequence[str], limit: int) -> list[list[str]]:
    groups: list[list[str]] = [[]]
    filled = 0
    for name in names:
        parameter = checkpoint.parameters[name]
        nbytes = TensorSpec(name, parameter.dtype, parameter.shape).nbytes
        if groups[-1] and filled + nbytes > limit:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += nbytes
    return groups


def _file_name(index: int, files: int) -> str:
    if files == 1:
        return "model.safetensors"
    return f"model-{index + 1:05d}-of-{files:05d}.safetensors"


def _index(files: Sequence[WeightFile]) -> bytes:
    stored = {tensor.name: (file, tensor) for file in files for tensor in file.layout.stored}
    index = {
        "metadata": {"total_size": sum(tensor.nbytes for _, tensor in stored.values())},
        "weight_map": {name: stored[name][0].name for name in sorted(stored)},
    }
    return (json.dumps(index, indent=2) + "\n").encode()


def check_options(options: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse an option that an exporter does not have; ``progress`` and ``direct`` all have.

    Raises:
        OptionError: the option that is closest is named.
    """
    for name in options:
        if name not in (*known, *_COMMON):
            raise OptionError(f"this export has no option {name!r}{suggestion(name, known)}")
