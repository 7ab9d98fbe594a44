"""An adapter: what it changes of each parameter.

Source: https://arxiv.org/abs/2106.09685 (LoRA), https://arxiv.org/abs/2402.09353 (DoRA); ``merge``
in PEFT's ``tuners/lora/layer.py`` and ``variants.py``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from llamakit import LlamakitError
from llamakit.printable import printable
from llamakit.protocols import Checkpoint, Parameter
from llamakit_merge.adapter_config import CONFIG, AdapterConfig, read_adapter_config
from llamakit_merge.adapter_tensors import Matrix, ModuleTensors, read_tensors

_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt")
_NUMBERED = re.compile(r"adapter_([0-9]{1,9})\.pt")
EMBEDDING, OUTPUT = "tok_embeddings.weight", "output.weight"
_REMEDY = "the adapter was trained on another model; pass that one."


@dataclass(frozen=True)
class Change:
    """What an adapter makes of one parameter."""

    whole: Matrix | None
    """The values that replace the model's, before anything is added."""
    left: Matrix | None
    """``(rows, rank)``."""
    right: Matrix | None
    """``(rank, columns)``."""
    scale: float
    """Of the product of both."""
    magnitude: Matrix | None
    """DoRA's: the norm of each row, of an embedding of each column."""


@dataclass(frozen=True)
class Adapter:
    """An adapter that fits a model."""

    path: Path
    changes: Mapping[str, Change]
    """By Meta's name."""
    unties: bool
    """It changes the embedding or the output layer for itself, so that they are two afterwards."""


def read_adapter(path: Path, checkpoint: Checkpoint, alpha: float | None = None) -> Adapter:
    """Read an adapter of a model, from its index.

    Args:
        path: the folder that PEFT or torchtune saved, or its file of weights.
        checkpoint: the model.
        alpha: LoRA's alpha, where there is no adapter_config.json.

    Raises:
        LlamakitError: it is no adapter, one of another kind, or one of another model.
    """
    file = _find_weights(path)
    config_path = file.with_name(CONFIG)
    if alpha is not None and not config_path.exists():
        config = AdapterConfig(alpha)
    else:
        config = read_adapter_config(config_path)
    modules = read_tensors(file, checkpoint.params.head_dim)
    # Names of parameters that there are are short, so no pattern of the config takes long for one.
    changed = {name: _parameter(file, checkpoint, name) for name in modules}
    changes = {name: _change(file, module, config) for name, module in modules.items()}
    for name, change in changes.items():
        _check_fits(file, checkpoint.path, changed[name], change)
    trained = any(
        name in changes and (changes[name].left or config.is_trained_whole(modules[name].module))
        for name in (EMBEDDING, OUTPUT)
    )
    return Adapter(path, changes, trained and not config.keeps_tied)


def _find_weights(path: Path) -> Path:
    """Find an adapter's file of weights; of torchtune's, the one of the last epoch."""
    if path.is_file():
        return path
    for name in _WEIGHTS:
        if (path / name).exists():
            return path / name
    files = path.iterdir() if path.is_dir() else ()
    numbered = {int(match[1]): file for file in files if (match := _NUMBERED.fullmatch(file.name))}
    if numbered:
        return numbered[max(numbered)]
    raise LlamakitError(
        f"{path} has no adapter; expected the folder that PEFT saved, with {CONFIG} and "
        f"{_WEIGHTS[0]}, or torchtune's adapter_0.pt."
    )


def _change(file: Path, module: ModuleTensors, config: AdapterConfig) -> Change:
    parts = module.tensors
    left, right = parts.get("left"), parts.get("right")
    fits = left is None and right is None and "magnitude" not in parts
    if left is not None and right is not None:
        shapes = (left.shape, right.shape)
        fits = all(len(shape) == 2 for shape in shapes) and left.shape[1] == right.shape[0] > 0
    if not fits:
        raise LlamakitError(
            f"{file}: the matrices A and B of {module.module} do not make a pair; the file is not "
            "complete: copy it again."
        )
    scale = _scale(file, module.module, right.shape[0], config) if right else 0.0
    whole = parts.get("whole") or parts.get("base")
    return Change(whole, left, right, scale, parts.get("magnitude"))


def _scale(file: Path, module: str, rank: int, config: AdapterConfig) -> float:
    """Return what a module's product is multiplied by: the config has to be of these factors."""
    expected = config.rank_of(module)
    if expected is not None and rank != expected:
        raise LlamakitError(
            f"{file}: the matrices A and B of {module} have rank {rank}, and the {CONFIG} next to "
            f"it says {expected:g}; one of both is of another adapter: copy them from one folder."
        )
    return config.scale(module, rank)


def _parameter(file: Path, checkpoint: Checkpoint, name: str) -> Parameter:
    """Return the parameter that an adapter changes, by the name that it has there."""
    is_tied = name == OUTPUT and checkpoint.params.tied_embeddings
    parameter = checkpoint.parameters.get(EMBEDDING if is_tied else name)
    if parameter is None:
        raise LlamakitError(
            f"{file} changes {printable(name)}, and {checkpoint.path} has no such parameter: "
            f"{_REMEDY}"
        )
    return replace(parameter, name=name)


def _check_fits(file: Path, model: Path, parameter: Parameter, change: Change) -> None:
    name = parameter.name
    shapes = [change.whole.shape] if change.whole else []
    if change.left and change.right:
        shapes.append((change.left.shape[0], change.right.shape[1]))
    for shape in shapes:
        if parameter.shape != shape:
            raise LlamakitError(
                f"{file} changes {name} of shape {shape}, and {model} has one of "
                f"{parameter.shape}: {_REMEDY}"
            )
    if change.magnitude and change.magnitude.shape != (parameter.shape[name == EMBEDDING],):
        raise LlamakitError(
            f"{file}: the magnitudes of {name} are {change.magnitude.shape}, and the parameter is "
            f"{parameter.shape}; the file is of another model, or damaged."
        )
