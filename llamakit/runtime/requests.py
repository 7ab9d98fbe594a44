"""What the engine is asked, and what it says."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch

from llamakit.protocols import Drafter
from llamakit.runtime.sampling import Sampling

FinishReason = Literal["stop", "length", "cancelled", "failed"]
Top = tuple[tuple[int, float], ...]
"""The likeliest ids with their log-probabilities, the likeliest first."""


class Scores(NamedTuple):
    """How likely an id was, and which were the likeliest."""

    logprob: float
    top: Top


@dataclass(frozen=True)
class Request:
    """What is asked for one sequence.

    Args:
        tokens: the prompt's ids, at least one.
        limit: the longest sequence, prompt included, in ids.
        seed: of this row's own generator.
        stop_tokens: ids that end the answer and are not part of it.
        logprobs: report the log-probability of each new id, before any processor.
        prompt_logprobs: report those of the prompt's ids as well.
        top: report this many of the likeliest ids at each step, before any processor; with
            ``prompt_logprobs`` at each of the prompt's ids too.
        seen: report both as they were left to the sampler as well.
        drafter: proposes ids for the model to check; the answer is the same with and without.
    """

    tokens: Sequence[int]
    limit: int
    sampling: Sampling
    seed: int
    stop_tokens: frozenset[int] = frozenset()
    logprobs: bool = False
    prompt_logprobs: bool = False
    top: int = 0
    seen: bool = False
    drafter: Drafter | None = None


@dataclass(frozen=True)
class Event:
    """One new id of one request, or its end.

    Args:
        index: which request, in the order of submission.
        token: the new id; None when the event is only the end.
        finish: why the row ended, or None while it goes on.
        prompt_logprobs: with a row's first event, of each id of the prompt (0.0 for the first).
        drafted: how many ids have been proposed for this request so far.
        accepted: how many of those were what the sampler chose.
        top: the likeliest ids with their log-probabilities, the likeliest first, if asked for.
        error: why the row failed; ``finish`` is ``failed`` then.
        seen: what the sampler saw of the id, if asked for.
        prompt_top: with ``prompt_logprobs``, what could have stood in the place of each of the
            prompt's ids; nothing for the first.
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


@dataclass(eq=False)
class RunningRow:
    """A request that waits or has a slot (the ``Row`` that samplers and processors see)."""

    index: int
    request: Request
    generator: torch.Generator
    tokens: list[int] = field(default_factory=list)
    state: dict[Any, Any] = field(default_factory=dict)
    prompt_logprobs: list[float] | None = None
    """Of the prompt's ids that are computed; None when not asked for, or given out."""
    prompt_top: list[Top] = field(default_factory=list)
    drafted: int = 0
    accepted: int = 0
    draft_length: int = sys.maxsize
    """How many ids of the next draft are looked at."""

    @property
    def prompt_length(self) -> int:
        """How many of ``tokens`` are the prompt's."""
        return len(self.request.tokens)

    @property
    def stop_tokens(self) -> frozenset[int]:
        """Ids that end this row's answer."""
        return self.request.stop_tokens

    def add_prompt_logprobs(self, logits: torch.Tensor, following: Sequence[int]) -> None:
        """Note the log-probability of the ids behind some positions of the prompt.

        Args:
            logits: ``(T, V)``.
            following: the id behind each position; one less where the prompt ends.
        """
        if self.prompt_logprobs is None:
            self.prompt_logprobs = [0.0]  # nothing stands before the first id
            self.prompt_top = [()]
        ids = torch.tensor(following, device=logits.device)[:, None]
        scores = logits[: len(following)].log_softmax(-1)  # (T, V)
        self.prompt_logprobs += scores.gather(-1, ids)[:, 0].tolist()
        best, likeliest = scores.topk(min(self.request.top, scores.shape[-1]))  # (T, top)
        self.prompt_top += [
            tuple(zip(its_ids, its_scores, strict=True))
            for its_ids, its_scores in zip(likeliest.tolist(), best.tolist(), strict=True)
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
        """Take in what the sampler chose.

        Args:
            drafted: it is what the drafter had proposed.
        """
        self.accepted += drafted
        prompt_logprobs, self.prompt_logprobs = self.prompt_logprobs, None
        prompt_top, self.prompt_top = self.prompt_top, []
        finish: FinishReason | None = None
        given: int | None = token
        if token in self.request.stop_tokens:
            given, logprob, finish, top, seen = None, None, "stop", (), None
        else:
            self.tokens.append(token)
            if len(self.tokens) >= self.request.limit:
                finish = "length"
        return Event(
            self.index,
            given,
            logprob,
            finish,
            None if prompt_logprobs is None else tuple(prompt_logprobs),
            self.drafted,
            self.accepted,
            top,
            seen=seen,
            prompt_top=tuple(prompt_top),
        )

    def fail(self, error: Exception) -> Event:
        """End because the row's own sampler or processor has failed."""
        return Event(
            self.index,
            None,
            finish="failed",
            drafted=self.drafted,
            accepted=self.accepted,
            error=error,
        )
