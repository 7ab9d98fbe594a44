"""Requests to the scheduler, and the events that it returns for them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch

from llamakit.protocols import Drafter, Observer
from llamakit.runtime.sampling_pipeline import Sampling

FinishReason = Literal["stop", "length", "cancelled", "failed"]
Top = tuple[tuple[int, float], ...]
"""The likeliest tokens with their log-probabilities, the likeliest first."""


class ChosenObserver(NamedTuple):
    """An observer, and the layers of this model that it reads."""

    name: str
    observer: Observer
    layers: tuple[int, ...]


class Scores(NamedTuple):
    """The log-probability of a token, and the likeliest tokens in its place."""

    logprob: float
    top: Top


StopToken = tuple[int, Scores, Scores | None]
"""A stop token, its scores, and those that the sampler saw, if asked for."""


@dataclass(frozen=True)
class Request:
    """A request to continue one sequence.

    Args:
        tokens: the prompt's tokens, at least one.
        limit: the longest sequence, prompt included, in tokens.
        seed: of this row's own generator.
        stop_tokens: tokens that end the answer and are not part of it.
        logprobs: report the log-probability of each new token, before any processor.
        prompt_logprobs: report those of the prompt's tokens as well.
        first_scored: of the prompt's tokens, only those from this position on; what is before them
            may come from the cache.
        prompt_only: end after the prompt, without a new token; the prompt may then fill the limit.
        top: report this many of the likeliest tokens at each step, before any processor; with
            ``prompt_logprobs`` at each of the prompt's tokens too.
        seen: report both as the sampler saw them too, after all processors.
        observers: read the hidden states of all passes; nothing of the prompt comes from the
            cache, and nothing is drafted.
        drafter: drafts tokens for speculative decoding; the answer is the same with and without.
    """

    tokens: Sequence[int]
    limit: int
    sampling: Sampling
    seed: int
    stop_tokens: frozenset[int] = frozenset()
    logprobs: bool = False
    prompt_logprobs: bool = False
    first_scored: int = 0
    prompt_only: bool = False
    top: int = 0
    seen: bool = False
    observers: tuple[ChosenObserver, ...] = ()
    drafter: Drafter | None = None


@dataclass(frozen=True)
class Event:
    """One new token of one request, or its end.

    Args:
        index: which request, in the order of submission.
        token: the new token; None when the event is only the end.
        finish: why the row ended, or None while it continues.
        prompt_logprobs: with a row's first event, of each token of the prompt from ``first_scored``
            on (0.0 for the prompt's first).
        drafted: how many tokens have been drafted for this request so far.
        accepted: how many of those the sampler chose too.
        top: the likeliest tokens with their log-probabilities, the likeliest first, if asked for.
        error: why the row failed; ``finish`` is ``failed`` then.
        seen: what the sampler saw of the token, if asked for.
        prompt_top: with ``prompt_logprobs``, the likeliest tokens in the place of each of the
            prompt's tokens; nothing for the first.
        observed: with the last event, what each observer has found.
        stop_token: the one that ended the row, with its scores, if those of tokens are asked for.
    """

    index: int
    token: int | None
    logprob: float | None = None
    finish: FinishReason | None = None
    prompt_logprobs: tuple[float, ...] | None = None
    drafted: int = 0
    accepted: int = 0
    top: Top = ()
    error: Exception | None = None
    seen: Scores | None = None
    prompt_top: tuple[Top, ...] = ()
    observed: tuple[Any, ...] = ()
    stop_token: StopToken | None = None


@dataclass(eq=False)
class RunningRow:
    """A request in the scheduler (the ``Row`` that samplers and processors see)."""

    index: int
    request: Request
    generator: torch.Generator
    tokens: list[int] = field(default_factory=list)
    state: dict[Any, Any] = field(default_factory=dict)
    prompt_logprobs: list[float] | None = None
    """Of the prompt's tokens computed so far; None if not asked for, or returned already."""
    prompt_top: list[Top] = field(default_factory=list)
    drafted: int = 0
    accepted: int = 0
    draft_length: int = sys.maxsize
    """How many tokens of the next draft are checked."""
    failure: Exception | None = None
    """What an observer of it has raised."""

    @property
    def prompt_length(self) -> int:
        """How many of ``tokens`` are the prompt's."""
        return len(self.request.tokens)

    @property
    def stop_tokens(self) -> frozenset[int]:
        """Tokens that end this row's answer."""
        return self.request.stop_tokens

    @property
    def reusable(self) -> int:
        """How many tokens may come from the cache when the row gets a slot; its last never does."""
        if self.request.observers:
            return 0
        before_scored = self.request.first_scored - 1 if self.scores_prompt else sys.maxsize
        return max(0, min(len(self.tokens) - 1, before_scored))

    @property
    def scores_prompt(self) -> bool:
        """Whether the prompt's log-probabilities are still to be returned, with the first token."""
        return self.request.prompt_logprobs and len(self.tokens) == self.prompt_length

    def add_prompt_logprobs(self, logits: torch.Tensor, start: int) -> None:
        """Store the log-probabilities of the prompt's tokens that follow some positions.

        Args:
            logits: ``(T, V)``, of T adjacent positions.
            start: the first of them.
        """
        if self.prompt_logprobs is None:
            count = 0 if self.request.first_scored else 1  # nothing comes before the first token
            self.prompt_logprobs, self.prompt_top = [0.0] * count, [()] * count
        first = max(start + 1, self.request.first_scored)
        following = self.tokens[first : start + 1 + len(logits)]
        if not following:
            return
        logits = logits[first - start - 1 :]
        targets = torch.tensor(following, device=logits.device)[:, None]
        scores = logits[: len(following)].log_softmax(-1)  # (T, V)
        self.prompt_logprobs += scores.gather(-1, targets)[:, 0].tolist()
        best, likeliest = scores.topk(min(self.request.top, scores.shape[-1]))  # (T, top)
        self.prompt_top += [
            tuple(zip(row_tokens, row_scores, strict=True))
            for row_tokens, row_scores in zip(likeliest.tolist(), best.tolist(), strict=True)
        ]

    def append(
        self,
        token: int,
        logprob: float | None,
        *,
        drafted: bool = False,
        top: Top = (),
        seen: Scores | None = None,
    ) -> Event:
        """Append the token that the sampler chose; return the event for it.

        Args:
            drafted: the token is the drafted one.
        """
        self.accepted += drafted
        prompt_logprobs, self.prompt_logprobs = self.prompt_logprobs, None
        prompt_top, self.prompt_top = self.prompt_top, []
        finish: FinishReason | None = None
        new_token: int | None = token
        stop_token: StopToken | None = None
        if self.request.prompt_only:
            new_token, logprob, finish, top, seen = None, None, "length", (), None
        elif token in self.request.stop_tokens:
            stop_token = None if logprob is None else (token, Scores(logprob, top), seen)
            new_token, logprob, finish, top, seen = None, None, "stop", (), None
        else:
            self.tokens.append(token)
            if len(self.tokens) >= self.request.limit:
                finish = "length"
        try:
            observed = self._observed() if finish else ()
        except Exception as error:  # noqa: BLE001 (of this row alone, as a sampler's)
            return self.fail(error)
        return Event(
            self.index,
            new_token,
            logprob,
            finish,
            None if prompt_logprobs is None else tuple(prompt_logprobs),
            self.drafted,
            self.accepted,
            top,
            seen=seen,
            prompt_top=tuple(prompt_top),
            observed=observed,
            stop_token=stop_token,
        )

    def end(self) -> Event:
        """Return the event of a row that is ended before its model or its limit ends it."""
        try:
            return Event(self.index, None, finish="cancelled", observed=self._observed())
        except Exception as error:  # noqa: BLE001 (of this row alone, as a sampler's)
            return self.fail(error)

    def _observed(self) -> tuple[Any, ...]:
        """Return what each observer has found. Raises what one of them raises."""
        with torch.inference_mode():
            return tuple(it.observer.result(self) for it in self.request.observers)

    def fail(self, error: Exception) -> Event:
        """Return the event of a row whose own sampler, processor or observer has failed."""
        return Event(
            self.index,
            None,
            finish="failed",
            drafted=self.drafted,
            accepted=self.accepted,
            error=error,
        )
