"""Lines of OpenAI's batch files: a request each, with its own sampling settings.

Source: https://platform.openai.com/docs/guides/batch (the input file).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llamakit.errors import FileFormatError
from llamakit.plugin_manager.factories import Choice
from llamakit.printable import printable

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
LINE_KEYS = ("custom_id", "method", "url", "body")
ANSWER_KEYS = ("id", "response", "error", "llamakit")
_PENALTIES = ("frequency_penalty", "presence_penalty")
_NUMBERS = ("temperature", "top_p", "min_p", "repetition_penalty", *_PENALTIES)
_COUNTS = ("max_tokens", "max_completion_tokens", "top_k", "seed")
_OTHERS = ("messages", "prompt", "tools", "stop", "logit_bias", "response_format")
_READ = (*_OTHERS, *_NUMBERS, *_COUNTS)
_OF_NO_EFFECT = ("model", "user", "metadata", "store", "service_tier", "parallel_tool_calls")
"""Fields that do not change what one model answers here."""
_ONLY: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "stream": (False,),
    "logprobs": (False,),
    "echo": (False,),
    "tool_choice": ("auto", "none"),
}
"""Fields that are read with these values alone."""


@dataclass(frozen=True)
class OwnSettings:
    """What one line asks for itself; None and empty leave it to the command line.

    Args:
        url: of the endpoint that the line is for.
    """

    url: str
    temperature: float | None = None
    top_p: float | None = None
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    processors: tuple[Choice, ...] = ()

    def key(self) -> str:
        """Return what is equal where the settings are."""
        return repr(self)


def read_body(line: Mapping[str, Any], where: str) -> tuple[dict[str, Any], OwnSettings]:
    """Read a line of a batch file.

    Args:
        where: the place, for error messages.
    Returns:
        The line as of a file of prompts (``prompt`` or ``messages``, ``tools``, ``seed``, ``id``),
        and the settings that it has of its own.
    Raises:
        FileFormatError: it asks for something that is not done here.
    """
    given, url = line.get("body"), line.get("url")
    if not isinstance(given, dict) or line.get("method", "POST") != "POST":
        raise FileFormatError(f'{where}: expected "method": "POST" and a body that is an object')
    body = {name: value for name, value in given.items() if value is not None}
    url = url or (CHAT if "messages" in body else COMPLETIONS)
    content = {CHAT: "messages", COMPLETIONS: "prompt"}.get(url)
    if content is None:
        raise FileFormatError(
            f"{where}: url is {printable(url)!r}; expected {CHAT} or {COMPLETIONS}"
        )
    if content not in body:
        raise FileFormatError(f"{where}: the body has no {content}, which {url} answers")
    _check_fields(body, where)
    plain = {name: body[name] for name in (content, "tools", "seed") if name in body}
    if body.get("tool_choice") == "none":
        plain.pop("tools", None)
    return {"id": line.get("custom_id"), **plain}, _settings(body, url, where)


def check_no_settings(line: Mapping[str, Any], where: str, command: str) -> None:
    """Refuse a line that asks for something that a command does not do.

    Args:
        command: its name.
    Raises:
        FileFormatError: the body has other fields than the prompt or the messages.
    """
    without = ("messages", "prompt", *_OF_NO_EFFECT, *_ONLY)
    body = line["body"] if isinstance(line["body"], dict) else {}
    for name, value in body.items():
        if name not in without and value is not None:
            raise FileFormatError(
                f"{where}: the body has {printable(name)!r}, which {command} does not read"
            )


def _check_fields(body: Mapping[str, Any], where: str) -> None:
    for name, value in body.items():
        if name in _ONLY and (type(value), value) not in [(type(it), it) for it in _ONLY[name]]:
            raise FileFormatError(
                f"{where}: {name} is {printable(value)}; expected "
                f"{' or '.join(map(str, _ONLY[name]))}"
            )
        if name not in (*_READ, *_OF_NO_EFFECT, *_ONLY):
            raise FileFormatError(f"{where}: the body has {printable(name)!r}, which is not read")
    for names, kinds in ((_NUMBERS, (int, float)), (_COUNTS, (int,))):
        for name in names:
            value = body.get(name, 0)
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise FileFormatError(f"{where}: {name} is {printable(value)}; expected a number")


def _settings(body: Mapping[str, Any], url: str, where: str) -> OwnSettings:
    stop = body.get("stop", [])
    stop = [stop] if isinstance(stop, str) else stop
    if not isinstance(stop, list) or not all(isinstance(it, str) and it for it in stop):
        raise FileFormatError(f"{where}: stop has to be a string, or a list of strings")
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    limit = None if limit == -1 else limit  # as other servers write that there is no limit
    if limit is not None and limit < 1:
        raise FileFormatError(f"{where}: max_tokens is {limit}; expected 1 or more")
    return OwnSettings(
        url,
        body.get("temperature"),
        body.get("top_p"),
        limit,
        tuple(stop),
        tuple(_processors(body, where)),
    )


def _processors(body: Mapping[str, Any], where: str) -> list[Choice]:
    chosen = []
    if schema := _schema(body.get("response_format", {"type": "text"}), where):
        chosen.append(Choice("json-schema", {"schema": schema}))
    if bias := body.get("logit_bias"):
        if not isinstance(bias, dict):
            raise FileFormatError(f"{where}: logit_bias has to be an object")
        pairs = ",".join(f"{token}:{value}" for token, value in bias.items())
        chosen.append(Choice("logit-bias", {"bias": pairs}))
    chosen += [
        Choice(name.replace("_", "-"), {"penalty": body[name]})
        for name in (*_PENALTIES, "repetition_penalty")
        if body.get(name)
    ]
    for name, option in (("top_k", "k"), ("min_p", "p")):
        if body.get(name):
            chosen.append(Choice(name.replace("_", "-"), {option: body[name]}))
    return chosen


def _schema(wanted: Any, where: str) -> str:
    """Return the JSON schema that an answer has to fit; empty: any text."""
    match wanted:
        case {"type": "text"}:
            return ""
        case {"type": "json_object"}:
            return '{"type": "object"}'
        case {"type": "json_schema", "json_schema": {"schema": dict() as schema}}:
            return json.dumps(schema)
    raise FileFormatError(
        f"{where}: response_format is {printable(wanted)}; expected an object with the type text, "
        "json_object or json_schema"
    )
