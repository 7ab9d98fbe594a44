"""The request log: one line a request."""

from __future__ import annotations

import json
import re
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from llamakit.printable import printable

MOST_IGNORED = 20
"""Fields that a line of the log names."""

PROMPT_FIELDS = ("prompt", "messages", "input", "content")

Scope = dict[str, Any]


@dataclass
class Record:
    """The log record of one request. Prompts are in it only if the log may show them."""

    request_id: str
    method: str
    path: str
    client: str
    started: float = field(default_factory=time.monotonic)
    status: int = 0
    notes: dict[str, Any] = field(default_factory=dict)

    def note_prompt(self, body: Mapping[str, Any]) -> None:
        """Note what a body asks the model, if it does."""
        given = [body[name] for name in PROMPT_FIELDS if body.get(name) is not None]
        if given:
            self.notes["prompt"] = given[0]

    def note_ignored(self, places: Sequence[str]) -> None:
        """Note the fields of a body that are ignored, if there are any."""
        if places:
            self.notes["ignored"] = _ignored_fields(places)

    def line(self, as_json: bool) -> str:
        """Return the line, without its end."""
        fields = {
            "time": _now(),
            "request_id": self.request_id,
            "client": self.client,
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "seconds": round(time.monotonic() - self.started, 4),
            **self.notes,
        }
        if as_json:
            return json.dumps(fields)
        return " ".join(f"{name}={_plain(value)}" for name, value in fields.items())


def _ignored_fields(places: Sequence[str]) -> str:
    """Name fields that are ignored, as places such as ``messages[].name``, each once."""
    names = list(dict.fromkeys(re.sub(r"\[\d+\]", "[]", place) for place in places))
    shown = ",".join(printable(name, 60) for name in names[:MOST_IGNORED])
    return shown if len(names) <= MOST_IGNORED else f"{shown},…({len(names)} in all)"


def trace(error: BaseException) -> list[str]:
    """Say where something failed, without the message: it may contain a prompt."""
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]


def write_event(message: str) -> None:
    """Write what is no request, such as the start, as a JSON object."""
    write(json.dumps({"time": _now(), "message": message}))


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def write(line: str, stream: TextIO | None = None) -> None:
    """Write one line to standard error and flush it."""
    stream = stream or sys.stderr
    stream.write(line + "\n")
    stream.flush()


def _plain(value: object) -> str:
    """Format a value as one word of the line, whatever a client put into it."""
    text = str(value)
    return text if text.isascii() and text.replace("-", "").isalnum() else json.dumps(value)
