"""The ASGI application: its routes and its middleware."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from llamakit.errors import LlamakitError
from llamakit.llama.llama import Llama
from llamakit.serve import moderation_endpoint
from llamakit.serve.admission import Admission
from llamakit.serve.api_errors import ApiError
from llamakit.serve.chat_format import ChatFormat
from llamakit.serve.completion_request import CompletionRequest
from llamakit.serve.completion_responses import CompletionResponse, failed
from llamakit.serve.metrics import Metrics
from llamakit.serve.middleware import (
    ApiKeyMiddleware,
    ConnectionLimitMiddleware,
    HostMiddleware,
    RequestLogMiddleware,
    error_response,
)
from llamakit.serve.openai_format import CompletionFormat, ResponseFormat
from llamakit.serve.openapi import description
from llamakit.serve.options_endpoint import describe_options
from llamakit.serve.page_files import Page
from llamakit.serve.request_body import read_json
from llamakit.serve.request_log import ignored_fields
from llamakit.serve.request_parser import RequestParser, has_to_build
from llamakit.serve.responses_format import ResponsesFormat
from llamakit.serve.schema_validation import Unknown
from llamakit.serve.server_settings import ServeSettings
from llamakit.serve.token_texts import TokenTexts

T = TypeVar("T")

BUILDERS = 2
"""Threads that build grammars and processors; the grammar engine releases the GIL."""

ROUTES = {
    "/v1/models": ("GET", "models"),
    "/v1/models/{name:path}": ("GET", "model"),
    "/v1/completions": ("POST", "completions"),
    "/v1/chat/completions": ("POST", "chat"),
    "/v1/responses": ("POST", "responses"),
    "/v1/moderations": ("POST", "moderations"),
    "/v1/llamakit/options": ("GET", "options"),
    "/tokenize": ("POST", "tokenize"),
    "/detokenize": ("POST", "detokenize"),
    "/health": ("GET", "health"),
    "/metrics": ("GET", "prometheus"),
    "/openapi.json": ("GET", "openapi"),
}
"""Each path's method, and the method of ``Api`` that completion."""


class Api:
    """The handlers of the routes, for one model. To be made within its event loop.

    Args:
        started: when the model was loaded, in seconds since 1970.
    """

    def __init__(self, llama: Llama, settings: ServeSettings, started: int) -> None:
        self.metrics = Metrics()
        self.page = Page()
        self.admission = Admission(llama, settings.limits, self.metrics)
        self.metrics.slots.set(self.admission.slots)
        self._llama, self._settings, self._started = llama, settings, started
        self._parser = RequestParser(llama, settings)
        self._texts = TokenTexts(llama.tokenizer)
        self._parse_threads = ThreadPoolExecutor(1, "llamakit reading")
        self._build_threads = ThreadPoolExecutor(BUILDERS, "llamakit building")

    async def warm_up(self) -> None:
        """Generate one token, so that failures come now and memory is allocated now.

        Raises:
            LlamakitError: generation fails.
        """
        tokens = [self._llama.tokenizer.bos_id]
        parsed = self._parser.completion({"prompt": tokens, "max_tokens": 1})
        completion = self.admission.submit(
            parsed, "", seconds=math.inf
        )  # the first step may take long
        try:
            async for _chunk in completion:
                pass
        finally:
            self.admission.release(completion)

    def close(self) -> None:
        """End the engine."""
        self.admission.close()
        self._parse_threads.shutdown()
        self._build_threads.shutdown()

    def app(self, connections: Callable[[], int] = lambda: 0) -> Starlette:
        """Return the application.

        Args:
            connections: returns how many are open.
        """
        routes = [
            *(
                Route(path, getattr(self, name), methods=[method])
                for path, (method, name) in ROUTES.items()
            ),
            *(Route(path, self.page.answer) for path in self.page.files),
        ]
        handlers: dict[Any, Any] = {
            HTTPException: _http_error,
            LlamakitError: _llamakit_error,
        }
        middleware = self._middleware([route.path for route in routes], connections)
        return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)

    def _middleware(self, paths: list[str], connections: Callable[[], int]) -> list[Middleware]:
        settings = self._settings
        middleware = [
            Middleware(
                RequestLogMiddleware,
                metrics=self.metrics,
                as_json=settings.json_log,
                routes=paths,
            ),
            Middleware(
                ConnectionLimitMiddleware, count=connections, most=settings.limits.connections
            ),
            Middleware(HostMiddleware, hosts=settings.hosts),
            Middleware(ApiKeyMiddleware, keys=settings.keys, is_open=self._is_open),
        ]
        if settings.origins:
            cors = Middleware(
                CORSMiddleware,
                allow_origins=list(settings.origins),
                allow_methods=["GET", "POST"],
                allow_headers=["Authorization", "Content-Type"],
                expose_headers=["Retry-After"],
            )
            middleware.insert(-1, cors)
        return middleware

    def _is_open(self, path: str) -> bool:
        return path == "/health" or path in self.page

    # Routes -------------------------------------------------------------------------------------

    async def completions(self, request: Request) -> CompletionResponse:
        """``POST /v1/completions``."""
        return await self._answer(request, self._parser.completion, CompletionFormat)

    async def chat(self, request: Request) -> CompletionResponse:
        """``POST /v1/chat/completions``."""
        return await self._answer(request, self._parser.chat, ChatFormat)

    async def responses(self, request: Request) -> CompletionResponse:
        """``POST /v1/responses``."""
        return await self._answer(request, self._parser.response, ResponsesFormat)

    async def moderations(self, request: Request) -> Response:
        """``POST /v1/moderations``."""
        body = await read_json(request, self._settings.limits)
        asked = await self._in_thread(self._parser.moderation, body)
        client = request.scope["llamakit.client"]
        verdicts = await moderation_endpoint.moderate(
            self.admission, self._parser, self._llama.tokenizer, asked, client
        )
        threshold = body.get("threshold")
        return JSONResponse(
            moderation_endpoint.as_openai(
                verdicts,
                self._settings.model_name,
                moderation_endpoint.THRESHOLD if threshold is None else threshold,
            )
        )

    async def tokenize(self, request: Request) -> Response:
        """``POST /tokenize``."""
        body = await read_json(request, self._settings.limits)
        tokens = await self._in_thread(self._parser.tokenize, body)
        pieces = [self._texts.text(token) for token in tokens]
        return JSONResponse({"tokens": tokens, "pieces": pieces, "count": len(tokens)})

    async def detokenize(self, request: Request) -> Response:
        """``POST /detokenize``."""
        body = await read_json(request, self._settings.limits)
        return JSONResponse({"text": await self._in_thread(self._parser.detokenize, body)})

    async def models(self, _request: Request) -> Response:
        """``GET /v1/models``."""
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        """``GET /v1/models/NAME``."""
        if request.path_params["name"] != self._settings.model_name:
            raise ApiError(
                404,
                f"no such model; this server has {self._settings.model_name!r}",
                param="model",
                code="model_not_found",
            )
        return JSONResponse(self._model())

    async def options(self, _request: Request) -> Response:
        """``GET /v1/llamakit/options``."""
        return JSONResponse(describe_options(self._llama, self._settings))

    async def health(self, _request: Request) -> Response:
        """``GET /health``."""
        admission = self.admission
        status = "closing" if admission.closing else "ok"
        return JSONResponse({"status": status}, 503 if admission.closing else 200)

    async def prometheus(self, _request: Request) -> Response:
        """``GET /metrics``."""
        text, kind = self.metrics.text()
        return Response(text, headers={"Content-Type": kind})

    async def openapi(self, _request: Request) -> Response:
        """``GET /openapi.json``."""
        return JSONResponse(description())

    # Shared by the routes------------------------------------------------------------------------

    async def _answer(
        self,
        request: Request,
        read: Callable[[Any], CompletionRequest],
        response_format: type[ResponseFormat],
    ) -> CompletionResponse:
        body = await read_json(request, self._settings.limits)
        record = request.scope["llamakit.record"]
        if self._settings.log_prompts and isinstance(body, dict):
            given = (body.get(name) for name in ("prompt", "messages", "input"))
            record.notes["prompt"] = next((it for it in given if it is not None), None)
        parsed = await self._in_thread(read, body)
        if parsed.ignored and self._settings.unknown_fields is not Unknown.IGNORE:
            record.notes["ignored"] = ignored_fields(parsed.ignored)
        completion = self.admission.submit(parsed, request.scope["llamakit.client"])
        formatted = response_format(parsed, self._texts, self._settings.model_name)
        return CompletionResponse(
            completion,
            formatted,
            self.admission,
            self.metrics,
            seconds=self._settings.limits.seconds,
            log=self._settings.log_prompts,
        )

    async def _in_thread(self, work: Callable[[Any], T], body: object) -> T:
        """Parse a body in a thread: tokenizing a long text takes time.

        Requests with something to build, such as a grammar, have threads of their own, so that the
        others do not wait for them.
        """
        threads = self._build_threads if has_to_build(body) else self._parse_threads
        return await asyncio.get_running_loop().run_in_executor(threads, partial(work, body))

    def _model(self) -> dict[str, Any]:
        return {
            "id": self._settings.model_name,
            "object": "model",
            "created": self._started,
            "owned_by": "llamakit",
        }


async def _llamakit_error(request: Request, error: Exception) -> Response:
    return error_response(failed(request, error))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    messages = {
        404: f"there is nothing at this path; there are {', '.join(ROUTES)}",
        405: f"{request.method} is not allowed on this path",
    }
    message = messages.get(error.status_code, error.detail)
    return error_response(ApiError(error.status_code, message, headers=error.headers))
