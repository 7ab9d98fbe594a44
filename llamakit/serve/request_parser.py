"""The request parser: the JSON of a client to requests of the engine."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from llamakit.errors import LlamakitError
from llamakit.llama import embedding, moderation
from llamakit.llama.llama import Llama
from llamakit.llama.seeds import spread
from llamakit.plugin_manager.factories import parse_choice
from llamakit.protocols import Dialog
from llamakit.runtime.requests import Request
from llamakit.serve import request_schemas
from llamakit.serve.api_errors import ApiError, as_api_error, bad
from llamakit.serve.body_fields import fields_of
from llamakit.serve.chat_prompt import AnswerTools, ChatPrompts
from llamakit.serve.completion_request import CompletionRequest
from llamakit.serve.constraint_reader import ConstraintReader
from llamakit.serve.prompt_reader import PromptReader, contents
from llamakit.serve.responses_request import chat_of, repeated
from llamakit.serve.responses_schema import RESPONSES
from llamakit.serve.sampling_reader import SamplingReader
from llamakit.serve.server_settings import ServeSettings
from llamakit.serve.tokenizer_reader import TokenizerReader
from llamakit.serve.tool_choice import NO_TOOLS, ToolUse, tool_use

COMPLETION_TOKENS = 16
"""OpenAI's default for completions, which their clients rely on."""

GREEDY: Mapping[str, Any] = {"temperature": 0}

Body = Mapping[str, Any]


class RequestParser:
    """Parses and tokenizes the requests for one model. Several threads may call it."""

    def __init__(self, llama: Llama, settings: ServeSettings) -> None:
        self._llama = llama
        self._settings = settings
        self._samplings = SamplingReader(llama, settings.sampling)
        self._constraints = ConstraintReader(llama)
        self._chats = ChatPrompts(llama, settings)
        self._prompts = PromptReader(llama, settings, self._chats)
        self.tokenizer = TokenizerReader(llama, settings, self._chats, self._prompts)

    def completion(self, body: Body) -> CompletionRequest:
        """Read the body of ``/v1/completions``.

        Raises:
            ApiError: it cannot be answered.
        """
        body = fields_of(body, request_schemas.COMPLETION, self._settings)
        prompt_format = self._prompts.prompt_format(body)
        prompts = self._prompts.read(body, prompt_format=prompt_format)
        top = body.get("logprobs")
        echo, limit = body.get("echo", False), body.get("max_tokens", COMPLETION_TOKENS)
        if limit == 0 and not echo:
            raise bad(
                "max_tokens is 0; that needs echo, otherwise there is nothing to return",
                "max_tokens",
            )
        return self._request(
            body,
            prompts,
            limit=limit,
            stop_tokens=self._llama.stop_tokens.union(getattr(prompt_format, "stop_tokens", ())),
            top=top,
            echo=echo,
            keep_space=True,
        )

    def chat(self, body: Body) -> CompletionRequest:
        """Read the body of ``/v1/chat/completions``. Raises as ``completion``."""
        return self._chat(fields_of(body, request_schemas.CHAT, self._settings))

    def response(self, body: Body) -> CompletionRequest:
        """Read the body of ``/v1/responses``. Raises as ``completion``."""
        body = fields_of(body, RESPONSES, self._settings)
        try:
            parsed = self._chat(chat_of(body))
        except ApiError as error:
            if error.param == "messages":
                error.param = "input"
            raise
        return replace(parsed, repeated=repeated(body))

    def _chat(self, body: Body) -> CompletionRequest:
        self._prompts.check_count(1, body.get("n", 1))
        self._prompts.check_length(contents(body["messages"]))
        use = tool_use(body)
        prompt = self._chats.read(body, use)
        logprobs, top = body.get("logprobs", False), body.get("top_logprobs")
        if top and not logprobs:
            raise bad("top_logprobs needs logprobs: true", "top_logprobs")
        prompt_format = prompt.prompt_format
        return self._request(
            body,
            [prompt.tokens],
            limit=body.get("max_completion_tokens", body.get("max_tokens")),
            stop_tokens=self._llama.stop_tokens.union(prompt_format.stop_tokens),
            stop=tuple(getattr(prompt_format, "stop_strings", ())),
            top=(top or 0) if logprobs else None,
            keep_space=prompt.continues or getattr(prompt_format, "keeps_space", False),
            tools=prompt.tools,
            use=use,
        )

    def moderation(self, body: Body) -> CompletionRequest:
        """Read the body of ``/v1/moderations``: the questions to a Llama Guard. Raises as before.

        The prompt format is the server's if that is a Llama Guard's.
        """
        body = fields_of(body, request_schemas.MODERATION, self._settings)
        own = self._settings.prompt_format or ""
        name = own if own.startswith(moderation.PROMPT_FORMAT) else moderation.PROMPT_FORMAT
        try:
            guard = self._chats.build(parse_choice(name))
        except ApiError as error:
            raise bad(f"this model is no Llama Guard: {error}") from error
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        self._prompts.check_count(len(texts), 1)
        for text in texts:
            self._prompts.check_length([text])
        dialogs: list[Dialog] = [[{"role": "user", "content": text}] for text in texts]
        try:
            prompts = [guard.encode(dialog) for dialog in dialogs]
        except LlamakitError as error:
            raise as_api_error(error, "input") from error
        stop_tokens = self._llama.stop_tokens.union(guard.stop_tokens)
        asked = self._request(GREEDY, prompts, limit=None, stop_tokens=stop_tokens)
        choices = [  # the server's limit of an answer would cut the word or the categories
            replace(choice, limit=len(choice.tokens) + moderation.ANSWER_TOKENS)
            for choice in asked.choices
        ]
        return replace(asked, choices=choices)

    def embedding(self, body: Body) -> CompletionRequest:
        """Read the body of ``/v1/embeddings``. Raises as ``completion``."""
        body = fields_of(body, request_schemas.EMBEDDING, self._settings)
        size = self._llama.checkpoint.params.dim
        if body.get("dimensions", size) != size:
            raise bad(
                f"dimensions is {body['dimensions']}; a vector has as many numbers as the model's "
                f"hidden state, {size}",
                "dimensions",
            )
        pooling, choices = body.get("pooling", "mean"), []
        for number, tokens in enumerate(self._prompts.read(body, "input"), start=1):
            try:
                choices.append(embedding.request(self._llama, tokens, pooling, number))
            except LlamakitError as error:
                raise as_api_error(error, "input") from error
        return CompletionRequest(choices)

    def scored(self, prompts: Sequence[list[int]]) -> CompletionRequest:
        """Return a request for the log-probabilities of prompts. Raises as ``completion``."""
        stops = self._llama.stop_tokens
        return self._request(GREEDY, prompts, limit=0, stop_tokens=stops, top=0, echo=True)

    # Parts of a body ----------------------------------------------------------------------------

    def _request(
        self,
        body: Body,
        prompts: Sequence[list[int]],
        *,
        limit: int | None,
        stop_tokens: frozenset[int],
        stop: tuple[str, ...] = (),
        top: int | None = None,
        echo: bool = False,
        keep_space: bool = False,
        tools: AnswerTools | None = None,
        use: ToolUse = NO_TOOLS,
    ) -> CompletionRequest:
        _check_agreement(body, top)
        n, seen = body.get("n", 1), body.get("sampler_logprobs", False)
        constraint = self._constraints.read(body, use)
        sampling = self._samplings.read(body, constraint, stop_tokens)
        own_stops: Sequence[int] = body.get("stop_token_ids", ())
        self._prompts.check_tokens(own_stops, "stop_token_ids")
        choice = partial(
            Request,
            sampling=sampling,
            stop_tokens=stop_tokens.union(own_stops),
            logprobs=top is not None,
            prompt_logprobs=echo and top is not None,
            prompt_only=limit == 0,
            top=top or 0,
            seen=seen,
            drafter=self._settings.drafter,
        )
        repeated = [prompt for prompt in prompts for _ in range(n)]
        choices = [
            choice(tokens=prompt, limit=self._prompts.limit(len(prompt), limit), seed=seed)
            for prompt, seed in zip(repeated, self._seeds(body, repeated), strict=True)
        ]
        stream_options = body.get("stream_options") or {}
        return CompletionRequest(
            choices,
            n=n,
            stop=_stop_strings(body) + stop,
            echo=echo,
            keep_space=keep_space and not sampling.is_constrained,
            top=top,
            seen=seen,
            tools=tools,
            stream=body.get("stream", False),
            include_usage=bool(stream_options.get("include_usage")),
            continuous_usage=bool(stream_options.get("continuous_usage_stats")),
        )

    def _seeds(self, body: Body, prompts: Sequence[list[int]]) -> list[int]:
        """Return the seed of each choice."""
        first = body.get("seed", self._settings.seed)
        return spread(secrets.randbits(62) if first is None else int(first), prompts)


def _check_agreement(body: Body, top: int | None) -> None:
    """Refuse fields that contradict one another."""
    n = body.get("n", 1)
    if body.get("best_of", n) != n:
        raise bad(
            f"best_of is {body['best_of']} and n is {n}; no answer is left out here: they "
            "have to be equal",
            "best_of",
        )
    if body.get("sampler_logprobs") and top is None:
        raise bad("sampler_logprobs needs logprobs", "sampler_logprobs")


def _stop_strings(body: Body) -> tuple[str, ...]:
    given = body.get("stop", ())
    return tuple(text for text in ([given] if isinstance(given, str) else given) if text)
