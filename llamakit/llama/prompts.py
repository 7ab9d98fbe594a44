"""Prompts from arguments, from standard input and from files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from llamakit.errors import (
    FileFormatError,
    InvalidJSONError,
    OptionError,
    UsageError,
)
from llamakit.files.json_reader import MAX_NBYTES, parse_json
from llamakit.files.regular_file import open_regular
from llamakit.files.text import decoded_lines
from llamakit.llama import openai_batch
from llamakit.llama.message_content import content_of, text_of
from llamakit.llama.prompt_checks import check_unicode
from llamakit.llama.seeds import check_seed
from llamakit.protocols import Dialog

_ANSWER = "index text finish_reason prompt_tokens new_tokens tokens settings tool_calls logprobs"
ROLES = ("system", "user", "assistant", "tool", "ipython")
TOOL_KEYS = ("tool_calls", "tool_call_id", "ends")
"""What a message may have besides, for prompt formats that have tools."""


@dataclass(frozen=True)
class LineKeys:
    """What a command makes of the keys of a line; those that it does not read are kept.

    Args:
        command: its name.
        answer: the keys that the line of an answer has besides; a prompt may not have them.
        read: other keys than ``prompt``, ``messages`` and ``id``.
        settings: it reads the settings of OpenAI's batch files.
    """

    command: str
    answer: Sequence[str]
    read: Sequence[str] = ()
    settings: bool = False


GENERATE = LineKeys(
    "generate",
    (*_ANSWER.split(), "prompt_logprobs", "drafted", "accepted", "observed"),
    ("tools", "seed"),
    settings=True,
)


@dataclass(frozen=True)
class Prompt:
    """A prompt: a string to continue, or a dialog to answer.

    Args:
        text: None when it is a dialog.
        tools: described to the model, in the format of OpenAI's API; with a dialog only.
        id: what the file calls it; None where it has no name.
        seed: its own, if the file gives one.
        own: settings of its own, if it is a line of OpenAI's batch files.
        more: the other keys of its line; the line of its answer has them too.
    """

    text: str | None = None
    dialog: Dialog | None = None
    tools: Sequence[Any] | None = None
    id: str | int | None = None
    seed: int | None = None
    own: openai_batch.OwnSettings | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def named(self) -> dict[str, Any]:
        """Its id, if it has one, and the other keys of its line."""
        return {**self.more, **({} if self.id is None else {"id": self.id})}

    @property
    def digest(self) -> str:
        """A hash of its text or dialog, its tools, and settings of its own."""
        content = digest(self.text if self.dialog is None else self.dialog, self.tools)
        return content if self.own is None else digest([content, self.own.key()])


def digest(content: object, tools: object = None) -> str:
    """Return a hash of a prompt's text or messages, and of its tools."""
    content = [content, tools] if tools else content
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def read_prompts(
    arguments: Sequence[str], file: Path | None, keys: LineKeys = GENERATE
) -> list[Prompt]:
    """Collect prompts: arguments first (``-`` is standard input), then the file's.

    Args:
        keys: of the command that reads them.
    Raises:
        UsageError: there is none.
        FileFormatError: a line of the file is no prompt.
        PromptError: a prompt is not UTF-8 text.
    """
    prompts = [
        Prompt(text.removesuffix("\n") if argument == "-" else text)
        for argument, text in zip(arguments, argument_texts(arguments), strict=True)
    ]
    if file is not None:
        with opened_lines(file) as (lines, name):
            prompts += read_jsonl(lines, name, keys)
    if not prompts:
        raise UsageError(
            'no prompt: give one, such as "Once upon a time", or - for standard input, or '
            "--prompts FILE.jsonl"
        )
    return prompts


def argument_texts(arguments: Sequence[str]) -> list[str]:
    """Return the texts of arguments; that of ``-`` is standard input.

    Raises:
        PromptError: one is not UTF-8 text.
    """
    texts = []
    for argument in arguments:
        text = sys.stdin.read() if argument == "-" else _argument_text(argument)
        check_unicode(text, "standard input" if argument == "-" else "the prompt")
        # PowerShell's pipes begin with a byte-order mark
        texts.append(text.removeprefix("\ufeff") if argument == "-" else text)
    return texts


@contextlib.contextmanager
def opened_lines(file: Path) -> Iterator[tuple[IO[Any], str]]:
    """Open a file of JSON Lines, or standard input for ``-``; yield it and its name."""
    if str(file) == "-":  # bytes: JSON is UTF-8 whatever the locale
        yield getattr(sys.stdin, "buffer", sys.stdin), "standard input"
    else:
        with open_regular(file) as raw, decoded_lines(raw) as lines:
            yield lines, str(file)


def _argument_text(argument: str) -> str:
    """Return an argument as the text that it is in UTF-8, where the locale knows ASCII alone."""
    if argument.isascii() or sys.getfilesystemencoding() == "utf-8":
        return argument
    try:
        return os.fsencode(argument).decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return argument


def read_jsonl(lines: IO[Any], name: str, keys: LineKeys = GENERATE) -> Iterator[Prompt]:
    """Read one prompt a line; empty lines are skipped.

    A line is ``{"prompt": "…"}``, ``{"messages": [{"role": …, "content": …}]}`` or a JSON string;
    an object may have an ``id``, and for ``generate`` a ``seed``, and one with messages ``tools``.
    A line of OpenAI's batch files is read, too.

    Raises:
        FileFormatError: a line is something else; the message names it.
    """
    for value, where in json_lines(lines, name, _EXPECTED):
        yield _prompt(value, where, keys)


def parse_prompts(values: Iterable[Any], name: str, keys: LineKeys = GENERATE) -> Iterator[Prompt]:
    """Yield the prompts that others have read from a file. Raises: as ``read_jsonl``.

    Args:
        values: each what a line of JSON Lines would be.
        name: of the file.
    """
    for number, value in enumerate(values, start=1):
        yield _prompt(value, f"{name}, prompt {number}", keys)


def json_lines(lines: IO[Any], name: str, expected: str) -> Iterator[tuple[Any, str]]:
    """Read one JSON value a line; empty lines are skipped.

    Args:
        expected: the end of the message about a line that is not JSON.
    Yields:
        Each value, and where it is from.
    Raises:
        FileFormatError: a line is not JSON; the message names it.
    """
    number = 0
    while line := _next_line(lines, f"{name}, line {number + 1}", expected):
        number += 1
        if line.strip():
            where = f"{name}, line {number}"
            try:
                value = parse_json(line, where)
            except InvalidJSONError as error:
                raise FileFormatError(f"{where}: not JSON ({error.reason}); {expected}") from error
            yield value, where


def check_id(value: Any, where: str) -> str | int | None:
    """Return ``value`` as an id, or None.

    Raises:
        FileFormatError: it is neither a string nor a whole number.
    """
    if value is None or (isinstance(value, str | int) and not isinstance(value, bool)):
        return value
    raise FileFormatError(f"{where}: id has to be a string or a whole number")


def _next_line(lines: IO[Any], where: str, expected: str) -> Any:
    try:
        return lines.readline(MAX_NBYTES + 1)
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{where}: no text in {error.encoding}; {expected}") from error


_EXPECTED = 'expected {"prompt": "text"} or {"messages": [{"role": "user", "content": "text"}]}'


def _prompt(value: Any, where: str, keys: LineKeys) -> Prompt:
    if isinstance(value, str):
        return Prompt(value)
    own = None
    if isinstance(value, dict) and "body" in value:
        taken = openai_batch.ANSWER_KEYS if keys.settings else ("id", *keys.answer)
        more = _others(value, openai_batch.LINE_KEYS, taken, where)
        if not keys.settings:
            openai_batch.check_no_settings(value, where, keys.command)
        value, own = openai_batch.read_body(value, where)
    elif not isinstance(value, dict) or ("prompt" in value) == ("messages" in value):
        raise FileFormatError(f"{where}: {_EXPECTED}")
    else:
        read = ("prompt", "messages", "id", *keys.read)
        more = _others(value, read, keys.answer, where)
        value = {it: value[it] for it in ("custom_id", *read) if it in value}
        value = {"id": value.get("custom_id"), **value}
    name = check_id(value.get("id"), where)
    seed = value.get("seed")
    if seed is not None:
        try:
            check_seed(seed)
        except OptionError as error:
            raise FileFormatError(f"{where}: {error}") from None
    text = value.get("prompt")
    if text is not None and not isinstance(text, str):
        raise FileFormatError(f"{where}: prompt has to be a string")
    dialog = check_dialog(value["messages"], where) if text is None else None
    tools = value.get("tools")
    if tools is not None and (not isinstance(tools, list) or dialog is None):
        raise FileFormatError(f"{where}: tools have to be a list, next to messages")
    return Prompt(text, dialog, tools, name, seed, own, more)


def _others(
    line: Mapping[str, Any], read: Sequence[str], taken: Sequence[str], where: str
) -> dict[str, Any]:
    """Return the keys of a line that are not read; its answer has them.

    Raises:
        FileFormatError: the answer has such a key itself.
    """
    if clash := sorted(set(taken) & set(line)):
        raise FileFormatError(
            f"{where}: the key {clash[0]!r} is one of the answer's, which has the other keys of "
            "its prompt: give it another name"
        )
    return {name: value for name, value in line.items() if name not in read}


def check_dialog(value: Any, where: str) -> Dialog:
    """Return ``value`` as a dialog.

    Args:
        where: the place, for error messages.
    Raises:
        FileFormatError: it is not a list of messages.
    """
    messages = [_message(message) for message in value] if isinstance(value, list) else [None]
    if None in messages:
        raise FileFormatError(
            f"{where}: messages have to be a list of objects with a role (system, user, "
            "assistant or tool) and a content (text)"
        )
    return cast(Dialog, messages)


def _message(value: Any) -> dict[str, Any] | None:
    """Return what is known of a message, or None if it is none."""
    role = value.get("role") if isinstance(value, dict) else None
    role = "system" if role == "developer" else role
    if role not in ROLES or (content := text_of(content_of(value))) is None:
        return None
    tool_keys = {key: value[key] for key in TOOL_KEYS if value.get(key) is not None}
    return {"role": role, "content": content, **tool_keys}
