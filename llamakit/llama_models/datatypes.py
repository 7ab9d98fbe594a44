"""Messages and results, as ``llama_models/datatypes.py`` has them: dataclasses here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from llamakit import protocols
from llamakit.errors import UnsupportedModelError, UsageError
from llamakit.protocols import Message


class Role(Enum):
    """Who speaks."""

    system = "system"
    user = "user"
    assistant = "assistant"
    tool = "tool"


class StopReason(Enum):
    """Why an assistant's message ended."""

    end_of_turn = "end_of_turn"
    end_of_message = "end_of_message"
    out_of_tokens = "out_of_tokens"


class BuiltinTool(Enum):
    """Tools that the models know."""

    brave_search = "brave_search"
    wolfram_alpha = "wolfram_alpha"
    photogen = "photogen"
    code_interpreter = "code_interpreter"


class ToolPromptFormat(Enum):
    """How tool calls are written."""

    json = "json"
    function_tag = "function_tag"
    python_list = "python_list"


class QuantizationMode(Enum):
    """Quantization files next to the shards; none of them is read."""

    none = "none"
    fp8_mixed = "fp8_mixed"
    int4_mixed = "int4_mixed"


@dataclass
class ToolCall:
    """A call that an assistant asks for."""

    call_id: str
    tool_name: BuiltinTool | str
    arguments: Mapping[str, Any]


@dataclass
class RawTextItem:
    """A part of a content that is text."""

    text: str
    type: Literal["text"] = "text"


RawContent = str | RawTextItem | Sequence[str | RawTextItem]


@dataclass
class RawMessage:
    """One turn of a dialog.

    Args:
        context: further text of a user, two line ends below the content.
        stop_reason: of an assistant's message.
    """

    role: protocols.Role
    content: RawContent = ""
    context: RawContent | None = None
    stop_reason: StopReason | None = None
    tool_calls: list[ToolCall] = field(default_factory=list)

    def as_message(self) -> Message:
        """Return it as the message of a ``Dialog``."""
        text = content_text(self.content)
        if self.role == "user" and self.context is not None:
            text += f"\n\n{content_text(self.context)}"
        message: Message = {"role": self.role, "content": text}
        if self.role == "assistant":
            message["tool_calls"] = [_call(call) for call in self.tool_calls]
            ends = self.stop_reason == StopReason.end_of_message
            message["ends"] = "eom" if ends else "eot"
        return message


@dataclass
class GenerationResult:
    """A token of an answer, or of its prompt.

    Args:
        text: complete characters; those of several tokens come with the last of them.
        logprobs: of this token, as a list of one.
        source: ``input`` is the prompt.
        finished: the token ends the answer, and is not part of it.
        ignore_token: the answer has ended; others of the batch have not.
    """

    token: int
    text: str
    source: Literal["input", "output"]
    logprobs: list[float] | None
    batch_idx: int
    finished: bool
    ignore_token: bool


def content_text(content: RawContent) -> str:
    """Return the text of a content.

    Raises:
        UnsupportedModelError: it has an image.
        UsageError: it is something else.
    """
    if isinstance(content, str):
        return content
    if isinstance(content, RawTextItem):
        return content.text
    if getattr(content, "type", None) == "image" or not isinstance(content, Sequence):
        kind = type(content).__name__
        raise UnsupportedModelError(f"a content is text here, or a list of texts, not a {kind}")
    return "".join(map(content_text, content))


def check_quantization(mode: QuantizationMode | str | None) -> None:
    """Refuse to load the files of quantized weights. Raises UsageError."""
    if mode not in (None, "none", QuantizationMode.none):
        raise UsageError(
            f"quantization_mode={getattr(mode, 'value', mode)!r} reads files of scales that are "
            "not supported here: leave it out, or quantize plain weights with "
            'quantize="int8" or quantize="int4"'
        )


def _call(call: ToolCall) -> dict[str, Any]:
    name = call.tool_name.value if isinstance(call.tool_name, BuiltinTool) else call.tool_name
    return {"name": name, "arguments": call.arguments}
