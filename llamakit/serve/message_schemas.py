"""JSON schemas of the messages of a chat request."""

from __future__ import annotations

from collections.abc import Mapping

from llamakit.serve.client_fields import NO_SOUND
from llamakit.serve.schema_parts import FLAG, OBJECT, TEXT, Schema, closed, ignored, refused

MOST_TOOLS = 128

_KEPT = ignored("clients keep it with their messages")
_REASONING = ignored("earlier reasoning is not part of a prompt")
_CACHE = ignored("prompts are cached here in any case")
_TEXT_ONLY = "messages hold text only"

TEXT_PARTS = ("text", "input_text", "output_text", "refusal")
PART = closed(
    {
        "type": {"type": "string", "enum": [*TEXT_PARTS]},
        "text": TEXT,
        "refusal": TEXT,
        "cache_control": _CACHE,
        "annotations": _KEPT,
        "logprobs": _KEPT,
        "id": _KEPT,
        "metadata": _KEPT,
    },
    ("type",),
)
CONTENT: Schema = {"anyOf": [TEXT, {"type": "array", "items": PART}]}

CALLED_FUNCTION = closed(
    {
        "name": TEXT,
        "arguments": {"anyOf": [TEXT, OBJECT]},
        "parsed_arguments": _KEPT,
        "thought_signature": _KEPT,
        "description": _KEPT,
    },
    ("name",),
)
FUNCTION_CALL = closed(
    {
        "id": TEXT,
        "type": {"type": "string", "enum": ["function"]},
        "function": CALLED_FUNCTION,
        "index": _KEPT,
        "cache_control": _CACHE,
        "provider_specific_fields": _KEPT,
        "extra_content": _KEPT,
    },
    ("function",),
)

MESSAGE_IGNORED: Mapping[str, Schema] = {
    **dict.fromkeys(
        (
            *("name", "id", "refusal", "annotations", "parsed", "object", "created", "created_at"),
            *("createdAt", "timestamp", "status", "metadata", "additional_kwargs"),
            *(
                "response_metadata",
                "provider_specific_fields",
                "extra_content",
                "weight",
                "tool_name",
            ),
            *("is_error", "phase", "model", "usage", "logprobs", "finish_reason", "stop_reason"),
        ),
        _KEPT,
    ),
    **dict.fromkeys(
        (
            *("reasoning_content", "reasoning", "reasoning_details", "reasoning_text", "thinking"),
            *("thinking_blocks", "reasoning_opaque"),
        ),
        _REASONING,
    ),
    "cache_control": _CACHE,
}
"""Fields of a message that no prompt format writes."""

MESSAGE = closed(
    {
        "role": {
            "type": "string",
            "enum": ["system", "developer", "user", "assistant", "tool", "function"],
        },
        "content": CONTENT,
        "tool_calls": {"type": "array", "items": FUNCTION_CALL, "maxItems": MOST_TOOLS},
        "tool_call_id": TEXT,
        "function_call": {**CALLED_FUNCTION, "description": "The older form of tool_calls."},
        "prefix": {**FLAG, "description": "Of the last message: continue_final_message."},
        "partial": {**FLAG, "description": "The same as prefix."},
        "audio": refused(NO_SOUND),
        "images": refused(_TEXT_ONLY, []),
        **MESSAGE_IGNORED,
    },
    ("role",),
)
MESSAGES: Schema = {"type": "array", "items": MESSAGE, "minItems": 1, "maxItems": 4096}
