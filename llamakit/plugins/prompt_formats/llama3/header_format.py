"""Messages between headers, as Llama 3 and 4 were trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from llamakit.errors import DialogError, TokenizerError
from llamakit.llama.tool_call_reader import read_answer
from llamakit.llama.tool_calls import CODE_INTERPRETER, tool_calls_of
from llamakit.plugins.prompt_formats.llama3.tools import Style, call_text, check_tools, describe
from llamakit.protocols import ParsedAnswer, ToolCall

if TYPE_CHECKING:
    from llamakit.protocols import Dialog, Message, Tokenizer

ROLES = {"system": "system", "user": "user", "assistant": "assistant"} | dict.fromkeys(
    ("tool", "ipython"), "ipython"
)
"""What is written for a role."""
CUTOFF = "December 2023"


@dataclass(frozen=True)
class Tags:
    """The names of the special tokens around messages.

    Args:
        end: of a turn.
        expects: ends a message after which a tool's answer is expected. Where its name is
            reserved, as in Llama 3.0, it is the token before ``end``.
        code: comes before code; behind ``end``, where its name is reserved.
        ends_tools: tool messages, and those that call tools, end as ``expects`` says.
        style: in which tools are described if nothing else is said.
    """

    start: str
    stop: str
    end: str
    expects: str
    code: str
    ends_tools: bool
    style: Style


LLAMA_3 = Tags(
    *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>"),
    ends_tools=False,
    style="json",
)
LLAMA_4 = Tags(
    *("<|header_start|>", "<|header_end|>", "<|eot|>", "<|eom|>", "<|python_start|>"),
    ends_tools=True,
    style="python-list",
)


@dataclass(frozen=True)
class Settings:
    """What a user may choose.

    Args:
        trim: remove white space at both ends of messages, as Hugging Face's templates do.
        date: written into the system message; ``today`` is today's; none writes no date.
        style: how tools are described, and calls written; None is the family's.
        builtin: names of built-in tools to be switched on.
        tools: functions, as ``check_tools`` returns them.
    """

    trim: bool = False
    date: str | None = None
    style: Style | None = None
    builtin: Sequence[str] = ()
    tools: Sequence[Mapping[str, Any]] = field(default=())


class HeaderFormat:
    """A header with the role, an empty line, the content and the end of the turn, a message each.

    Every string is encoded by itself, so that none runs into the tags around it.

    Source: ``models/llama3/chat_format.py`` and ``models/llama4/chat_format.py`` of
        https://github.com/meta-llama/llama-models
    """

    variables = ("date_string",)

    def __init__(self, tokenizer: Tokenizer, tags: Tags, settings: Settings) -> None:
        self._tokenizer, self._tags, self._settings = tokenizer, tags, settings
        special = _special_ids(tokenizer, tags)
        self._start, self._stop = special[tags.start], special[tags.stop]
        self._end = special[tags.end]
        self._expects = special.get(tags.expects, self._end - 1)
        self.call_token = special.get(tags.code, self._end + 1)
        self.stop_tokens = (tokenizer.eos_id, self._expects, self._end)
        self.has_tools = bool(settings.tools or settings.builtin)

    def with_tools(self, tools: object) -> HeaderFormat:
        """Return the format with other tools described.

        Args:
            tools: a list, as OpenAI's clients send it.
        Raises:
            DialogError: they are something else.
        """
        settings = replace(self._settings, tools=check_tools(tools))
        return HeaderFormat(self._tokenizer, self._tags, settings)

    def with_variables(self, variables: Mapping[str, Any]) -> HeaderFormat:
        """Return the format with the variables of Meta's own chat templates.

        Args:
            variables: ``date_string``, the date that the system message has.
        Raises:
            DialogError: it is no string.
        """
        date = variables["date_string"]
        if not isinstance(date, str):
            raise DialogError(f"date_string is {date!r:.60}; it has to be a string")
        settings = replace(self._settings, date=date)
        return HeaderFormat(self._tokenizer, self._tags, settings)

    def encode(self, dialog: Dialog) -> list[int]:
        """Return the prompt that asks for the next assistant message.

        Raises:
            DialogError: there is no message, one has an unknown role, or a call is none.
        """
        _check_roles(dialog)
        tokens = [self._tokenizer.bos_id]
        for number, message in self._with_instructions(dialog):
            tokens += self._message(message, number)
        return tokens + self._header("assistant")

    def read_answer(self, tokens: Sequence[int]) -> ParsedAnswer:
        """Separate the tool calls of an answer from its text."""
        decode = self._tokenizer.decode
        if self.call_token not in tokens:
            return read_answer(decode(tokens))
        at = list(tokens).index(self.call_token)
        answer = read_answer(decode(tokens[at + 1 :]), tagged=True)
        return replace(answer, content=f"{decode(tokens[:at])}{answer.content}".strip())

    def _header(self, role: str) -> list[int]:
        encode = self._tokenizer.encode
        return [self._start, *encode(role), self._stop, *encode("\n\n")]

    def _message(self, message: Message, number: int) -> list[int]:
        role, encode = ROLES[message["role"]], self._tokenizer.encode
        calls = tool_calls_of(message, number) if role == "assistant" else []
        tokens = self._header(role)
        if calls and calls[0].name == CODE_INTERPRETER and not self._tags.ends_tools:
            tokens.append(self.call_token)
        content = message.get("content") or ""  # OpenAI's clients send none with calls
        tokens += encode(self._trimmed(content))
        for call in calls:
            tokens += encode(call_text(call, self._style(), number))
        return [*tokens, self._expects if self._expects_more(message, role, calls) else self._end]

    def _trimmed(self, content: str) -> str:
        return content.strip() if self._settings.trim else content

    def _expects_more(self, message: Message, role: str, calls: Sequence[ToolCall]) -> bool:
        if role == "assistant" and message.get("ends") == "eom":
            return True
        return self._tags.ends_tools and (role == "ipython" or bool(calls))

    def _style(self) -> Style:
        """Return how calls are written: as Meta's code does, unless tools are described."""
        settings = self._settings
        return settings.style or (self._tags.style if settings.tools else "json")

    def _with_instructions(self, dialog: Dialog) -> list[tuple[int, Message]]:
        """Number the messages, with what the settings say of the date and of tools before them."""
        messages = list(enumerate(dialog, start=1))
        description = self._description()
        in_system = description if self._style() == "python-list" else ""
        if description and not in_system:
            at = 1 if dialog[0]["role"] == "system" else 0
            messages.insert(at, (0, {"role": "user", "content": description}))
        return self._with_system_lines(messages, in_system)

    def _description(self) -> str:
        tools = self._settings.tools
        return describe(tools, self._style()) if tools else ""

    def _with_system_lines(
        self, messages: list[tuple[int, Message]], description: str
    ) -> list[tuple[int, Message]]:
        """Begin the system message with what the settings say."""
        parts = ["\n".join(lines)] if (lines := self._system_lines()) else []
        parts += [description] if description else []
        if not parts:
            return messages
        number, first = messages[0]
        if first["role"] == "system":
            messages = messages[1:]
            parts.append(self._trimmed(first["content"]))
        elif lines:
            parts.append("")
        system: Message = {"role": "system", "content": "\n\n".join(parts)}
        return [(number, system), *messages]

    def _system_lines(self) -> list[str]:
        settings = self._settings
        lines = []
        if settings.builtin or (settings.tools and self._style() == "json"):
            lines.append("Environment: ipython")
        if searches := [name for name in settings.builtin if name != CODE_INTERPRETER]:
            lines.append(f"Tools: {', '.join(searches)}")
        if settings.date is not None:
            is_today = settings.date == "today"
            date = f"{datetime.now():%d %b %Y}" if is_today else settings.date
            lines += [f"Cutting Knowledge Date: {CUTOFF}", f"Today Date: {date}"]
        return lines


def _check_roles(dialog: Dialog) -> None:
    if not dialog:
        raise DialogError("the dialog has no message: give at least the user's")
    for number, message in enumerate(dialog, start=1):
        if message["role"] not in ROLES:
            raise DialogError(
                f"message {number} has the role {message['role']!r}; known: {', '.join(ROLES)}"
            )


def _special_ids(tokenizer: Tokenizer, tags: Tags) -> Mapping[str, int]:
    special: Mapping[str, int] = getattr(tokenizer, "special_ids", dict)()
    if missing := [name for name in (tags.start, tags.stop, tags.end) if name not in special]:
        family = "Llama 3" if tags is LLAMA_3 else "Llama 4"
        raise TokenizerError(
            f"{tokenizer.path} has no token {missing[0]}: it is not the tokenizer of a {family}, "
            "which this prompt format is for"
        )
    return special
