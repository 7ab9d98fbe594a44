"""The messages of a chat request as a dialog, and as tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llamakit.errors import DialogError
from llamakit.llama.dialog_encoding import encode_dialog
from llamakit.llama.message_content import joined
from llamakit.protocols import Dialog, Message, PromptFormat

_ROLES = {"developer": "system", "function": "tool"}


def dialog_of(messages: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Turn a client's messages, which fit their schema, into a dialog.

    Raises:
        DialogError: one has neither a content nor tool calls.
    """
    dialog: list[Any] = []
    for index, message in enumerate(messages):
        calls = message.get("tool_calls") or _older_calls(message)
        carried: dict[str, Any] = {"tool_calls": calls} if calls else {}
        answered = message.get("tool_call_id") or message.get("name")
        if message["role"] in ("tool", "function") and answered:
            carried["tool_call_id"] = answered
        role = _ROLES.get(message["role"], message["role"])
        content = _content(message, index, is_needed=not calls and role != "tool")
        dialog.append({"role": role, "content": content, **carried})
    return dialog


def _older_calls(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a ``function_call`` as ``tool_calls``; its answer names the function, and no ID."""
    call = message.get("function_call")
    return [{"id": call["name"], "type": "function", "function": call}] if call else []


def _content(message: Mapping[str, Any], index: int, *, is_needed: bool) -> str:
    """Return the text of a message, its parts joined."""
    content = message.get("content")
    if content is None:
        content = message.get("refusal")
    if content is None and is_needed:
        lack = ".content is null" if "content" in message else " lacks 'content'"
        raise DialogError(f"messages[{index}]{lack}")
    if isinstance(content, str) or content is None:
        return content or ""
    return joined(
        _text(part, f"messages[{index}].content[{number}]") for number, part in enumerate(content)
    )


def _text(part: Mapping[str, Any], place: str) -> str:
    name = "refusal" if part["type"] == "refusal" else "text"
    text = part.get(name)
    if not isinstance(text, str):
        raise DialogError(f"{place} lacks {name!r}")
    return text


def encode_messages(prompt_format: PromptFormat, dialog: Sequence[Message]) -> list[int]:
    """Encode a dialog; where the format refuses its order of roles, merge what can be merged.

    Raises:
        DialogError: the format refuses both.
    """
    try:
        return encode_dialog(prompt_format, dialog)
    except DialogError:
        merged = merged_dialog(dialog)
        if list(merged) == list(dialog):
            raise
        try:
            return encode_dialog(prompt_format, merged)
        except DialogError:
            pass  # the first error is about the dialog as the client wrote it
        raise


def merged_dialog(dialog: Sequence[Message]) -> Dialog:
    """Return a dialog with one system message, first, and no two neighbors of the same role.

    Messages with tool calls, and those of tools, stay apart.
    """
    systems = [it["content"] for it in dialog if it["role"] == "system"]
    merged: list[Message] = []
    if systems:
        merged.append({"role": "system", "content": "\n\n".join(systems)})
    for message in dialog:
        if message["role"] == "system":
            continue
        last = merged[-1] if merged else None
        if last is not None and _is_mergeable(last, message):
            content = f"{last['content']}\n\n{message['content']}"
            merged[-1] = {"role": message["role"], "content": content}
        else:
            merged.append(message)
    return merged


def _is_mergeable(first: Message, second: Message) -> bool:
    return (
        first["role"] == second["role"]
        and first["role"] in ("user", "assistant")
        and not (first.get("tool_calls") or second.get("tool_calls"))
    )
