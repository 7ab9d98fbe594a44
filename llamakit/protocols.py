"""What the packages pass to one another, and what a plugin has to implement.

Shapes: B rows in the batch, V tokens in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

    import numpy
    import torch

    from llamakit.checkpoint.params import ModelParams

Role = Literal["system", "user", "assistant", "tool", "ipython"]


class _Turn(TypedDict):
    role: Role
    """Who speaks: ``system``, ``user`` or ``assistant``; ``tool``, which Meta's code calls
    ``ipython``, where a format has tools."""
    content: str
    """Its text, as it was typed."""


class Message(_Turn, total=False):
    """One turn of a dialog: a dict with a role and a content. A ``Dialog`` is a sequence of them.

    The other keys are for prompt formats that have ``with_tools``.
    """

    tool_calls: Sequence[Mapping[str, Any]]
    """Of an assistant: ``{"name": …, "arguments": {…}}`` each, or as OpenAI's clients write it."""
    tool_call_id: str
    """Of a tool's answer, for the clients that need it."""
    ends: Literal["eot", "eom"]
    """Of an assistant: whether the turn ended, or the message only, to be resumed after a tool's
    answer."""


Dialog = Sequence[Message]


class Row(Protocol):
    """One sequence being written. Rows join and leave a batch; what they carry stays with them."""

    tokens: list[int]
    """The tokens so far, the prompt's first."""

    @property
    def prompt_length(self) -> int:
        """How many of ``tokens`` are the prompt's."""
        ...

    @property
    def stop_tokens(self) -> Collection[int]:
        """Tokens that end this row's answer."""
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
    """Picks a token for each row.

    One that edits the logits itself before it draws may have ``drawn_from(logits, rows)``, which
    returns them as edited, ``(B, V)``. It is called before the draw, and only where a request asks
    for probabilities.
    """

    def __call__(self, logits: torch.Tensor, rows: Sequence[Row], /) -> torch.Tensor:
        """Return ``(B,)`` int64 token IDs for ``(B, V)`` float32 logits. Row i is rows[i]."""
        ...


SamplerFactory = Callable[..., Sampler]
LogitsProcessorFactory = Callable[..., LogitsProcessor]


class Tokenizer(Protocol):
    """Text to tokens and back."""

    path: Path
    """Its file: messages name it."""
    vocab_size: int
    """How many tokens it has, the control tokens among them."""
    bos_id: int
    """The token that a prompt begins with."""
    eos_id: int
    """The token that ends an answer, where a prompt format names no others."""

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        """Return the tokens of ``text``; text never becomes a control token.

        Args:
            bos: put ``bos_id`` before them.
            eos: put ``eos_id`` behind them.
        """
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of ``tokens``; control tokens have none."""
        ...


class OpenTokenizer(Tokenizer, Protocol):
    """A tokenizer that also says what its tokens are: the built-in ones do.

    All of it is optional. A tokenizer without the methods does for everything but prompt formats
    that write special tokens, and for constrained output: ask with ``getattr(tokenizer,
    "special_ids", None)``.
    """

    stop_ids: Collection[int]
    """The tokens that end an answer; without it, ``eos_id`` alone."""
    prompt_format: str
    """The name of the prompt format that its chat models were trained with; without it,
    ``llama2``."""

    def for_model(self, params: ModelParams) -> Tokenizer:
        """Return the tokenizer as the model with these numbers uses it.

        For files that do not say it themselves, as tiktoken ranks do not name the control tokens.
        """
        ...

    def special_ids(self) -> Mapping[str, int]:
        """Return the token IDs, by name, that a prompt format may write and no text may become."""
        ...

    def token_bytes(self) -> Sequence[bytes]:
        """Return what each token adds to a string, in UTF-8; ``b""`` where it adds none."""
        ...


class PromptFormat(Protocol):
    """A dialog to tokens.

    A format may also have ``stop_strings``, a sequence of strings that end an answer and are not
    part of it, for models that write the end of a turn as text. It is optional: without it there
    are none.
    """

    @property
    def stop_tokens(self) -> Sequence[int]:
        """Tokens that end an answer."""
        ...

    def encode(self, dialog: Dialog) -> list[int]:
        """Return the prompt that asks for the next assistant message.

        Raises:
            SpecialTagError: a message's text holds one of the format's tags.
            DialogError: the roles are not in the order that the format knows.
        """
        ...


class TextFormat(PromptFormat, Protocol):
    """A prompt format that encodes a string without a dialog as well.

    ``generate`` passes it the prompts that are plain strings, which otherwise are continued.
    """

    keeps_space: bool
    """An answer continues where the prompt breaks off; a space at its start is its own."""

    def encode_text(self, text: str) -> list[int]:
        """Return the prompt for a string.

        Raises:
            PromptError: the text is not what the format wants.
        """
        ...


@dataclass(frozen=True)
class ToolCall:
    """A call that the model asks for.

    Args:
        arguments: by the names of the tool's parameters; JSON values.
    """

    name: str
    arguments: Mapping[str, Any]

    def as_openai(self) -> dict[str, Any]:
        """Return an entry of OpenAI's ``tool_calls``, with an ID of its own."""
        import json
        import secrets

        arguments = json.dumps(self.arguments, ensure_ascii=False)
        return {
            "id": f"call_{secrets.token_hex(12)}",
            "type": "function",
            "function": {"name": self.name, "arguments": arguments},
        }


@dataclass(frozen=True)
class ParsedAnswer:
    """An answer, its calls apart from its text."""

    content: str
    tool_calls: Sequence[ToolCall] = ()

    def as_message(self) -> Message:
        """Return OpenAI's message of the assistant, which may go back into the dialog."""
        if not self.tool_calls:
            return {"role": "assistant", "content": self.content}
        calls = [call.as_openai() for call in self.tool_calls]
        return {"role": "assistant", "content": self.content, "tool_calls": calls}


class ToolFormat(PromptFormat, Protocol):
    """A prompt format that writes tools, their calls and their answers as well."""

    has_tools: bool
    """The prompt describes tools to the model, so its answers may be calls."""

    def with_tools(self, tools: object) -> ToolFormat:
        """Return the format with these tools described to the model.

        Args:
            tools: a list, in the format of OpenAI's API.
        Raises:
            DialogError: they are something else.
        """
        ...

    def read_answer(self, tokens: Sequence[int]) -> ParsedAnswer:
        """Separate the tool calls of an answer from its text."""
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
        """Return the files of weights, which ``inspect`` counts and ``reshard.json`` lists."""
        ...

    def companion_files(self, target: str) -> Sequence[Path]:
        """Return the files that a conversion copies, as they are, next to what it writes.

        Args:
            target: ``meta`` or ``huggingface``. A ``params.json`` takes the place of the one that
                a conversion to ``meta`` would write; a file by any other name that a conversion
                writes is refused.
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


class Exporter(Protocol):
    """Writes a checkpoint in another format."""

    def __call__(
        self, checkpoint: Checkpoint, destination: Path, options: Mapping[str, Any], /
    ) -> Mapping[str, Any]:
        """Write ``checkpoint`` to ``destination``, which does not exist; report what was done."""
        ...


class Drafter(Protocol):
    """Proposes tokens for the model to check.

    It may also have ``batch(sequences) -> drafts``, asked instead for all rows at once, and
    ``tokenizer``, which is compared with the model's.
    """

    def __call__(self, tokens: Sequence[int], /) -> Sequence[int]:
        """Return the tokens that probably follow ``tokens``; none is an answer too."""
        ...


DrafterFactory = Callable[..., Drafter]


class CatalogEntry(TypedDict, total=False):
    """One model that ``llamakit download`` knows. Only ``folder`` has to be there."""

    names: Sequence[str]
    """What else users call it; its registered name and its folder are known anyway."""
    folder: str
    """Where it is, relative to the link and to the output folder, with its checklist.chk."""
    server_folders: Sequence[str]
    """What the folder may be called on the server, if not as on disk; the first found counts."""
    files: Sequence[str]
    """In the folder, fetched even if the checklist does not list them; else ``params.json``."""
    has_checklist: bool
    """False for a folder without checklist.chk: then ``files`` is all that is fetched."""
    unserved_files: Sequence[str]
    """Files that the checklist lists and the server does not have: not fetched, not missed."""
    shards: int
    """How many ``consolidated.NN.pth`` there should be; the checklist decides."""
    shard_nbytes: int
    """About how large one is, for planning, 0 if unknown; the server's own sizes hold."""
    family: str
    """Such as ``Llama 2``; a signed link is good for one family."""
    hosts: Sequence[str]
    """Hosts of the family's signed links. ``all`` means every model that has one."""
    root_files: Sequence[str]
    """Shared files next to the folder; ``LICENSE`` and ``USE_POLICY.md`` if not given."""
    tokenizer_files: Sequence[str]
    """Next to the folder too; ``tokenizer.model`` and ``tokenizer_checklist.chk`` if not given."""
    unverified: Sequence[str]
    """The keys whose values nobody has compared with the server."""


CatalogueEntry = CatalogEntry
"""The name of ``CatalogEntry`` in 0.1."""
