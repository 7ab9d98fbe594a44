"""The body of ``/v1/responses`` as that of a chat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llamakit.serve.api_errors import bad

Body = Mapping[str, Any]

LOGPROBS = "message.output_text.logprobs"
_OWN = ("input", "instructions", "text", "include", "max_output_tokens", "top_logprobs", "metadata")


def chat_of(body: Body) -> dict[str, Any]:
    """Return the chat request that means the same.

    Args:
        body: fits its schema, without nulls.
    Raises:
        ApiError: an item lacks what its type needs.
    """
    chat = {name: value for name, value in body.items() if name not in _OWN}
    chat["messages"] = list(_messages(body))
    if "max_output_tokens" in body:
        chat["max_tokens"] = body["max_output_tokens"]
    if LOGPROBS in body.get("include", ()) or body.get("top_logprobs"):
        chat |= {"logprobs": True, "top_logprobs": body.get("top_logprobs", 0)}
    wanted = (body.get("text") or {}).get("format")
    if wanted:
        chat["response_format"] = {"type": wanted["type"], "schema": wanted.get("schema")}
    return chat


def repeated(body: Body) -> dict[str, Any]:
    """Return what a response repeats of its request."""
    tools = [{"strict": False, "parameters": None, **tool} for tool in body.get("tools", ())]
    wanted = (body.get("text") or {}).get("format") or {"type": "text"}
    return {
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "metadata": body.get("metadata", {}),
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "temperature": body.get("temperature"),
        "text": {"format": wanted},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": tools,
        "top_p": body.get("top_p"),
        "top_logprobs": body.get("top_logprobs", 0),
        "user": body.get("user"),
    }


def _messages(body: Body) -> Iterator[dict[str, Any]]:
    if body.get("instructions"):
        yield {"role": "system", "content": body["instructions"]}
    given = body["input"]
    if isinstance(given, str):
        yield {"role": "user", "content": given}
    else:
        yield from _of_items(given)


def _of_items(items: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the messages of items; calls belong to the assistant's message before them."""
    open_turn: dict[str, Any] | None = None  # of the assistant, whose calls may follow
    for number, item in enumerate(items):
        kind = item.get("type") or "message"
        if kind == "reasoning":
            continue
        if kind == "function_call":
            open_turn = open_turn or {"role": "assistant", "content": None, "tool_calls": []}
            open_turn["tool_calls"].append(_call(item, number))
            continue
        if open_turn is not None:
            yield _closed(open_turn)
            open_turn = None
        if kind == "function_call_output":
            content = _needed(item, "output", number)
            yield {"role": "tool", "content": content, "tool_call_id": item.get("call_id")}
            continue
        message = {
            "role": _needed(item, "role", number),
            "content": _needed(item, "content", number),
        }
        if message["role"] == "assistant":
            open_turn = {**message, "tool_calls": []}
        else:
            yield message
    if open_turn is not None:
        yield _closed(open_turn)


def _closed(turn: dict[str, Any]) -> dict[str, Any]:
    return turn if turn["tool_calls"] else {"role": turn["role"], "content": turn["content"]}


def _call(item: Mapping[str, Any], number: int) -> dict[str, Any]:
    function = {name: _needed(item, name, number) for name in ("name", "arguments")}
    return {"id": item.get("call_id"), "type": "function", "function": function}


def _needed(item: Mapping[str, Any], name: str, number: int) -> Any:
    if item.get(name) is None:
        kind = item.get("type") or "message"
        raise bad(f"input[{number}] lacks {name!r}, which a {kind} has", "input")
    return item[name]
