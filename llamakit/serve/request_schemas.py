"""JSON schemas of the request bodies."""

from __future__ import annotations

from collections.abc import Mapping

from llamakit.serve.client_fields import IGNORED, NOT_OFFERED, NOT_OFFERED_ANYWHERE
from llamakit.serve.message_schemas import MESSAGES
from llamakit.serve.sampling_fields import ALIASES, SAMPLING_FIELDS
from llamakit.serve.schema_parts import (
    FLAG,
    ID,
    LONGEST_OPTION,
    OBJECT,
    TEXT,
    Schema,
    closed,
    ignored,
    refused,
    whole,
)
from llamakit.serve.structured_output import STRUCTURED_FIELDS
from llamakit.serve.tokenizer_schemas import DETOKENIZE, tokenize_schema
from llamakit.serve.tool_schemas import TOOL_FIELDS

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
    "logit_bias": {
        "anyOf": [
            {
                "type": "object",
                "maxProperties": 1024,
                "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
            },
            {
                "type": "array",
                "maxItems": 1024,
                "items": {
                    "type": "array",
                    "minItems": 2,
                    "maxItems": 2,
                    "items": {
                        "anyOf": [{"type": "number", "minimum": -100}, {"enum": [False]}],
                    },
                },
            },
        ],
        "description": "By token ID: what is added to its logit; or llama.cpp's list of pairs.",
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

LIMIT: Schema = {
    "anyOf": [{"type": "integer", "minimum": 1}, {"type": "integer", "enum": [-1]}],
    "description": "Tokens of an answer; -1 is as many as the context holds.",
}

COMMON: dict[str, Schema] = {
    **SAMPLING,
    **SAMPLING_FIELDS,
    **STRUCTURED_FIELDS,
    "model": {**TEXT, "description": "Its name; what /v1/models says."},
    "n": {"type": "integer", "minimum": 1, "maximum": 128},
    "best_of": whole(1, 128, "The same as n: no answer is left out."),
    "seed": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "stop": {
        "anyOf": [
            {"type": "string", "maxLength": 1000},
            {"type": "array", "maxItems": 16, "items": {"type": "string", "maxLength": 1000}},
        ],
        "description": "A string or several, each of which ends the answer.",
    },
    "stream": FLAG,
    "stream_options": closed(
        {
            "include_usage": FLAG,
            "continuous_usage_stats": {**FLAG, "description": "Each event has the usage so far."},
            "include_obfuscation": ignored("events are not padded"),
        }
    ),
    "prompt_format": {**NAMED, "description": "llamakit's own: a registered prompt format."},
    "sampler_logprobs": {
        **FLAG,
        "description": "llamakit's own: with `logprobs`, also return how likely each token was for "
        "the sampler, after all processors.",
    },
}

OTHER_NAMES: Mapping[str, Schema] = {
    alias: {**({"max_tokens": LIMIT} | COMMON)[name], "description": f"The same as {name}."}
    for alias, name in ALIASES.items()
}

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
        "max_tokens": whole(-1, None, "-1 is as many as the context holds. [default: 16]"),
        "logprobs": {"type": "integer", "minimum": 0, "maximum": 20},
        "echo": FLAG,
        "add_special_tokens": refused("send tokens to begin without BOS", True),
        "suffix": {
            **TEXT,
            "description": "What follows the answer, with a Code Llama that fills gaps.",
        },
        **COMMON,
        **OTHER_NAMES,
        **IGNORED,
        **NOT_OFFERED_ANYWHERE,
    },
    ("prompt",),
)

DIALOG_FIELDS: Mapping[str, Schema] = {
    "continue_final_message": {
        **FLAG,
        "description": "The last message is the beginning of the answer.",
    },
    "add_generation_prompt": {
        **FLAG,
        "description": "false needs continue_final_message. [default: true]",
    },
    "chat_template_kwargs": {
        **OBJECT,
        "maxProperties": 32,
        "description": "Variables of a chat template, with the prompt format jinja.",
    },
    **TOOL_FIELDS,
}
"""Fields that say how the prompt of a dialog is written."""

CHAT = closed(
    {
        "messages": MESSAGES,
        "max_tokens": LIMIT,
        "max_completion_tokens": LIMIT,
        "logprobs": FLAG,
        "top_logprobs": {"type": "integer", "minimum": 0, "maximum": 20},
        **DIALOG_FIELDS,
        **COMMON,
        **OTHER_NAMES,
        **IGNORED,
        **NOT_OFFERED_ANYWHERE,
        **NOT_OFFERED,
    },
    ("messages",),
)

TOKENIZE = tokenize_schema(NAMED, DIALOG_FIELDS)
EMBEDDING = closed(
    {
        "model": TEXT,
        "input": {**PROMPT, "description": "A string, tokens, or a list of either."},
        "encoding_format": {
            "type": "string",
            "enum": ["float", "base64"],
            "description": "Numbers, or float32 values in base64, lowest byte first. "
            "[default: float]",
        },
        "pooling": {
            "type": "string",
            "enum": ["mean", "last"],
            "description": "The mean of all tokens, or the last token. [default: mean]",
        },
        "dimensions": {
            "type": "integer",
            "minimum": 1,
            "description": "As many as the model's hidden state has; no other number is offered.",
        },
        "user": TEXT,
    },
    ("input",),
)
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
    "/v1/embeddings": EMBEDDING,
    "/v1/moderations": MODERATION,
    "/tokenize": TOKENIZE,
    "/detokenize": DETOKENIZE,
}
"""The schema of the body that is posted to each path."""
