"""The ASGI application: its routes and its middleware."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from llamakit.errors import LlamakitError
from llamakit.llama.llama import Llama
from llamakit.serve import embeddings_endpoint, moderation_endpoint
from llamakit.serve.admission import Admission
from llamakit.serve.api_errors import ApiError
from llamakit.serve.body_check import CheckedBody
from llamakit.serve.body_reader import BodyReader
from llamakit.serve.chat_format import ChatFormat
from llamakit.serve.completion_request import CompletionRequest
from llamakit.serve.completion_responses import CompletionResponse, failed, gone
from llamakit.serve.connections import Connections
from llamakit.serve.memory_return import MemoryReturn
from llamakit.serve.metrics import Metrics
from llamakit.serve.middleware import (
    ApiKeyMiddleware,
    ConnectionLimitMiddleware,
    FramingMiddleware,
    HostMiddleware,
    RequestLogMiddleware,
    TrailingSlashMiddleware,
    error_response,
)
from llamakit.serve.openai_format import CompletionFormat, ResponseFormat
from llamakit.serve.openapi import document
from llamakit.serve.options_endpoint import describe_options
from llamakit.serve.page_files import Page
from llamakit.serve.request_ids import REQUEST_ID_HEADER
from llamakit.serve.request_parser import RequestParser
from llamakit.serve.request_threads import RequestThreads
from llamakit.serve.responses_format import ResponsesFormat
from llamakit.serve.schema_validation import Unknown
from llamakit.serve.server_settings import ServeSettings
from llamakit.serve.token_texts import TokenTexts
from llamakit.serve.tokenizer_answers import TokenAnswers
from llamakit.serve.turns import Turns

T = TypeVar("T")

ROUTES = {
    "/v1/models": ("GET", "models"),
    "/v1/models/{name:path}": ("GET", "model"),
    "/v1/completions": ("POST", "completions"),
    "/v1/chat/completions": ("POST", "chat"),
    "/v1/responses": ("POST", "responses"),
    "/v1/embeddings": ("POST", "embeddings"),
    "/v1/moderations": ("POST", "moderations"),
    "/v1/llamakit/options": ("GET", "options"),
    "/tokenize": ("POST", "tokenize"),
    "/detokenize": ("POST", "detokenize"),
    "/tokenizer_info": ("GET", "tokenizer_info"),
    "/health": ("GET", "health"),
    "/metrics": ("GET", "prometheus"),
    "/openapi.json": ("GET", "openapi"),
}
"""Each path's method, and the method of ``Api`` that answers it."""


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
        self._parser, memory = RequestParser(llama, settings), MemoryReturn()
        self._texts = TokenTexts(llama.tokenizer)
        self.turns = Turns(asyncio.get_running_loop())
        special = self._parser.tokenizer.special
        self._tokens = TokenAnswers(self._texts, special, self.turns, memory, llama.max_seq_len)
        self._bodies = BodyReader(settings, llama.max_seq_len, memory)
        self._threads = RequestThreads(self.turns)

    async def warm_up(self) -> None:
        """Generate one token, so that failures come now and memory is allocated now.

        Raises:
            LlamakitError: generation fails.
        """
        tokens = [self._llama.tokenizer.bos_id]
        parsed = self._parser.completion({"prompt": tokens, "max_tokens": 1})
        completion = self.admission.submit(parsed, "", seconds=math.inf)  # the first one is slow
        try:
            async for _chunk in completion:
                pass
        finally:
            self.admission.release(completion)

    async def close(self) -> None:
        """End the engine."""
        self.admission.close()
        await self._bodies.close()
        self._threads.close()

    def app(self, connections: Connections) -> Starlette:
        """Return the application.

        Args:
            connections: those that are open.
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
        app = Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)
        app.router.redirect_slashes = False  # TrailingSlashMiddleware
        return app

    def _middleware(self, paths: list[str], connections: Connections) -> list[Middleware]:
        settings = self._settings
        middleware = [
            Middleware(
                RequestLogMiddleware,
                metrics=self.metrics,
                as_json=settings.json_log,
                routes=paths,
            ),
            Middleware(FramingMiddleware),
            Middleware(ConnectionLimitMiddleware, connections=connections),
            Middleware(HostMiddleware, hosts=settings.hosts),
            Middleware(TrailingSlashMiddleware, paths=paths),
            Middleware(ApiKeyMiddleware, keys=settings.keys, is_open=self._is_open),
        ]
        if settings.origins:
            cors = Middleware(
                CORSMiddleware,
                allow_origins=list(settings.origins),
                allow_methods=["GET", "POST"],
                allow_headers=["*"],  # clients of OpenAI's make send a dozen x-stainless-… ones
                expose_headers=["Retry-After", REQUEST_ID_HEADER],
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

    async def embeddings(self, request: Request) -> Response:
        """``POST /v1/embeddings``."""
        body, client, asked = await self._read(request, self._parser.embedding)
        vectors = await embeddings_endpoint.embed(self.admission, asked, client)
        tokens, encoding = asked.prompt_tokens, body.get("encoding_format") or "float"
        name = self._settings.model_name
        return JSONResponse(embeddings_endpoint.as_openai(vectors, name, tokens, encoding))

    async def moderations(self, request: Request) -> Response:
        """``POST /v1/moderations``."""
        body, client, asked = await self._read(request, self._parser.moderation)
        verdicts = await moderation_endpoint.moderate(
            self.admission, self._parser, self._llama.tokenizer, asked, client
        )
        name = self._settings.model_name
        return JSONResponse(moderation_endpoint.as_openai(verdicts, name, body.get("threshold")))

    async def tokenize(self, request: Request) -> Response:
        """``POST /tokenize``."""
        _, client, asked = await self._read(request, self._parser.tokenizer.tokenize)
        return self._tokens.response(asked, client)

    async def detokenize(self, request: Request) -> Response:
        """``POST /detokenize``."""
        _, _, texts = await self._read(request, self._parser.tokenizer.detokenize)
        return JSONResponse(texts)

    async def tokenizer_info(self, _request: Request) -> Response:
        """``GET /tokenizer_info``."""
        return JSONResponse(self._parser.tokenizer.info())

    async def models(self, _request: Request) -> Response:
        """``GET /v1/models``."""
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        """``GET /v1/models/NAME``."""
        if request.path_params["name"].removesuffix("/") != self._settings.model_name:
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
        return Response(document(), media_type="application/json")

    # Shared by the routes -----------------------------------------------------------------------

    async def _read(
        self, request: Request, parse: Callable[[CheckedBody], T]
    ) -> tuple[CheckedBody, Hashable, T]:
        """Read a body and parse it in turn; return it, the client, and what it was parsed to."""
        record = request.scope["llamakit.record"]
        try:
            body = await self._bodies.read(request)
        except ClientDisconnect:
            raise gone(record, self.metrics) from None
        if self._settings.log_prompts:
            record.note_prompt(body)
        if self._settings.unknown_fields is not Unknown.IGNORE:
            record.note_ignored(body.ignored)
        client = request.scope["llamakit.client"]
        value = await self._threads.run(client, parse, body)
        if await request.is_disconnected():  # it costs the others no step of the model
            raise gone(record, self.metrics)
        return body, client, value

    async def _answer(
        self,
        request: Request,
        parse: Callable[[CheckedBody], CompletionRequest],
        response_format: type[ResponseFormat],
    ) -> CompletionResponse:
        _, client, parsed = await self._read(request, parse)
        completion = self.admission.submit(parsed, client, whole=parsed.is_whole)
        formatted = response_format(parsed, self._texts, self._settings.model_name)
        return CompletionResponse(
            completion,
            formatted,
            self.admission,
            self.metrics,
            seconds=self._settings.limits.seconds,
            log=self._settings.log_prompts,
        )

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
