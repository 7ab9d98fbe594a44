"""Checkpoints of any format, and what they may offer besides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

    import numpy

    from llamakit.checkpoint.params import ModelParams

__all__ = [
    "Checkpoint",
    "CheckpointCapabilities",
    "Finding",
    "Parameter",
    "Quantization",
    "QuantizedWeight",
    "RawRegion",
    "RowOrder",
    "ToolCommand",
]


@dataclass(frozen=True)
class Parameter:
    """What the index of a checkpoint says of one parameter, whole."""

    name: str
    """Meta's name, such as ``layers.0.attention.wq.weight``."""
    shape: tuple[int, ...]
    """The shape of the whole parameter, over all shards."""
    dtype: str
    """``float32``, ``bfloat16``, ``float16`` …"""
    axis: int | None
    """The axis that model parallelism splits, or None: every rank holds the whole."""

    @property
    def numel(self) -> int:
        """How many values it holds."""
        count = 1
        for length in self.shape:
            count *= length
        return count


@runtime_checkable
class Checkpoint(Protocol):
    """A model on disk, whatever its format: opened from its indexes, read piece by piece."""

    path: Path
    """Its folder: messages name it, a tokenizer is looked for in it and in its parent, and no
    conversion replaces it."""
    form: str
    """``meta``, ``huggingface``, or what a plugin calls its own."""
    params: ModelParams
    parameters: Mapping[str, Parameter]
    """By Meta's name, in the order of the model."""

    @property
    def nbytes_read(self) -> int:
        """How many bytes of weights ``read`` has returned so far."""
        ...

    def read(
        self, name: str, *, axis: int = 0, start: int = 0, stop: int | None = None
    ) -> numpy.ndarray[Any, Any]:
        """Read one parameter, or the slice ``start:stop`` of it along ``axis``.

        Only the bytes of that slice are touched. bfloat16 is ``ml_dtypes.bfloat16``;
        ``llamakit.to_torch`` makes a tensor of the array. Conversions call this from several
        threads, for rows (axis 0).

        Raises:
            KeyError: no such parameter.
            DamagedFileError: the file ends before the bytes do.
        """
        ...


RowOrder = Literal["meta", "huggingface"]
"""Of the rows of query and key projections, which the rotary embedding pairs: neighbours in Meta's
order, halves of a head in Hugging Face's."""


@dataclass(frozen=True)
class RawRegion:
    """A part of a parameter that is in one place of a file: row-major, little-endian, no gaps."""

    path: Path
    """The file."""
    offset: int
    """Bytes from the start of the file to the first value."""
    shape: tuple[int, ...]
    """As the whole parameter's, but for the length along its ``axis``."""
    order: RowOrder = "meta"


Quantization = Literal["int8", "int4"]
"""How a weight is rounded, as ``--quantize`` names it."""


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight, or a slice of one, as integers and their scales: N outputs, K inputs."""

    kind: Quantization
    values: numpy.ndarray[Any, Any]
    """int8: ``(N, K)`` int8. int4: ``(N, K/2)`` uint8, each of two numbers from 0 to 15, that of
    the even column in its low bits."""
    scales: numpy.ndarray[Any, Any]
    """int8: ``(N,)`` float32; the weight is ``value * scale``. int4: ``(N, K/32, 2)`` bfloat16, of
    each group of 32 columns the step and the middle; it is ``(number - 8) * step + middle``."""


@dataclass(frozen=True)
class Finding:
    """What a check of a checkpoint has shown, as one sentence."""

    sentence: str
    kind: Literal["checked", "fault", "not checked"]


class CheckpointCapabilities(Checkpoint, Protocol):
    """What a checkpoint may offer besides.

    Each method is optional, and what lacks one works by ``read`` alone. They count as methods of
    the class, and where a derived class has a ``read`` of its own, what it inherits does not count.
    """

    def raw_regions(self, name: str) -> Sequence[RawRegion] | None:
        """Say where the bytes of a parameter are, so that conversions copy them from the files.

        Returns:
            Regions that follow one another along the parameter's ``axis``, or axis 0 where that
            is None, and split no attention head; None to have ``read`` called.
        """
        ...

    def stored_names(self) -> Sequence[str]:
        """Return the names of all parameters in the order that conversions go through them.

        That of the bytes in the files is the quickest. Without it: that of ``parameters``.
        """
        ...

    def model_parallel_size(self) -> int:
        """Return how many shards the weights are split into; without it: 1."""
        ...

    def weight_files(self) -> Sequence[Path]:
        """Return the files of weights, which ``inspect`` counts and ``llamakit.json`` lists."""
        ...

    def companion_files(self, target: str) -> Sequence[Path]:
        """Return the files that a conversion copies, as they are, next to what it writes.

        Args:
            target: ``meta`` or ``huggingface``. A ``params.json`` takes the place of the one that
                a conversion to ``meta`` would write; a file by any other name that a conversion
                writes is refused.
        """
        ...

    def embedded_files(self) -> Mapping[str, bytes]:
        """Return small files whose content is in the file of the weights, by the names they get.

        Such are a ``tokenizer.model``, ``tokenizer_config.json``, ``chat_template.jinja`` and
        ``generation_config.json``. Conversions and exporters take them for files in its folder, and
        look for a tokenizer elsewhere only if none is among them.
        """
        ...

    def deep_checks(self) -> Iterable[Finding]:
        """Check the values, for ``verify --deep``, and say what that has shown.

        Raises:
            CheckpointError: something is wrong; it counts as a fault.
        """
        ...

    def oddities(self) -> Iterable[str]:
        """Say what is unusual but not wrong, for ``inspect``: a sentence each."""
        ...

    def provenance_sources(self) -> Sequence[Checkpoint]:
        """Return the checkpoints that it is computed from, such as the two of a merge.

        ``llamakit.json`` lists their files and takes over their histories. Without it: itself.
        """
        ...

    def unsupported(self) -> str:
        """Say why its weights cannot be computed with or converted, or return ``""``.

        ``inspect`` shows the sentence; whatever would compute with the weights refuses with it.
        """
        ...

    def stored_as(self) -> str:
        """Say which weights are stored how, if ``read`` multiplies some out; else ``""``.

        Such as ``weights are stored rounded (22 int8)``. ``inspect`` shows it, conversions warn.
        """
        ...

    def quantization(self) -> Quantization | None:
        """Return the ``--quantize`` that the weights are stored for, which is then the default."""
        ...

    def quantization_of(self, name: str) -> Quantization | None:
        """Return how a parameter is stored; None if ``read`` returns what is stored."""
        ...

    def read_quantized(
        self, name: str, *, axis: int = 0, start: int = 0, stop: int | None = None
    ) -> QuantizedWeight:
        """Read a parameter for which ``quantization_of`` is not None, as it is stored.

        ``read`` returns the same values multiplied out. int4 is asked for whole groups only.

        Raises: as ``read``.
        """
        ...


@dataclass(frozen=True)
class ToolCommand:
    """The command that ``llamakit.json`` says has made a checkpoint."""

    name: str
    """Such as ``merge``."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What was asked for: strings, numbers, booleans and lists of them; None is left out. Nothing
    secret, and of a path its last name only: checkpoints are passed on with this."""
    made_by: str = ""
    """The program and its version, such as ``llamakit-merge 0.1``; without it: llamakit's."""
