"""The content of a message: a string, or parts as OpenAI's clients send them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def joined(parts: Iterable[str]) -> str:
    """Join the parts of a content, as lines where no white space is between them already.

    "Good" and "morning" are not "Goodmorning". Other servers write the line end always.
    """
    text = ""
    for part in parts:
        is_apart = not text or not part or text[-1].isspace() or part[0].isspace()
        text += part if is_apart else f"\n{part}"
    return text


def text_of(content: object) -> str | None:
    """Return a content as a string; None: it is neither a string nor a list of parts of text."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else None
    texts = [
        it.get("text") if isinstance(it, dict) and it.get("type") == "text" else None
        for it in content
    ]
    strings = [it for it in texts if isinstance(it, str)]
    return joined(strings) if len(strings) == len(texts) else None


def content_of(message: Mapping[str, Any]) -> Any:
    """Return the content of a message; OpenAI's clients send none with tool calls."""
    content = message.get("content")
    return "" if content is None and message.get("tool_calls") else content
