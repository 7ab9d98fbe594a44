"""What is merged, and how: mergekit's YAML as values.

Source: ``config.py`` of mergekit 0.1.5. Keys that it ignores are refused here, by name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llamakit import LlamakitError
from llamakit.files.home_folder import expand_home
from llamakit_merge.rounding import MERGE_DTYPES
from llamakit_merge.yaml_file import read_yaml

Setting = Any
"""A number, a truth, a list of numbers (a gradient over the layers), or ``{value, filter}`` and
lists of these."""
Settings = Mapping[str, Setting]

MAX_LAYERS = 4096
_TOP_KEYS = (
    *("merge_method", "models", "slices", "base_model", "parameters", "dtype", "out_dtype"),
    *("tokenizer_source", "tokenizer"),
)
_REFUSED = {
    "modules": "a Llama is one module; write its models or slices at the top",
    "chat_template": "the base model's is kept; put another next to the result yourself",
    "residual_weight": "mergekit has no use for it either",
    "tokens": "each row of the embedding is merged under its own ID",
    "pad_to_multiple_of": "the size of the vocabulary is kept; change it before or after the merge",
}


@dataclass(frozen=True)
class ModelReference:
    """A model, perhaps with a LoRA adapter merged into it."""

    path: Path
    adapter: Path | None = None

    def __str__(self) -> str:
        return str(self.path) if self.adapter is None else f"{self.path}+{self.adapter}"


@dataclass(frozen=True)
class Source:
    """What one model gives to a slice of the result."""

    model: ModelReference
    layers: tuple[int, int] | None = None
    """From, up to but without; None: all layers of the model."""
    parameters: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class OutputSlice:
    """Layers of the result, made from as many layers of each source."""

    sources: tuple[Source, ...]
    base_model: ModelReference | None = None
    parameters: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class MergeConfig:
    """A merge: ``slices`` from the first layer of the result to the last."""

    merge_method: str
    slices: tuple[OutputSlice, ...]
    base_model: ModelReference | None = None
    parameters: Settings = field(default_factory=dict)
    dtype: str | None = None
    """What weights are cast to before they are merged; None: what holds those of all models."""
    out_dtype: str | None = None
    """What the result is stored as; None: as it is merged."""
    tokenizer_source: str | ModelReference | None = None
    """``base``, ``union`` or a model; None: the base model's, unchecked."""

    @property
    def models(self) -> list[ModelReference]:
        """All models that are named, the base model first, each once."""
        named = [source.model for output in self.slices for source in output.sources]
        bases = [self.base_model, *(output.base_model for output in self.slices)]
        return list(dict.fromkeys([*filter(None, bases), *named]))


def read_config(path: Path) -> MergeConfig:
    """Read a merge from a YAML file.

    Paths in it are relative to the working directory or, where nothing is there, to the file's.

    Raises:
        LlamakitError: it is no such file; the key that is wrong is named.
    """
    return parse_config(read_yaml(path), str(path), path.parent)


def parse_config(values: object, source: str, folder: Path | None = None) -> MergeConfig:
    """Read a merge from what a YAML file holds.

    Args:
        source: what it is from, for messages.
        folder: where paths are looked for that are not in the working directory.

    Raises:
        LlamakitError: the key that is wrong is named.
    """
    return _Reader(source, folder or Path()).config(values)


class _Reader:
    """Reads each part, and knows where it is for messages."""

    def __init__(self, source: str, folder: Path) -> None:
        self._source = source
        self._folder = folder

    def config(self, values: object) -> MergeConfig:
        top = self._mapping(values, "the file", _TOP_KEYS)
        base = self._optional_model(top, "base_model")
        if (top.get("models") is None) == (top.get("slices") is None):
            raise self._refusal("it has to have one of models and slices")
        if top.get("models") is not None:
            slices = [OutputSlice(tuple(self._models(top["models"], base)))]
        else:
            slices = [
                self._slice(part, f"slices[{index}]")
                for index, part in enumerate(self._list(top["slices"], "slices"))
            ]
        method = top.get("merge_method")
        if not isinstance(method, str):
            raise self._refusal(f"merge_method is {method!r:.60}; expected a name, such as linear")
        return MergeConfig(
            method,
            tuple(slices),
            base,
            self._settings(top, "parameters"),
            self._dtype(top, "dtype"),
            self._dtype(top, "out_dtype"),
            self._tokenizer(top),
        )

    def _models(self, values: object, base: ModelReference | None) -> list[Source]:
        sources = []
        for index, entry in enumerate(self._list(values, "models")):
            place = f"models[{index}]"
            part = self._mapping(entry, place, ("model", "parameters"))
            settings = self._settings(part, f"{place}.parameters")
            sources.append(Source(self._model(part.get("model"), place), None, settings))
        if base is not None and base not in [source.model for source in sources]:
            sources.append(Source(base))
        return sources

    def _slice(self, values: object, place: str) -> OutputSlice:
        part = self._mapping(values, place, ("sources", "base_model", "parameters"))
        sources = [
            self._slice_source(entry, f"{place}.sources[{index}]")
            for index, entry in enumerate(self._list(part.get("sources"), f"{place}.sources"))
        ]
        lengths = {stop - start for start, stop in (source.layers or (0, 0) for source in sources)}
        if len(lengths) > 1:
            raise self._refusal(
                f"the sources of {place} have {sorted(lengths)} layers, not as many"
            )
        settings = self._settings(part, f"{place}.parameters")
        return OutputSlice(tuple(sources), self._optional_model(part, "base_model"), settings)

    def _slice_source(self, values: object, place: str) -> Source:
        part = self._mapping(values, place, ("model", "layer_range", "parameters"))
        found = part.get("layer_range")
        layers = found if isinstance(found, list) and len(found) == 2 else [0, 0]
        fits = all(type(number) is int for number in layers)
        if not fits or not 0 <= layers[0] < layers[1] <= MAX_LAYERS:
            raise self._refusal(
                f"{place}.layer_range is {found!r:.60}; expected two numbers of layers, such as "
                "[0, 16], the second not included"
            )
        settings = self._settings(part, f"{place}.parameters")
        return Source(self._model(part.get("model"), place), (layers[0], layers[1]), settings)

    def _optional_model(self, values: Mapping[str, Any], key: str) -> ModelReference | None:
        return None if values.get(key) is None else self._model(values[key], key)

    def _model(self, value: object, place: str) -> ModelReference:
        if isinstance(value, dict):  # as mergekit itself writes it
            part = self._mapping(value, place, ("model", "lora"))
            whole, lora = self._path(part.get("model"), f"{place}.model"), part.get("lora")
            return ModelReference(whole, self._path(lora, f"{place}.lora") if lora else None)
        text = str(value) if isinstance(value, str | int) else ""
        if self._existing(text) is None and text.count("+") == 1:
            model, _, adapter = text.partition("+")
            return ModelReference(self._path(model, place), self._path(adapter, place))
        return ModelReference(self._path(value, place))

    def _path(self, value: object, place: str) -> Path:
        if isinstance(value, dict):
            value = self._mapping(value, place, ("path",)).get("path")
        path = self._existing(str(value)) if isinstance(value, str | int) else None
        if path is None:
            raise self._refusal(
                f"{place} names the model {value!r:.120}, and nothing is there; expected a folder. "
                "Models of the hub are not fetched: download it, and name its folder"
            )
        return path

    def _existing(self, text: str) -> Path | None:
        if not text or "\0" in text:
            return None
        written = expand_home(text)
        places = (written, self._folder / written)
        try:
            return next((path for path in places if path.exists()), None)
        except OSError:  # a name that is too long
            return None

    def _tokenizer(self, top: Mapping[str, Any]) -> str | ModelReference | None:
        value = top.get("tokenizer_source")
        if top.get("tokenizer") is not None:
            if value is not None:
                raise self._refusal("it has both tokenizer_source and tokenizer")
            value = self._mapping(top["tokenizer"], "tokenizer", ("source",)).get("source", "union")
        if value is None or value in ("base", "union"):
            return value if value is None else str(value)
        return self._model(value, "tokenizer_source")

    def _dtype(self, top: Mapping[str, Any], key: str) -> str | None:
        value = top.get(key)
        if value is None:
            return None
        name = str(value).removeprefix("torch.")
        if name not in MERGE_DTYPES:
            raise self._refusal(
                f"{key} is {value!r:.60}; expected one of {', '.join(MERGE_DTYPES)}"
            )
        return name

    def _settings(self, values: Mapping[str, Any], place: str) -> Settings:
        found = values.get("parameters")
        return {} if found is None else self._mapping(found, place, None)

    def _list(self, value: object, place: str) -> list[Any]:
        if not isinstance(value, list) or not value:
            raise self._refusal(f"{place} is {value!r:.60}; expected a list of at least one")
        return value

    def _mapping(
        self, value: object, place: str, known: Collection[str] | None
    ) -> Mapping[str, Any]:
        """Check that something is a mapping of known keys; None: of any names."""
        if not isinstance(value, dict):
            raise self._refusal(f"{place} is {value!r:.60}; expected keys and values")
        for key in value:
            if not isinstance(key, str) or (known is not None and key not in known):
                why = f" ({_REFUSED[key]})" if key in _REFUSED else ""
                names = f"; known are {', '.join(known)}" if known and not why else ""
                raise self._refusal(
                    f"{place} has the key {key!r:.60}, which is not read{why}{names}"
                )
        return value

    def _refusal(self, reason: str) -> LlamakitError:
        return LlamakitError(f"{self._source}: {reason}.")
