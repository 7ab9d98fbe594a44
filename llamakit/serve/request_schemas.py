"""JSON schemas of the request bodies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]


def maybe(schema: Mapping[str, Any]) -> Schema:
    """Return a schema that also allows null, which means the default."""
    description = {"description": schema["description"]} if "description" in schema else {}
    rest = {key: value for key, value in schema.items() if key != "description"}
    return {"anyOf": [rest, {"type": "null"}], **description}


def closed(properties: Mapping[str, Mapping[str, Any]], required: tuple[str, ...] = ()) -> Schema:
    """Return the schema of an object without other fields; optional ones may be null."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": {
            name: dict(schema) if name in required else maybe(schema)
            for name, schema in properties.items()
        },
    }


def refused(reason: str, *harmless: Any) -> Schema:
    """Return the schema of a field that clients know and this server does not support.

    Args:
        reason: why, for the error message.
        harmless: values that are accepted, as null is, since they change nothing.
    """
    return {"enum": list(harmless), "description": f"Not offered: {reason}.", "x-refusal": reason}


LONGEST_OPTION = 1 << 16
"""Characters of an option, or of a JSON schema: a longer one takes seconds to build."""

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
ID: Schema = {"type": "integer", "minimum": 0}
OPTIONS: Schema = {
    "type": "object",
    "maxProperties": 32,
    "additionalProperties": {
        "type": ["string", "integer", "number", "boolean", "null"],
        "maxLength": LONGEST_OPTION,
    },
}
NAMED: Schema = {
    "anyOf": [
        {"type": "string", "minLength": 1, "maxLength": LONGEST_OPTION},
        closed({"name": {"type": "string", "minLength": 1}, "options": OPTIONS}, ("name",)),
    ]
}

SAMPLING: Mapping[str, Schema] = {
    "temperature": {"type": "number", "minimum": 0, "maximum": 100},
    "top_p": {"type": "number", "minimum": 0, "maximum": 1},
    "presence_penalty": {"type": "number", "minimum": -2, "maximum": 2},
    "frequency_penalty": {"type": "number", "minimum": -2, "maximum": 2},
    "logit_bias": {
        "type": "object",
        "maxProperties": 1024,
        "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
        "description": "By token ID: what is added to its logit.",
    },
    "sampler": {
        **NAMED,
        "description": "llamakit's own: a registered sampler: a name, NAME:K=V,K=V or an object "
        "with name and options.",
    },
    "sampler_options": {
        **OPTIONS,
        "description": "llamakit's own: the options of a sampler that is a name.",
    },
    "processors": {
        "type": "array",
        "maxItems": 32,
        "items": NAMED,
        "description": "llamakit's own: registered processors, applied in this order: a name, "
        "NAME:K=V,K=V or an object with name and options.",
    },
}

COMMON: Mapping[str, Schema] = {
    **SAMPLING,
    "model": {**TEXT, "description": "Its name; what /v1/models says."},
    "n": {"type": "integer", "minimum": 1, "maximum": 128},
    "seed": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "stop": {
        "anyOf": [
            {"type": "string", "maxLength": 1000},
            {"type": "array", "maxItems": 16, "items": {"type": "string", "maxLength": 1000}},
        ],
        "description": "A string or several, each of which ends the answer.",
    },
    "stream": FLAG,
    "stream_options": closed({"include_usage": FLAG, "include_obfuscation": FLAG}),
    "prompt_format": {**NAMED, "description": "llamakit's own: a registered prompt format."},
    "sampler_logprobs": {
        **FLAG,
        "description": "llamakit's own: with `logprobs`, also return how likely each token was for "
        "the sampler, after all processors.",
    },
}

IGNORED: Mapping[str, Schema] = {
    "user": TEXT,
    "metadata": {"type": "object"},
    "store": FLAG,
    "service_tier": TEXT,
    "safety_identifier": TEXT,
    "prompt_cache_key": TEXT,
    "prompt_cache_options": {"type": "object"},
    "prompt_cache_retention": TEXT,
    "parallel_tool_calls": FLAG,
    "prediction": {"type": "object"},
    "reasoning_effort": TEXT,
}
"""Fields that clients send and that are ignored."""

FUNCTION_CALL = closed(
    {
        "id": TEXT,
        "type": {"type": "string", "enum": ["function"]},
        "function": closed({"name": TEXT, "arguments": TEXT}, ("name", "arguments")),
    },
    ("function",),
)
TOOL = closed(
    {
        "type": {"type": "string", "enum": ["function"]},
        "function": closed(
            {
                "name": {"type": "string", "minLength": 1},
                "description": TEXT,
                "parameters": {"type": "object"},
                "strict": FLAG,
            },
            ("name",),
        ),
    },
    ("type", "function"),
)
MOST_TOOLS = 128

NO_TOOLS = "tools are described to the model; whether it calls one is its own choice"
NO_FUNCTIONS = "the newer tools is there instead"
NO_SOUND = "this server writes text only"
NOT_OFFERED: Mapping[str, Schema] = {
    "tool_choice": refused(NO_TOOLS, "none", "auto"),
    "functions": refused(NO_FUNCTIONS, []),
    "function_call": refused(NO_FUNCTIONS, "none", "auto"),
    "web_search_options": refused("this server searches nowhere"),
    "modalities": refused(NO_SOUND, ["text"]),
    "audio": refused(NO_SOUND),
    "moderation": refused("this server has no moderation"),
    "verbosity": refused("say in the system message how long answers should be", "medium"),
}
"""Fields of chat clients that this server does not support."""

PROMPT: Schema = {
    "anyOf": [
        TEXT,
        {"type": "array", "items": TEXT, "minItems": 1},
        {"type": "array", "items": ID, "minItems": 1},
        {"type": "array", "minItems": 1, "items": {"type": "array", "items": ID, "minItems": 1}},
    ],
    "description": "A string, tokens, or a list of either.",
}

COMPLETION = closed(
    {
        "prompt": PROMPT,
        "max_tokens": {"type": "integer", "minimum": 0},
        "logprobs": {"type": "integer", "minimum": 0, "maximum": 20},
        "echo": FLAG,
        "best_of": refused("n is how many answers there are", 1),
        "suffix": refused('prompt_format "infill" fills a gap, with Code Llama', ""),
        **COMMON,
        **IGNORED,
    },
    ("prompt",),
)

PART = closed({"type": {"type": "string", "enum": ["text"]}, "text": TEXT}, ("type", "text"))
MESSAGE = closed(
    {
        "role": {"type": "string", "enum": ["system", "developer", "user", "assistant", "tool"]},
        "content": {"anyOf": [TEXT, {"type": "array", "items": PART, "minItems": 1}]},
        "name": TEXT,
        "refusal": TEXT,
        "annotations": refused("messages hold text only", []),
        "audio": refused(NO_SOUND),
        "tool_calls": {"type": "array", "items": FUNCTION_CALL, "maxItems": MOST_TOOLS},
        "tool_call_id": TEXT,
        "function_call": refused(NO_FUNCTIONS),
    },
    ("role",),
)
RESPONSE_FORMAT = closed(
    {
        "type": {"type": "string", "enum": ["text", "json_object", "json_schema"]},
        "json_schema": closed(
            {
                "schema": {
                    "type": "object",
                    "description": f"At most {LONGEST_OPTION} characters.",
                },
                "name": TEXT,
                "description": TEXT,
                "strict": FLAG,
            },
            ("schema",),
        ),
    },
    ("type",),
)

CHAT = closed(
    {
        "messages": {"type": "array", "items": MESSAGE, "minItems": 1, "maxItems": 4096},
        "max_tokens": {"type": "integer", "minimum": 1},
        "max_completion_tokens": {"type": "integer", "minimum": 1},
        "logprobs": FLAG,
        "top_logprobs": {"type": "integer", "minimum": 0, "maximum": 20},
        "response_format": RESPONSE_FORMAT,
        "tools": {
            "type": "array",
            "items": TOOL,
            "maxItems": MOST_TOOLS,
            "description": "Functions that the model may ask for, with a prompt format that has "
            "tools: llama3 and llama4.",
        },
        **COMMON,
        **IGNORED,
        **NOT_OFFERED,
    },
    ("messages",),
)

TOKENIZE = closed(
    {
        "text": {**TEXT, "description": "Either this or messages."},
        "messages": {"type": "array", "items": MESSAGE, "minItems": 1, "maxItems": 4096},
        "bos": {**FLAG, "description": "Begin with the begin-of-sequence token. [default: true]"},
        "prompt_format": NAMED,
    }
)
DETOKENIZE = closed({"tokens": {"type": "array", "items": ID}}, ("tokens",))
MODERATION = closed(
    {
        "model": TEXT,
        "input": {
            "description": "One text or several, each a message of the user.",
            "anyOf": [TEXT, {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 4096}],
        },
        "threshold": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "description": 'From this probability of "unsafe" a string is flagged. [default: 0.5]',
        },
    },
    ("input",),
)

BODIES: Mapping[str, Schema] = {
    "/v1/completions": COMPLETION,
    "/v1/chat/completions": CHAT,
    "/v1/moderations": MODERATION,
    "/tokenize": TOKENIZE,
    "/detokenize": DETOKENIZE,
}
"""The schema of the body that is posted to each path."""
