"""The Python API: merges as checkpoints, which ``llamakit.reshard`` and ``export`` write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import llamakit
from llamakit import LlamakitError
from llamakit.protocols import Checkpoint
from llamakit_merge.adapter import read_adapter
from llamakit_merge.config import MergeConfig, ModelReference, parse_config, read_config
from llamakit_merge.lora import MergedAdapter
from llamakit_merge.merged_model import MergedModel, plan_merge
from llamakit_merge.methods import find_method
from llamakit_merge.model_fit import check_models, check_readable, compare_tokenizers
from llamakit_merge.settings import check_names
from llamakit_merge.tensor_group import MergeMethod, ParameterSpec, TensorGroup

__all__ = [
    "MergeMethod",
    "MergedAdapter",
    "MergedModel",
    "ParameterSpec",
    "TensorGroup",
    "merge",
    "merge_lora",
]


def merge(
    config: str | Path | Mapping[str, object],
    *,
    methods: Mapping[str, MergeMethod] | None = None,
) -> MergedModel:
    """Merge models as mergekit does; no weights are read yet.

    Args:
        config: mergekit's YAML, as the file or what it holds.
        methods: merge methods besides the built-in ones and those of installed packages.
    Returns:
        A checkpoint; ``llamakit.reshard`` and ``llamakit.export`` write it. ``read`` computes what
        it returns.

    Raises:
        LlamakitError: the YAML is wrong, a model is none, or two do not fit one another.
    """
    if isinstance(config, str | Path):
        parsed = read_config(Path(config))
    else:
        parsed = parse_config(config, "the merge")
    method = find_method(parsed.merge_method, methods)
    _check(parsed, method)
    models = {reference: _open(reference) for reference in parsed.models}
    opened = list(models.values())
    check_models(opened)
    base = opened[0]
    if isinstance(parsed.tokenizer_source, ModelReference):
        base = _open(parsed.tokenizer_source)
        check_models([opened[0], base])
    asked = parsed.tokenizer_source is not None
    compare_tokenizers([base, *opened] if asked else opened, is_asked=asked)
    params, plans = plan_merge(parsed, method, models)
    return MergedModel(method, base, params, plans, parsed.out_dtype)


def merge_lora(
    checkpoint: str | Path | Checkpoint,
    *adapters: str | Path,
    weights: Sequence[float] | None = None,
    alpha: float | None = None,
) -> MergedAdapter:
    """Merge LoRA adapters into a checkpoint; no weights are read yet.

    Args:
        checkpoint: a folder of any format that llamakit opens, or an open checkpoint.
        adapters: what PEFT or torchtune saved, each a folder or its file of weights; one is merged
            after the other.
        weights: how much each counts; None: 1 each.
        alpha: LoRA's alpha, for torchtune's files that have no adapter_config.json next to them.
    Returns:
        A checkpoint, as ``merge`` returns it.

    Raises:
        LlamakitError: it is no adapter, one of another kind, or one of another model.
    """
    base = (
        llamakit.open_checkpoint(checkpoint) if isinstance(checkpoint, str | Path) else checkpoint
    )
    check_readable(base)
    shares = [1.0] * len(adapters) if weights is None else list(weights)
    if len(shares) != len(adapters):
        raise LlamakitError(f"{len(shares)} weights are given for {len(adapters)} adapters.")
    read = [read_adapter(Path(adapter), base, alpha) for adapter in adapters]
    return MergedAdapter(base, read, shares)


def _open(reference: ModelReference) -> Checkpoint:
    if reference.adapter is None:
        return llamakit.open_checkpoint(reference.path)
    return merge_lora(reference.path, reference.adapter)


def _check(config: MergeConfig, method: MergeMethod) -> None:
    """Check that a merge has what its method needs.

    Raises:
        LlamakitError: it has not.
    """
    scopes = [config.parameters]
    for number, output in enumerate(config.slices):
        scopes += [output.parameters, *(source.parameters for source in output.sources)]
        place = f"slices[{number}]" if len(config.slices) > 1 else "the merge"
        named = [source.model for source in output.sources]
        if twice := next((model for model in named if named.count(model) > 1), None):
            raise LlamakitError(f"{place} has the model {twice} twice.")
        base = output.base_model or config.base_model
        if method.needs_base and base not in named:
            found = "none is given" if base is None else f"{base} is not among its models"
            raise LlamakitError(f"{method.name} needs a base_model, and {found} in {place}.")
        if len(named) not in method.models:
            least, most = method.models.start, method.models.stop - 1
            wanted = f"{least}" if least == most else f"at least {least}"
            raise LlamakitError(
                f"{method.name} merges {wanted} models, the base included, and {place} has "
                f"{len(named)}."
            )
    check_names(scopes, method.parameters, method.name)
