"""The request parser: the JSON of a client to requests of the engine."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llamakit.errors import DialogError, LlamakitError
from llamakit.llama import moderation
from llamakit.llama.dialog_encoding import ReadAnswer, answer_reader, encode_dialog, with_tools
from llamakit.llama.llama import Llama
from llamakit.llama.seeds import spread
from llamakit.plugin_manager.contracts.prompt_formats import build_format
from llamakit.plugin_manager.factories import parse_choice
from llamakit.protocols import Dialog, PromptFormat
from llamakit.runtime.requests import Request
from llamakit.serve import request_schemas
from llamakit.serve.api_errors import ApiError, as_api_error, bad, context_exceeded
from llamakit.serve.body_check import CheckedBody, too_many_answers
from llamakit.serve.request_messages import dialog_of
from llamakit.serve.sampling_reader import SamplingReader, read_choice
from llamakit.serve.schema_validation import check
from llamakit.serve.server_settings import ServeSettings

COMPLETION_TOKENS = 16
"""OpenAI's default for completions, which their clients rely on."""

GREEDY: Mapping[str, Any] = {"temperature": 0}

Body = Mapping[str, Any]


@dataclass(frozen=True)
class CompletionRequest:
    """A parsed HTTP request for completions.

    Args:
        choices: the engine's request for each choice: all of the first prompt's, then of the next.
        stop: strings that end an answer.
        echo: each choice begins with its prompt.
        keep_space: a space at the start of an answer is part of it.
        top: how many alternatives each token is shown with; None shows no probabilities.
        seen: the probabilities that the sampler saw are shown too.
        discard: the answers are not returned, only the scores of the prompts.
        read: finds tool calls in an answer's tokens; None where the request has no tools.
    """

    choices: Sequence[Request]
    n: int = 1
    stop: Sequence[str] = ()
    echo: bool = False
    keep_space: bool = False
    top: int | None = None
    seen: bool = False
    discard: bool = False
    read: ReadAnswer | None = None
    stream: bool = False
    include_usage: bool = False

    @property
    def prompt_tokens(self) -> int:
        """How many tokens the prompts have."""
        return sum(len(request.tokens) for request in self.choices[:: self.n])


class RequestParser:
    """Parses and tokenizes the requests for one model. Several threads may call it."""

    def __init__(self, llama: Llama, settings: ServeSettings) -> None:
        self._llama = llama
        self._settings = settings
        self._samplings = SamplingReader(llama, settings.sampling)

    def completion(self, body: Body) -> CompletionRequest:
        """Read the body of ``/v1/completions``.

        Raises:
            ApiError: it cannot be answered.
        """
        body = self._checked(body, request_schemas.COMPLETION)
        prompts = self._prompts(body)
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
            limit=max(limit, 1),
            stop_tokens=self._llama.stop_tokens,
            top=top,
            echo=echo,
            keep_space=True,
            discard=limit == 0,
        )

    def chat(self, body: Body) -> CompletionRequest:
        """Read the body of ``/v1/chat/completions``. Raises as ``completion``."""
        body = self._checked(body, request_schemas.CHAT)
        self._check_count(1, body.get("n", 1))
        self._check_length(_contents(body["messages"]))
        prompt_format = self._format_with_tools(body)
        tokens = self._encoded(prompt_format, body)
        logprobs, top = body.get("logprobs", False), body.get("top_logprobs")
        if top and not logprobs:
            raise bad("top_logprobs needs logprobs: true", "top_logprobs")
        limit = body.get("max_completion_tokens", body.get("max_tokens"))
        return self._request(
            body,
            [tokens],
            limit=limit,
            stop_tokens=self._llama.stop_tokens.union(prompt_format.stop_tokens),
            stop=tuple(getattr(prompt_format, "stop_strings", ())),
            top=(top or 0) if logprobs else None,
            keep_space=getattr(prompt_format, "keeps_space", False),
            read=answer_reader(prompt_format),
        )

    def tokenize(self, body: Body) -> list[int]:
        """Read the body of ``/tokenize`` and tokenize it. Raises as ``completion``."""
        body = self._checked(body, request_schemas.TOKENIZE)
        if ("text" in body) == ("messages" in body):
            raise bad("expected either text or messages")
        if "text" in body:
            return self._llama.tokenizer.encode(body["text"], bos=body.get("bos", True))
        return self._encoded(self._format(body), body)

    def detokenize(self, body: Body) -> str:
        """Read the body of ``/detokenize`` and decode it. Raises as ``completion``."""
        body = self._checked(body, request_schemas.DETOKENIZE)
        self._check_tokens(body["tokens"], "tokens", self._llama.tokenizer.vocab_size)
        return self._llama.tokenizer.decode(body["tokens"])

    def moderation(self, body: Body) -> CompletionRequest:
        """Read the body of ``/v1/moderations``: the questions to a Llama Guard. Raises as before.

        The prompt format is the server's if that is a Llama Guard's.
        """
        body = self._checked(body, request_schemas.MODERATION)
        own = self._settings.prompt_format or ""
        name = own if own.startswith(moderation.PROMPT_FORMAT) else moderation.PROMPT_FORMAT
        try:
            guard = self._llama.prompt_format(name)
        except LlamakitError as error:
            raise bad(f"this model is no Llama Guard: {name}: {error}") from error
        given = body["input"]
        dialogs: list[Dialog] = [
            [{"role": "user", "content": text}]
            for text in ([given] if isinstance(given, str) else given)
        ]
        self._check_count(len(dialogs), 1)
        self._check_length([given] if isinstance(given, str) else given)
        try:
            prompts = [guard.encode(dialog) for dialog in dialogs]
        except LlamakitError as error:
            raise as_api_error(error, "input") from error
        most = self._settings.limits.new_tokens or moderation.ANSWER_TOKENS
        return self._request(
            GREEDY,
            prompts,
            limit=min(most, moderation.ANSWER_TOKENS),
            stop_tokens=self._llama.stop_tokens.union(guard.stop_tokens),
        )

    def scored(self, prompts: Sequence[list[int]]) -> CompletionRequest:
        """Return a request for the log-probabilities of prompts. Raises as ``completion``."""
        stops = self._llama.stop_tokens
        return self._request(
            GREEDY, prompts, limit=1, stop_tokens=stops, top=0, echo=True, discard=True
        )

    # Parts of a body ----------------------------------------------------------------------------

    def _checked(self, body: object, schema: Mapping[str, Any]) -> Body:
        """Check a body against a schema; return it without nulls, which mean the default."""
        if not isinstance(body, CheckedBody):
            check(body, schema)
        assert isinstance(body, dict)
        body = {name: value for name, value in body.items() if value is not None}
        name = body.get("model")
        if name is not None and name != self._settings.model_name:
            raise ApiError(
                404,
                f"no model {name!r}; this server has {self._settings.model_name!r}",
                param="model",
                code="model_not_found",
            )
        return body

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
        discard: bool = False,
        read: ReadAnswer | None = None,
    ) -> CompletionRequest:
        n = body.get("n", 1)
        seen = body.get("sampler_logprobs", False)
        if seen and top is None:
            raise bad("sampler_logprobs needs logprobs", "sampler_logprobs")
        sampling = self._samplings.read(body)
        repeated = [prompt for prompt in prompts for _ in range(n)]
        choices = [
            Request(
                tokens=prompt,
                limit=self._limit(len(prompt), limit),
                sampling=sampling,
                seed=seed,
                stop_tokens=stop_tokens,
                logprobs=top is not None,
                prompt_logprobs=echo and top is not None,
                top=top or 0,
                seen=seen,
                drafter=self._settings.drafter,
            )
            for prompt, seed in zip(repeated, self._seeds(body, repeated), strict=True)
        ]
        return CompletionRequest(
            choices,
            n=n,
            stop=_stop_strings(body) + stop,
            echo=echo,
            keep_space=keep_space and not sampling.is_constrained,
            top=top,
            seen=seen,
            discard=discard,
            read=read,
            stream=body.get("stream", False),
            include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        )

    def _check_count(self, prompts: int, n: int) -> None:
        most = self._settings.limits.choices
        if prompts * n > most:
            raise too_many_answers(prompts, n, most)

    def _check_length(self, texts: Iterable[str]) -> None:
        """Refuse what has too many characters for the context, before it is encoded."""
        characters, context = sum(map(len, texts)), self._llama.max_seq_len
        if self._longest_token and characters > context * self._longest_token:
            raise context_exceeded(context, characters // self._longest_token, at_least=True)

    @functools.cached_property
    def _longest_token(self) -> int:
        """How many characters a token has at most; 0 is unknown."""
        token_bytes = getattr(self._llama.tokenizer, "token_bytes", tuple)
        return max(map(len, token_bytes()), default=0)

    def _seeds(self, body: Body, prompts: Sequence[list[int]]) -> list[int]:
        """Return the seed of each choice."""
        first = body.get("seed", self._settings.seed)
        return spread(secrets.randbits(62) if first is None else int(first), prompts)

    def _limit(self, length: int, new: int | None) -> int:
        """Return the longest length of a sequence, prompt included."""
        context, most = self._llama.max_seq_len, self._settings.limits.new_tokens
        if length >= context:
            raise context_exceeded(context, length)
        if new is not None and most is not None and new > most:
            raise bad(f"max_tokens is {new}; this server gives {most} at most", "max_tokens")
        room = new or self._settings.new_tokens or most or context
        return min(context, length + min(room, most or room))

    def _prompts(self, body: Body) -> list[list[int]]:
        """Return the tokens of each prompt of a completion."""
        given = body["prompt"]
        prompts = [given] if isinstance(given, str) or isinstance(given[0], int) else given
        self._check_count(len(prompts), body.get("n", 1))
        for prompt in prompts:
            self._check_length([prompt] if isinstance(prompt, str) else ())
        prompt_format = self._format(body) if "prompt_format" in body else None
        encode = getattr(prompt_format, "encode_text", None)
        if prompt_format is not None and encode is None:
            raise bad("this prompt_format is for chats, not for completions", "prompt_format")
        encoded = []
        for prompt in prompts:
            if isinstance(prompt, str):
                try:
                    encoded.append(
                        encode(prompt) if encode else self._llama.tokenizer.encode(prompt, bos=True)
                    )
                except LlamakitError as error:
                    raise as_api_error(error, "prompt") from error
            else:
                self._check_tokens(prompt, "prompt", self._llama.checkpoint.params.vocab_size)
                encoded.append([int(token) for token in prompt])
        return encoded

    def _check_tokens(self, tokens: Sequence[int], param: str, count: int) -> None:
        if tokens and max(tokens) >= count:
            raise bad(f"{param} has the token ID {max(tokens)}; the last one is {count - 1}", param)

    def _format(self, body: Body) -> PromptFormat:
        """Build the prompt format that a request names, or the server's."""
        given = body.get("prompt_format")
        known = self._llama.toolkit.prompt_formats
        try:
            if given is None:
                choice = parse_choice(
                    self._settings.prompt_format or self._llama.default_prompt_format
                )
            else:
                choice = read_choice(given, known, "prompt_format")
            return build_format(known.entry(choice.name), choice.options, self._llama.tokenizer)
        except LlamakitError as error:
            raise as_api_error(error, "prompt_format") from error

    def _format_with_tools(self, body: Body) -> PromptFormat:
        """Build the prompt format of a request, with the request's tools described."""
        tools = body.get("tools") if body.get("tool_choice") != "none" else None
        try:
            return with_tools(self._format(body), tools)
        except DialogError as error:
            raise as_api_error(error, "tools") from error

    def _encoded(self, prompt_format: PromptFormat, body: Body) -> list[int]:
        try:
            return encode_dialog(prompt_format, dialog_of(body["messages"]))
        except LlamakitError as error:
            raise as_api_error(error, "messages") from error


def _contents(messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the texts of messages."""
    for message in messages:
        content = message.get("content") or ""
        yield from (content,) if isinstance(content, str) else (it["text"] for it in content)


def _stop_strings(body: Body) -> tuple[str, ...]:
    given = body.get("stop", ())
    return tuple(text for text in ([given] if isinstance(given, str) else given) if text)
