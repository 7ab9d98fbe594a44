"""The application: routes, and what stands before them."""

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
from llamakit.serve.admission import Admission
from llamakit.serve.api_errors import ApiError
from llamakit.serve.choices_description import describe
from llamakit.serve.guard import Counted, HostChecked, KeyChecked, Logged, error_response
from llamakit.serve.metrics import Metrics
from llamakit.serve.openai_format import ChatShape, CompletionShape, Shape
from llamakit.serve.openapi import description
from llamakit.serve.page import Page
from llamakit.serve.request_body import read_json
from llamakit.serve.request_parser import Asked, RequestParser, has_to_build
from llamakit.serve.responses import HttpAnswer, failed
from llamakit.serve.server_settings import ServeSettings
from llamakit.serve.token_texts import TokenTexts

T = TypeVar("T")

BUILDERS = 2
"""Threads in which requests have something built; the engine of the grammars lets go of Python."""

ROUTES = {
    "/v1/models": ("GET", "models"),
    "/v1/models/{name:path}": ("GET", "model"),
    "/v1/completions": ("POST", "completions"),
    "/v1/chat/completions": ("POST", "chat"),
    "/v1/llamakit/options": ("GET", "options"),
    "/tokenize": ("POST", "tokenize"),
    "/detokenize": ("POST", "detokenize"),
    "/health": ("GET", "health"),
    "/metrics": ("GET", "numbers"),
    "/openapi.json": ("GET", "openapi"),
}
"""Each path's method, and the method of ``Api`` that answers."""


class Api:
    """What the routes do, for one model. Made within the event loop that it serves.

    Args:
        started: when the model was loaded, in seconds since 1970.
    """

    def __init__(self, llama: Llama, settings: ServeSettings, started: int) -> None:
        self.metrics = Metrics()
        self.page = Page()
        self.admission = Admission(llama, settings.limits, self.metrics)
        self.metrics.slots.set(self.admission.slots)
        self._llama, self._settings, self._started = llama, settings, started
        self._reader = RequestParser(llama, settings)
        self._texts = TokenTexts(llama.tokenizer)
        self._readers = ThreadPoolExecutor(1, "llamakit reading")
        self._builders = ThreadPoolExecutor(BUILDERS, "llamakit building")

    async def warm_up(self) -> None:
        """Write one id, so that what cannot work fails now, and memory is taken now.

        Raises:
            LlamakitError: it cannot work.
        """
        tokens = [self._llama.tokenizer.bos_id]
        asked = self._reader.completion({"prompt": tokens, "max_tokens": 1})
        answers = self.admission.ask(asked, "", seconds=math.inf)  # the first step may take long
        try:
            async for _chunk in answers:
                pass
        finally:
            self.admission.done(answers)

    def close(self) -> None:
        """End the engine."""
        self.admission.close()
        self._readers.shutdown()
        self._builders.shutdown()

    def app(self, connections: Callable[[], int] = lambda: 0) -> Starlette:
        """Return the application.

        Args:
            connections: tells how many are open.
        """
        routes = [
            *(
                Route(path, getattr(self, name), methods=[method])
                for path, (method, name) in ROUTES.items()
            ),
            *(Route(path, self.page.answer) for path in self.page.files),
        ]
        settings = self._settings
        middleware = [
            Middleware(
                Logged,
                metrics=self.metrics,
                as_json=settings.json_log,
                routes=[route.path for route in routes],
            ),
            Middleware(Counted, count=connections, most=settings.limits.connections),
            Middleware(HostChecked, hosts=settings.hosts),
            Middleware(KeyChecked, keys=settings.keys, is_open=self._is_open),
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
        handlers: dict[Any, Any] = {
            HTTPException: _http_error,
            LlamakitError: _llamakit_error,
        }
        return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)

    def _is_open(self, path: str) -> bool:
        return path == "/health" or path in self.page

    # Routes -------------------------------------------------------------------------------------

    async def completions(self, request: Request) -> HttpAnswer:
        """``POST /v1/completions``."""
        return await self._answer(request, self._reader.completion, CompletionShape)

    async def chat(self, request: Request) -> HttpAnswer:
        """``POST /v1/chat/completions``."""
        return await self._answer(request, self._reader.chat, ChatShape)

    async def tokenize(self, request: Request) -> Response:
        """``POST /tokenize``."""
        body = await read_json(request, self._settings.limits)
        tokens = await self._in_thread(self._reader.tokenize, body)
        pieces = [self._texts.text(token) for token in tokens]
        return JSONResponse({"tokens": tokens, "pieces": pieces, "count": len(tokens)})

    async def detokenize(self, request: Request) -> Response:
        """``POST /detokenize``."""
        body = await read_json(request, self._settings.limits)
        return JSONResponse({"text": await self._in_thread(self._reader.detokenize, body)})

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
        return JSONResponse(describe(self._llama, self._settings))

    async def health(self, _request: Request) -> Response:
        """``GET /health``."""
        admission = self.admission
        status = "closing" if admission.closing else "ok"
        return JSONResponse({"status": status}, 503 if admission.closing else 200)

    async def numbers(self, _request: Request) -> Response:
        """``GET /metrics``."""
        text, kind = self.metrics.text()
        return Response(text, headers={"Content-Type": kind})

    async def openapi(self, _request: Request) -> Response:
        """``GET /openapi.json``."""
        return JSONResponse(description())

    # What they share ----------------------------------------------------------------------------

    async def _answer(
        self, request: Request, read: Callable[[Any], Asked], shape: type[Shape]
    ) -> HttpAnswer:
        body = await read_json(request, self._settings.limits)
        record = request.scope["llamakit.record"]
        if self._settings.log_prompts and isinstance(body, dict):
            record.notes["prompt"] = body.get("prompt", body.get("messages"))
        asked = await self._in_thread(read, body)
        answers = self.admission.ask(asked, request.scope["llamakit.client"])
        made = shape(asked, self._texts, self._settings.model_name)
        return HttpAnswer(
            answers,
            made,
            self.admission,
            self.metrics,
            seconds=self._settings.limits.seconds,
            log=self._settings.log_prompts,
        )

    async def _in_thread(self, work: Callable[[Any], T], body: object) -> T:
        """Make ids of a long text where it holds up nobody.

        What a request has built for it, such as the grammar of a schema, may take a moment. Those
        that have nothing built do not stand in line behind it.
        """
        threads = self._builders if has_to_build(body) else self._readers
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
    words = {
        404: "there is nothing at this path; /openapi.json lists what there is",
        405: f"{request.method} is not what this path takes",
    }
    message = words.get(error.status_code, error.detail)
    return error_response(ApiError(error.status_code, message, headers=error.headers))
