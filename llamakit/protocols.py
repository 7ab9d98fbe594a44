"""What the rooms hand to one another, and what a plugin has to look like.

Shapes: B rows in the batch, V ids in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

    import numpy
    import torch

    from llamakit.checkpoint.params import ModelParams

Role = Literal["system", "user", "assistant"]


class Message(TypedDict):
    """One turn of a dialog."""

    role: Role
    content: str


Dialog = Sequence[Message]


class Row(Protocol):
    """One sequence being written. Rows join and leave a batch; what they carry stays with them."""

    tokens: list[int]
    """The ids so far, the prompt's first."""

    @property
    def prompt_length(self) -> int:
        """How many of ``tokens`` are the prompt's."""
        ...

    @property
    def stop_tokens(self) -> Collection[int]:
        """Ids that end this row's answer."""
        ...

    generator: torch.Generator
    """The row's own source of randomness, on the device of the logits."""
    state: dict[Any, Any]
    """Whatever a processor or a sampler must remember from one step to the next."""


class LogitsProcessor(Protocol):
    """Edits logits."""

    def __call__(self, logits: torch.Tensor, rows: Sequence[Row], /) -> torch.Tensor:
        """Return edited logits: ``(B, V)`` float32 in, the same out. Row i of both is rows[i]."""
        ...


class Sampler(Protocol):
    """Picks an id for each row."""

    def __call__(self, logits: torch.Tensor, rows: Sequence[Row], /) -> torch.Tensor:
        """Return ``(B,)`` int64 ids for ``(B, V)`` float32 logits. Row i is rows[i]."""
        ...


SamplerFactory = Callable[..., Sampler]
LogitsProcessorFactory = Callable[..., LogitsProcessor]


class Tokenizer(Protocol):
    """Text to ids and back."""

    path: Path
    vocab_size: int
    bos_id: int
    eos_id: int

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        """Return the ids of ``text``; text never becomes a control id."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of ``tokens``; control ids have none."""
        ...


class PromptFormat(Protocol):
    """A dialog to ids."""

    @property
    def stop_tokens(self) -> Sequence[int]:
        """Ids that end an answer."""
        ...

    def encode(self, dialog: Dialog) -> list[int]:
        """Return the prompt that asks for the next assistant message.

        Raises:
            SpecialTagError: a message's text holds one of the format's tags.
            DialogError: the roles are not in the order that the format knows.
        """
        ...


PromptFormatFactory = Callable[..., PromptFormat]


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
    """The axis that model parallelism cuts, or None: every rank holds the whole."""

    @property
    def numel(self) -> int:
        """How many values it holds."""
        count = 1
        for length in self.shape:
            count *= length
        return count


@runtime_checkable
class Checkpoint(Protocol):
    """A model on disk, whatever its form: opened from its indexes, read piece by piece."""

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
        """How many bytes of weights ``read`` has handed out so far."""
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


class Exporter(Protocol):
    """Writes a checkpoint in another form."""

    def __call__(
        self, checkpoint: Checkpoint, destination: Path, options: Mapping[str, Any], /
    ) -> Mapping[str, Any]:
        """Write ``checkpoint`` to ``destination``, which does not exist; report what was done."""
        ...


class Drafter(Protocol):
    """Proposes ids for the model to check."""

    def __call__(self, tokens: Sequence[int], /) -> Sequence[int]:
        """Return the ids that probably follow ``tokens``; none is an answer too."""
        ...


DrafterFactory = Callable[..., Drafter]


class CatalogueEntry(TypedDict, total=False):
    """One model that ``llamakit download`` knows. Only ``folder`` has to be there."""

    names: Sequence[str]
    """What else users call it; its registered name and its folder are known anyway."""
    folder: str
    """Where it lies, relative to the link and to the output folder, with its checklist.chk."""
    shards: int
    """How many ``consolidated.NN.pth`` there should be; the checklist decides."""
    shard_nbytes: int
    """About how large one is, for planning; the server's own sizes hold."""
    family: str
    """Such as ``Llama 2``; a signed link is good for one family."""
    hosts: Sequence[str]
    """Hosts of the family's signed links. ``all`` means every model that has one."""
    root_files: Sequence[str]
    """Shared files beside the folder; ``LICENSE`` and ``USE_POLICY.md`` if not given."""
    tokenizer_files: Sequence[str]
    """Beside the folder too; ``tokenizer.model`` and ``tokenizer_checklist.chk`` if not given."""
