"""The checkpoint that a merge makes of several. Its values are computed as they are read."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llamakit import LlamakitError
from llamakit.checkpoint.hf_names import to_huggingface
from llamakit.checkpoint.params import ModelParams
from llamakit.checkpoint.rope_scaling import scaling_of
from llamakit.protocols import Checkpoint, Parameter
from llamakit_merge.block_checkpoint import BlockCheckpoint, nbytes_of
from llamakit_merge.config import MergeConfig, ModelReference, OutputSlice, Settings
from llamakit_merge.model_fit import check_shapes, merged_parameters
from llamakit_merge.rounding import Array, promoted, rounded, working_dtype
from llamakit_merge.settings import resolve
from llamakit_merge.tensor_group import BlockFunction, MergeMethod, TensorGroup

_PREPARED = 8
"""Tensors whose thresholds or norms are kept: conversions read a few at a time."""


@dataclass(frozen=True, eq=False)
class Part:
    """A tensor of one model."""

    checkpoint: Checkpoint
    name: str
    """Meta's name in that model."""


@dataclass(frozen=True)
class TensorPlan:
    """What one tensor of the result is merged from."""

    parts: tuple[Part, ...]
    base: int | None
    dtype: str
    """What is merged in."""
    shared: Mapping[str, Any]
    inputs: tuple[Mapping[str, Any], ...]


class MergedModel(BlockCheckpoint):
    """A merge of models.

    Args:
        method: how.
        base: whose tokenizer and other small files the result gets.
        params: the numbers of the result.
        plans: by Meta's name in the result, in the order of the model.
        out_dtype: what the result is stored as; None: as it is merged.
    """

    def __init__(
        self,
        method: MergeMethod,
        base: Checkpoint,
        params: ModelParams,
        plans: Mapping[str, TensorPlan],
        out_dtype: str | None,
    ) -> None:
        parameters = {name: _parameter(name, plan, out_dtype) for name, plan in plans.items()}
        found = {
            id(part.checkpoint): part.checkpoint for plan in plans.values() for part in plan.parts
        }
        sources = {id(base): base} | found
        super().__init__("merge", base, params, parameters, list(sources.values()))
        self.method = method
        self.plans = plans
        self._prepared: OrderedDict[str, BlockFunction] = OrderedDict()
        self._preparing = threading.Lock()
        self._last: dict[Part, Array] = {}

    def compute(self, name: str, start: int, stop: int) -> Array:
        """Merge rows ``start:stop`` of a parameter."""
        plan = self.plans[name]
        merged = self._function(name)(start, self._read(plan, start, stop))
        is_stored_so = self.parameters[name].dtype == plan.dtype
        return merged if is_stored_so else rounded(merged, plan.dtype)

    def nbytes_to_read(self) -> int:
        """Return how many bytes of the models' weights are read at most, in all passes."""
        found = (
            part.checkpoint.parameters[part.name]
            for plan in self.plans.values()
            for part in plan.parts
        )
        return self.method.passes * sum(map(nbytes_of, found))

    def _function(self, name: str) -> BlockFunction:
        with self._preparing:
            function = self._prepared.get(name)
            if function is None:
                function = self.method.prepare(self._group(name))
                self._prepared[name] = function
                if len(self._prepared) > _PREPARED:
                    self._prepared.popitem(last=False)
        return function

    def _group(self, name: str) -> TensorGroup:
        plan = self.plans[name]
        return TensorGroup(
            name,
            self.parameters[name].shape,
            plan.dtype,
            plan.base,
            plan.shared,
            plan.inputs,
            lambda start, stop: self._read(plan, start, stop),
        )

    def _read(self, plan: TensorPlan, start: int, stop: int) -> list[Array]:
        """Read rows of each part, in the dtype to compute in, rounded to that of the merge."""
        work = working_dtype(plan.dtype)
        blocks = []
        last = {}
        for part in plan.parts:
            stored = part.checkpoint.read(part.name, start=start, stop=stop)
            last[part] = stored
            block = stored.astype(work)
            blocks.append(block if stored.dtype == plan.dtype else rounded(block, plan.dtype))
        self._last = last  # a view of a file keeps its map for the next block
        return blocks


def _parameter(name: str, plan: TensorPlan, out_dtype: str | None) -> Parameter:
    part = plan.parts[0]
    found = part.checkpoint.parameters[part.name]
    return replace(found, name=name, dtype=out_dtype or plan.dtype)


def plan_merge(
    config: MergeConfig, method: MergeMethod, models: Mapping[ModelReference, Checkpoint]
) -> tuple[ModelParams, dict[str, TensorPlan]]:
    """Say what each tensor of the result is merged from, with which values.

    Args:
        config: the merge.
        models: by their references, all open; they fit one another.
    Returns:
        The numbers of the result, and the plans in the order of the model.

    Raises:
        LlamakitError: tensors differ in shape, or a parameter of the method has no value.
    """
    planner = _Planner(config, method, models)
    plans: dict[str, TensorPlan] = {}
    first, last = config.slices[0], config.slices[-1]
    layers = 0
    for name in planner.names(first, "tok_embeddings."):
        plans[name] = planner.tensor(first, name, [name] * len(first.sources), 0.0)
    for output in config.slices:
        for layer, t, numbers in planner.layers(output):
            for rest in planner.names(output, f"layers.{numbers[0]}."):
                suffix = rest.split(".", 2)[2]
                theirs = [f"layers.{number}.{suffix}" for number in numbers]
                name = f"layers.{layers + layer}.{suffix}"
                plans[name] = planner.tensor(output, name, theirs, t)
        layers += planner.length(output)
    for name in (*planner.names(last, "norm."), *planner.names(last, "output.")):
        plans[name] = planner.tensor(last, name, [name] * len(last.sources), 0.0)
    return _params(models[config.models[0]], layers), plans


class _Planner:
    def __init__(
        self, config: MergeConfig, method: MergeMethod, models: Mapping[ModelReference, Checkpoint]
    ) -> None:
        self._config = config
        self._method = method
        self._models = models

    def names(self, output: OutputSlice, prefix: str) -> list[str]:
        """Return the parameters of a slice's first model that begin so, in its order."""
        model = self._models[output.sources[0].model]
        return [name for name in merged_parameters(model) if name.startswith(prefix)]

    def length(self, output: OutputSlice) -> int:
        """Return how many layers a slice makes."""
        lengths = []
        for source in output.sources:
            n_layers = self._models[source.model].params.n_layers
            start, stop = source.layers or (0, n_layers)
            if stop > n_layers:
                raise LlamakitError(
                    f"layer_range is [{start}, {stop}], and {source.model} has {n_layers} layers."
                )
            lengths.append(stop - start)
            if lengths[-1] != lengths[0]:
                raise LlamakitError(
                    f"{source.model} has {lengths[-1]} layers and {output.sources[0].model} has "
                    f"{lengths[0]}; models of as many layers can be merged, or slices of them."
                )
        return lengths[0]

    def layers(self, output: OutputSlice) -> Iterator[tuple[int, float, list[int]]]:
        """Yield the layers of a slice: its number, how far through it is, that in each source."""
        starts = [source.layers[0] if source.layers else 0 for source in output.sources]
        length = self.length(output)
        for layer in range(length):
            t = layer / (length - 1) if length > 1 else 1.0
            yield layer, t, [start + layer for start in starts]

    def tensor(self, output: OutputSlice, name: str, theirs: Sequence[str], t: float) -> TensorPlan:
        """Plan one tensor.

        Args:
            name: in the result.
            theirs: in each source.
        """
        references = [source.model for source in output.sources]
        parts = [
            Part(self._models[reference], their)
            for reference, their in zip(references, theirs, strict=True)
        ]
        check_shapes([(part.checkpoint, part.name) for part in parts])
        base = output.base_model or self._config.base_model
        index = references.index(base) if base in references else None
        dtype = self._config.dtype or promoted(
            part.checkpoint.parameters[part.name].dtype for part in parts
        )
        around: tuple[Settings, ...] = (output.parameters, self._config.parameters)
        shared = {
            spec.name: resolve(spec, around, _theirs(name), t)
            for spec in self._method.parameters
            if spec.scope == "shared"
        }
        inputs = tuple(
            {
                spec.name: resolve(spec, (source.parameters, *around), _theirs(their), t)
                for spec in self._method.parameters
                if spec.scope == "model" or (spec.scope == "not base" and at != index)
            }
            for at, (source, their) in enumerate(zip(output.sources, theirs, strict=True))
        )
        return TensorPlan(tuple(parts), index, dtype, shared, inputs)


def _theirs(name: str) -> str:
    """Return Hugging Face's name of a parameter, which the filters of a merge are for."""
    found = to_huggingface(name)
    assert found is not None
    return found


def _params(base: Checkpoint, layers: int) -> ModelParams:
    params = base.params
    if layers == params.n_layers:
        return params
    scaling = scaling_of(params, base.path)  # of some models known by their number of layers
    factor = scaling.factor if scaling and params.use_scaled_rope else params.rope_factor
    return replace(params, n_layers=layers, rope_factor=factor)
