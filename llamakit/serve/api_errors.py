"""API errors: HTTP status and OpenAI's JSON format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llamakit.errors import LlamakitError, PromptError, PromptTooLongError, UsageError, for_commands

KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
KINDS |= {408: "timeout_error", 429: "rate_limit_error"}

LONGEST_MESSAGE = 500
"""The longest error message, in characters: some repeat their input."""


class ApiError(LlamakitError):
    """A request that is answered with an error.

    Args:
        status: of HTTP.
        message: one sentence for whoever wrote the request.
        param: the field that is wrong.
        code: the error code for programs.
        headers: such as ``Retry-After``.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return the body of the response."""
        kind = KINDS.get(self.status)
        kind = kind or ("invalid_request_error" if self.status < 500 else "server_error")
        return {
            "error": {
                "message": str(self),
                "type": kind,
                "param": self.param,
                "code": self.code,
            }
        }


def bad(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """Return the error for an invalid request."""
    return ApiError(400, message, param=param, code=code)


def context_exceeded(context: int, tokens: int, *, at_least: bool = False) -> ApiError:
    """Return the error for a prompt that is too long, in the words that clients look for.

    LiteLLM, LangChain and others find out by them that a shorter prompt may be tried.

    Args:
        context: how many tokens a sequence may have.
        tokens: how many the prompt has.
        at_least: it has more; it was too long to be counted.
    """
    count = f"at least {tokens}" if at_least else str(tokens)
    return bad(
        f"This model's maximum context length is {context} tokens. However, you requested "
        f"{'at least ' if at_least else ''}{tokens + 1} tokens ({count} in the prompt, 1 in the "
        "completion). Please reduce the length of the prompt.",
        code="context_length_exceeded",
    )


def as_api_error(error: BaseException, param: str | None = None) -> ApiError:
    """Convert an exception to an API error: the client's fault, or the server's.

    Only the messages of llamakit's own exceptions are shown to clients.
    """
    if isinstance(error, ApiError):
        return error
    message = in_fields(_short(for_commands(error)))
    if isinstance(error, PromptTooLongError):
        return bad(message, param, "context_length_exceeded")
    if isinstance(error, (PromptError, UsageError)):
        return bad(message, param)
    if isinstance(error, LlamakitError):
        return ApiError(500, message, code=type(error).__name__)
    internal = ApiError(500, "the server failed; its log says why", code="internal_error")
    internal.__cause__ = error
    return internal


def _short(message: str) -> str:
    """Leave out the middle of a message that repeats something long."""
    if len(message) <= LONGEST_MESSAGE:
        return message
    half = LONGEST_MESSAGE // 2
    return f"{message[:half]} … {message[-half:]}"


def in_fields(message: str) -> str:
    """Replace the names of command-line options in a message by those of request fields."""
    return re.sub(r"--([a-z][a-z-]*)", lambda match: match[1].replace("-", "_"), message)
