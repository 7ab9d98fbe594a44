"""``/openapi.json``: the OpenAPI description of the server."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from llamakit import __version__
from llamakit.serve import request_schemas
from llamakit.serve.responses_schema import RESPONSES
from llamakit.serve.schema_parts import is_unused
from llamakit.serve.tokenizer_schemas import DETOKENIZE, DETOKENIZED, TOKENIZER_INFO, TOKENS

Schema = Mapping[str, Any]

ERRORS = {
    400: "The request is invalid.",
    401: "An API key is required.",
    404: "There is no such model.",
    408: "The request did not arrive in time.",
    413: "The request is too long.",
    415: "The request is not application/json.",
    421: "The Host header is not a name of this server.",
    429: "Too many requests or connections; Retry-After says when to try again.",
    500: "The server failed.",
    503: "The server is shutting down.",
    504: "The answer took too long.",
}


@functools.cache
def document() -> bytes:
    """Return the description as it is sent."""
    return json.dumps(description(), ensure_ascii=False, separators=(",", ":")).encode()


def description() -> dict[str, Any]:
    """Return the whole description, OpenAPI 3.1."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "llamakit serve",
            "version": __version__,
            "description": "The API of OpenAI's clients, and llamakit's own fields.",
        },
        "security": [{"key": []}, {}],
        "paths": {
            "/v1/models": _get("List the model.", {"type": "object", "required": ["data"]}),
            "/v1/models/{name}": {
                "parameters": [
                    {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
                ],
                **_get("Describe the model.", {"type": "object", "required": ["id"]}),
            },
            "/v1/completions": _post(
                "Continue strings.",
                request_schemas.COMPLETION,
                _answer("text_completion"),
                stream=True,
            ),
            "/v1/chat/completions": _post(
                "Answer a dialog.", request_schemas.CHAT, _answer("chat.completion"), stream=True
            ),
            "/v1/responses": _post("Answer input items.", RESPONSES, RESPONSE, stream=True),
            "/v1/embeddings": _post(
                "Compute embeddings of strings.", request_schemas.EMBEDDING, EMBEDDED
            ),
            "/v1/moderations": _post(
                "Judge strings with a Llama Guard model.", request_schemas.MODERATION, MODERATED
            ),
            "/v1/llamakit/options": _get(
                "List the samplers, processors and prompt formats that a request may name.",
                {"type": "object", "required": ["samplers", "processors", "prompt_formats"]},
            ),
            "/tokenize": _post("Tokenize a string or a dialog.", request_schemas.TOKENIZE, TOKENS),
            "/detokenize": _post("Decode tokens to text.", DETOKENIZE, DETOKENIZED),
            "/tokenizer_info": _get("Describe the tokenizer.", TOKENIZER_INFO),
            "/health": _get("Return whether the server accepts requests.", {"type": "object"}),
            "/metrics": {"get": _operation("Metrics for Prometheus.", _text("text/plain"))},
            "/openapi.json": _get("This description.", {"type": "object"}),
        },
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": ERROR},
        },
    }


ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
RESPONSE: Schema = {
    "type": "object",
    "required": ["id", "object", "created_at", "model", "status", "output", "usage"],
    "properties": {
        "object": {"const": "response"},
        "status": {"enum": ["completed", "incomplete"]},
        "output": {"type": "array", "items": {"type": "object", "required": ["id", "type"]}},
    },
}
EMBEDDED: Schema = {
    "type": "object",
    "required": ["object", "model", "data", "usage"],
    "properties": {
        "data": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "object", "required": ["object", "index", "embedding"]},
        },
    },
}
MODERATED: Schema = {
    "type": "object",
    "required": ["id", "model", "results"],
    "properties": {
        "results": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["flagged", "score", "categories", "category_scores", "text"],
            },
        },
    },
}


def _answer(kind: str) -> Schema:
    return {
        "type": "object",
        "required": ["id", "object", "created", "model", "choices", "usage"],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": kind},
            "created": {"type": "integer"},
            "model": {"type": "string"},
            "choices": {"type": "array", "minItems": 1, "items": {"type": "object"}},
            "usage": {"type": "object"},
        },
    }


def _text(kind: str) -> dict[str, Any]:
    return {kind: {"schema": {"type": "string"}}}


def _json(schema: Schema) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _operation(summary: str, content: Mapping[str, Any]) -> dict[str, Any]:
    error = _json({"$ref": "#/components/schemas/Error"})
    responses = {
        str(status): {"description": text, "content": error} for status, text in ERRORS.items()
    }
    return {
        "summary": summary,
        "responses": {
            "200": {"description": "The result.", "content": content},
            **responses,
        },
    }


def _get(summary: str, schema: Schema) -> dict[str, Any]:
    return {"get": _operation(summary, _json(schema))}


def _post(summary: str, body: Schema, schema: Schema, *, stream: bool = False) -> dict[str, Any]:
    content = _json(schema) | (_text("text/event-stream") if stream else {})
    taken = {"required": True, "content": _json(offered(body))}
    return {"post": {**_operation(summary, content), "requestBody": taken}}


def offered(schema: Any) -> Any:
    """Return a schema without the fields that are ignored or refused, which clients need not know.

    The reference page lists those.
    """
    if isinstance(schema, list):
        return [offered(it) for it in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: offered(value) for key, value in schema.items() if key != "properties"}
    if "properties" in schema:
        kept["properties"] = {
            name: offered(it) for name, it in schema["properties"].items() if not is_unused(it)
        }
    return kept
