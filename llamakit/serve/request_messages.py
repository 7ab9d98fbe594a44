"""The messages of a chat request as a dialog."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llamakit.errors import DialogError
from llamakit.protocols import Dialog


def dialog_of(messages: Sequence[Mapping[str, Any]]) -> Dialog:
    """Turn a client's messages, which fit their schema, into a dialog.

    Raises:
        DialogError: one has neither a content nor tool calls.
    """
    dialog: list[Any] = []
    for index, message in enumerate(messages):
        content, calls = message.get("content"), message.get("tool_calls")
        if content is None and not calls:
            lack = ".content is null" if "content" in message else " lacks 'content'"
            raise DialogError(f"messages[{index}]{lack}")
        if not isinstance(content, str):
            content = "".join(part["text"] for part in content or ())
        role = "system" if message["role"] == "developer" else message["role"]
        carried = {"tool_calls": calls} if calls else {}
        dialog.append({"role": role, "content": content, **carried})
    return dialog
