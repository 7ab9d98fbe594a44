"""JSON schemas of ``/tokenize``, ``/detokenize`` and ``/tokenizer_info``.

The fields are llamakit's own, vLLM's (``prompt``, ``messages``) and llama.cpp's (``content``).
"""

from __future__ import annotations

from collections.abc import Mapping

from llamakit.serve.client_fields import FIXED_TEMPLATE, IGNORED
from llamakit.serve.message_schemas import MESSAGES
from llamakit.serve.schema_parts import FLAG, ID, TEXT, Schema, closed, ignored, refused

BOS_FLAGS = {
    "text": "bos",
    "prompt": "add_special_tokens",
    "content": "add_special",
    "messages": "add_special_tokens",
}
"""Fields of ``/tokenize`` that say what to tokenize, of which a request has one; and for each, the
field that says whether its tokens begin with BOS."""


def tokenize_schema(prompt_format: Schema, chat: Mapping[str, Schema]) -> Schema:
    """Return the schema of the body of ``/tokenize``.

    Args:
        chat: fields of chat requests that say how a dialog is written.
    """
    return closed(
        {
            "text": {**TEXT, "description": "A string; names of special tokens in it are text."},
            "prompt": {**TEXT, "description": "A string, as vLLM takes it."},
            "content": {**TEXT, "description": "A string, as llama.cpp takes it."},
            "messages": {**MESSAGES, "description": "A dialog."},
            "bos": {**FLAG, "description": "Of text: begin with the BOS token. [default: true]"},
            "add_special_tokens": {
                **FLAG,
                "description": "Begin with the BOS token. [default: true for prompt, false for "
                "messages, whose format writes it]",
            },
            "add_special": {
                **FLAG,
                "description": "Of content: begin with the BOS token. [default: false]",
            },
            "parse_special": {
                **FLAG,
                "description": "Names of special tokens become these tokens. [default: true for "
                "prompt and content]",
            },
            "return_token_strs": {**FLAG, "description": "Return the string of each token."},
            "with_pieces": {**FLAG, "description": "tokens are objects with `id` and `piece`."},
            "prompt_format": prompt_format,
            **chat,
            "model": {**TEXT, "description": "Its name; what /v1/models says."},
            "chat_template": refused(FIXED_TEMPLATE),
            "mm_processor_kwargs": ignored("messages hold text only"),
            "user": IGNORED["user"],
        }
    )


DETOKENIZE = closed(
    {
        "tokens": {"type": "array", "items": ID},
        "model": {**TEXT, "description": "Its name; what /v1/models says."},
    },
    ("tokens",),
)

TOKENS: Schema = {
    "type": "object",
    "required": ["tokens", "count", "max_model_len"],
    "properties": {
        "tokens": {"type": "array", "items": {"type": ["integer", "object"]}},
        "count": {"type": "integer"},
        "max_model_len": {"type": "integer"},
        "pieces": {"type": "array", "items": TEXT},
        "token_strs": {"type": "array", "items": TEXT},
    },
}
DETOKENIZED: Schema = {
    "type": "object",
    "required": ["text", "prompt", "content"],
    "properties": {"text": TEXT, "prompt": TEXT, "content": TEXT},
}
TOKENIZER_INFO: Schema = {
    "type": "object",
    "required": ["tokenizer_class", "bos_token", "eos_token", "chat_template", "model_max_length"],
    "properties": {
        "bos_token": {"type": ["string", "null"]},
        "eos_token": {"type": ["string", "null"]},
        "chat_template": {"type": ["string", "null"]},
        "model_max_length": {"type": "integer"},
    },
}
