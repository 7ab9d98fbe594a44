"""The JSON schema of the body of ``/v1/responses``."""

from __future__ import annotations

from collections.abc import Mapping

from llamakit.serve.client_fields import IGNORED, NOT_OFFERED_ANYWHERE
from llamakit.serve.message_schemas import CONTENT, MOST_TOOLS
from llamakit.serve.request_schemas import COMMON, LIMIT, OTHER_NAMES
from llamakit.serve.schema_parts import (
    FLAG,
    OBJECT,
    TEXT,
    Schema,
    closed,
    ignored,
    refused,
)
from llamakit.serve.structured_output import STRUCTURED_FIELDS
from llamakit.serve.tool_schemas import FUNCTION, TOOL_CHOICE

_KEPT = ignored("clients keep it with their items")
_STATELESS = "this server keeps no responses: send the whole dialog as input"

ITEM = closed(
    {
        "type": {
            "type": "string",
            "enum": ["message", "function_call", "function_call_output", "reasoning"],
        },
        "role": {"type": "string", "enum": ["system", "developer", "user", "assistant"]},
        "content": CONTENT,
        "call_id": TEXT,
        "name": TEXT,
        "arguments": TEXT,
        "output": CONTENT,
        **dict.fromkeys(
            (
                *("id", "status", "phase", "summary", "encrypted_content", "caller", "namespace"),
                *("async", "logprobs", "metadata"),
            ),
            _KEPT,
        ),
    }
)
INPUT: Schema = {
    "anyOf": [TEXT, {"type": "array", "items": ITEM, "minItems": 1, "maxItems": 4096}],
    "description": "A message of the user, or items: messages, calls and their results.",
}
TEXT_FORMAT = closed(
    {
        "type": {"type": "string", "enum": ["text", "json_object", "json_schema"]},
        "name": TEXT,
        "schema": OBJECT,
        "description": TEXT,
        "strict": FLAG,
    },
    ("type",),
)
FUNCTION_TOOL = closed(
    {
        "type": {"type": "string", "enum": ["function"]},
        **{name: dict(schema) for name, schema in FUNCTION["properties"].items() if name != "name"},
        "name": FUNCTION["properties"]["name"],
        **dict.fromkeys(("output_schema", "allowed_callers", "async"), _KEPT),
    },
    ("type", "name"),
)
_COMMON: Mapping[str, Schema] = {
    name: schema
    for name, schema in COMMON.items()
    if name not in (*STRUCTURED_FIELDS, "n", "best_of", "stream_options")
}

RESPONSES = closed(
    {
        "input": INPUT,
        "instructions": {**TEXT, "description": "A system message before the input."},
        "max_output_tokens": LIMIT,
        "text": closed(
            {
                "format": TEXT_FORMAT,
                "verbosity": refused("say in instructions how long answers should be", "medium"),
            }
        ),
        "tools": {"type": "array", "items": FUNCTION_TOOL, "maxItems": MOST_TOOLS},
        "tool_choice": TOOL_CHOICE,
        "parallel_tool_calls": {**FLAG, "description": "false: at most one call. [default: true]"},
        "top_logprobs": {"type": "integer", "minimum": 0, "maximum": 20},
        "include": {
            "type": "array",
            "items": TEXT,
            "description": "message.output_text.logprobs; others add nothing.",
        },
        "stream_options": closed(
            {"include_obfuscation": ignored("events are as long as what they say")}
        ),
        **_COMMON,
        **OTHER_NAMES,
        **IGNORED,
        **NOT_OFFERED_ANYWHERE,
        "metadata": {**OBJECT, "description": "Returned with the response."},
        "max_tool_calls": ignored("there are no built-in tools"),
        "access_programs": ignored("it is for a hosted service"),
        "store": refused(f"{_STATELESS}, with store: false", False),
        "previous_response_id": refused(_STATELESS),
        "conversation": refused(_STATELESS),
        "prompt": refused("this server keeps no prompts: send instructions and input", {}),
        "background": refused("a response is sent when it is generated", False),
        "background_options": refused("a response is sent when it is generated"),
        "truncation": refused(
            "a prompt that is too long is refused, not shortened", "disabled", "auto"
        ),
        "context_management": refused("nothing is left out of the input", []),
        "image": refused("this server writes text only"),
        "moderation": refused("/v1/moderations judges texts, with a Llama Guard"),
    },
    ("input",),
)
