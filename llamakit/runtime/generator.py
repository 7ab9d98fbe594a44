"""Requests to ids: an engine that knows ids only.

Rows live in the slots of one cache. Slots ``0 .. active - 1`` are in use; a row that ends gives
its slot to the last one, so it costs nothing more, and a waiting request takes a free slot at
once. Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from llamakit.errors import NonFiniteError, PromptError, PromptTooLongError
from llamakit.runtime.executor import Executor
from llamakit.runtime.model import Batch
from llamakit.runtime.sampling import Sampling, sample

FinishReason = Literal["stop", "length", "cancelled"]


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
    """

    tokens: Sequence[int]
    limit: int
    sampling: Sampling
    seed: int
    stop_tokens: frozenset[int] = frozenset()
    logprobs: bool = False
    prompt_logprobs: bool = False


@dataclass(frozen=True)
class Event:
    """One new id of one request, or its end.

    Args:
        index: which request, in the order of submission.
        token: the new id; None when the event is only the end.
        finish: why the row ended, or None while it goes on.
        prompt_logprobs: with a row's first event, of each id of the prompt (0.0 for the first).
    """

    index: int
    token: int | None
    logprob: float | None = None
    finish: FinishReason | None = None
    prompt_logprobs: tuple[float, ...] | None = None


@dataclass
class RunningRow:
    """A request that has a slot (the ``Row`` that samplers and processors see)."""

    index: int
    request: Request
    generator: torch.Generator
    tokens: list[int] = field(default_factory=list)
    state: dict[Any, Any] = field(default_factory=dict)
    prompt_logprobs: tuple[float, ...] | None = None

    @property
    def prompt_length(self) -> int:
        """How many of ``tokens`` are the prompt's."""
        return len(self.request.tokens)

    @property
    def stop_tokens(self) -> frozenset[int]:
        """Ids that end this row's answer."""
        return self.request.stop_tokens


class Generator:
    """Runs requests, as many at once as there are slots.

    Args:
        slots: the largest batch.
        length: the longest sequence, in ids.
    """

    def __init__(self, executor: Executor, slots: int, length: int) -> None:
        self._executor = executor
        self._slots = slots
        self._length = length
        self._cache = executor.open_cache(slots, length)
        self._waiting: deque[RunningRow] = deque()
        self._active: list[RunningRow] = []
        self._submitted = 0

    def submit(self, request: Request) -> int:
        """Queue a request; return its index.

        Raises:
            PromptError: an empty prompt.
            PromptTooLongError: the prompt leaves no room for an answer.
        """
        if not request.tokens:
            raise PromptError("the prompt has no ids: give at least one")
        if len(request.tokens) >= min(request.limit, self._length):
            raise PromptTooLongError(
                f"the prompt's {len(request.tokens)} ids leave no room in a context of "
                f"{min(request.limit, self._length)}"
            )
        generator = torch.Generator(device=self._executor.model.device)
        generator.manual_seed(request.seed)
        row = RunningRow(self._submitted, request, generator, list(request.tokens))
        self._waiting.append(row)
        self._submitted += 1
        return row.index

    def run(self) -> Iterator[Event]:
        """Yield events until every request has ended."""
        while self._waiting or self._active:
            yield from self.step()

    def step(self) -> list[Event]:
        """Write one id of every active row, letting waiting rows in first.

        Raises:
            NonFiniteError: NaN or infinity in the logits.
        """
        logits = [self._decode()] if self._active else []
        while self._waiting and len(self._active) < self._slots:
            logits.append(self._prefill(self._waiting.popleft()))
        events = self._choose(torch.cat(logits)) if logits else []
        for event in events:
            if event.finish:
                self._leave(event.index)
        return events

    def cancel(self, index: int) -> None:
        """End a request that waits or runs; its slot is free at once."""
        self._waiting = deque(row for row in self._waiting if row.index != index)
        self._leave(index)

    def close(self) -> None:
        """Free the cache."""
        self._executor.close_cache(self._cache)

    def _decode(self) -> torch.Tensor:
        rows = self._active
        batch = Batch(
            tokens=tuple((row.tokens[-1],) for row in rows),
            starts=tuple(len(row.tokens) - 1 for row in rows),
        )
        logits = self._executor.forward(self._cache, batch)  # (B, V)
        self._check(logits, batch, rows[0])
        return logits

    def _prefill(self, row: RunningRow) -> torch.Tensor:
        every = row.request.prompt_logprobs
        batch = Batch((tuple(row.tokens),), (0,), slot=len(self._active), every_position=every)
        logits = self._executor.forward(self._cache, batch)
        self._check(logits, batch, row)
        self._active.append(row)
        if not every:
            return logits  # (1, V)
        row.prompt_logprobs = _prompt_logprobs(logits[0], row.tokens)
        return logits[:, -1]

    def _check(self, logits: torch.Tensor, batch: Batch, row: RunningRow) -> None:
        if bool(logits.isfinite().all()):
            return
        where = self._executor.first_nonfinite(self._cache, batch)
        step = len(row.tokens) - row.prompt_length + 1
        dtype = str(self._executor.model.dtype).removeprefix("torch.")
        advice = (
            "try --dtype float32 or bfloat16" if dtype == "float16" else "the weights hold them"
        )
        raise NonFiniteError(
            f"NaN or infinity in the logits of step {step}: it first shows in {where}, computed "
            f"in {dtype}; {advice}"
        )

    def _choose(self, logits: torch.Tensor) -> list[Event]:
        rows = self._active
        wanted = any(row.request.logprobs for row in rows)
        logprobs = logits.log_softmax(-1) if wanted else None  # (B, V), before any processor
        with torch.inference_mode():
            tokens = sample(logits, rows, [row.request.sampling for row in rows])
        events = []
        for number, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            logprob = None
            if logprobs is not None and row.request.logprobs:
                logprob = float(logprobs[number, token])
            events.append(self._append(row, token, logprob))
        return events

    def _append(self, row: RunningRow, token: int, logprob: float | None) -> Event:
        prompt_logprobs, row.prompt_logprobs = row.prompt_logprobs, None
        if token in row.request.stop_tokens:
            return Event(row.index, None, None, "stop", prompt_logprobs)
        row.tokens.append(token)
        full = len(row.tokens) >= row.request.limit
        return Event(row.index, token, logprob, "length" if full else None, prompt_logprobs)

    def _leave(self, index: int) -> None:
        """Give the slot of a row that ended to the last row."""
        for slot, row in enumerate(self._active):
            if row.index == index:
                last = self._active.pop()
                if last is not row:
                    self._active[slot] = last
                    held = len(last.tokens) - 1  # the newest id is not in the cache yet
                    self._executor.move(self._cache, len(self._active), slot, held)
                return


def _prompt_logprobs(logits: torch.Tensor, tokens: Sequence[int]) -> tuple[float, ...]:
    """Return the log-probability of each id of a prompt; the first has none and gets 0.0.

    Args:
        logits: ``(T, V)``.
    """
    following = torch.tensor(tokens[1:], device=logits.device)
    logprobs = logits[:-1].log_softmax(-1).gather(-1, following[:, None])[:, 0]
    return (0.0, *logprobs.tolist())
