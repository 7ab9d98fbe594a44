"""Requests to ids: an engine that knows ids only.

Rows live in the slots of one cache: those that write lie in slots ``0 .. n - 1``, so that they
are one batch, and behind them at most one whose prompt is long and is computed in chunks. A row
that ends gives its slot to the last one, so it costs nothing more, and a waiting request takes a
free slot at once. Shapes: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Iterator
from dataclasses import replace
from itertools import islice

import torch

from llamakit.errors import PromptError, PromptTooLongError
from llamakit.runtime.cache_slots import WORTH_COPYING, CacheSlots, shared_length
from llamakit.runtime.drafting import propose
from llamakit.runtime.executor import Executor
from llamakit.runtime.requests import Event, FinishReason, Request, RunningRow
from llamakit.runtime.token_selection import Pass, check, choose

__all__ = ["Event", "FinishReason", "Request", "Scheduler"]

CHUNK = 512
"""How many ids of prompts are computed between two ids of the rows that write. It bounds the
memory that a long prompt takes beside the cache, and how long it holds up the others."""

FULL_ENOUGH, ALWAYS_FULL_ENOUGH = 0.75, 64
"""How much of a batch of prompts has to be ids, not padding; unless it has so few positions that
reading the weights is what takes the time."""


class Scheduler:
    """Runs requests, as many at once as there are slots.

    One thread at a time may call it; ``Engine`` is for several.

    Args:
        slots: the largest batch.
        length: the longest sequence, in ids.
        cache: slots of an earlier generator, at least as many and as long; None opens new ones.
        chunk: how many ids of prompts are computed in one pass.
    """

    def __init__(
        self,
        executor: Executor,
        slots: int,
        length: int,
        *,
        cache: CacheSlots | None = None,
        chunk: int = CHUNK,
    ) -> None:
        self._executor = executor
        self._slots = slots
        self._length = length
        self._chunk = chunk
        self._cache = cache or CacheSlots(executor, slots, length)
        self._waiting: deque[RunningRow] = deque()
        self._active: list[RunningRow] = []  # those that write, by slot
        self._loading: RunningRow | None = None  # behind them: its prompt is not yet computed
        self._cancelled: set[int] = set()
        self._submitted = 0
        self._vocabulary = 0  # known from the first logits

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self._waiting or self._active or self._loading)

    @property
    def free(self) -> int:
        """How many slots nobody has or waits for."""
        taken = len(self._active) + len(self._waiting) + (self._loading is not None)
        return max(0, self._slots - taken)

    def submit(self, request: Request) -> int:
        """Queue a request, at any time between two steps; return its index.

        Raises:
            PromptError: an empty prompt.
            PromptTooLongError: the prompt leaves no room for an answer.
        """
        if not request.tokens:
            raise PromptError("the prompt has no ids: give at least one")
        request = replace(request, limit=min(request.limit, self._length))
        if len(request.tokens) >= request.limit:
            raise PromptTooLongError(
                f"the prompt's {len(request.tokens)} ids leave no room in a context of "
                f"{request.limit}"
            )
        generator = torch.Generator(device=self._executor.model.device)
        generator.manual_seed(request.seed)
        row = RunningRow(self._submitted, request, generator, list(request.tokens))
        self._waiting.append(row)
        self._submitted += 1
        return row.index

    def run(self, requests: Iterable[Request] = ()) -> Iterator[Event]:
        """Yield events until every request has ended.

        Args:
            requests: more of them; each is taken when there will soon be a slot for it.
        Raises:
            Exception: what a request's own sampler or processor has raised.
        """
        more = iter(requests)
        while True:
            missing = max(0, 2 * self._slots - len(self._waiting))
            for request in islice(more, missing):
                self.submit(request)
            if self.idle:
                return
            for event in self.step():
                if event.error is not None:
                    raise event.error
                if event.index not in self._cancelled:
                    yield event

    def step(self) -> list[Event]:
        """Write one id of every active row or, with drafts, several; let waiting rows in.

        A row whose sampler or processor fails ends with that event; ``run`` raises its error.

        Between two steps lie one pass for the rows that write, one for a chunk of a long prompt
        and one for short prompts.

        Raises:
            NonFiniteError: NaN or infinity in the logits.
        """
        self._cancelled.clear()
        passes = [*self._decode(), *self._load(), *self._let_in()]
        if passes:
            self._vocabulary = passes[0].logits.shape[-1]
        events = choose(passes, self._cache)
        for event in events:
            if event.finish:
                self._leave(event.index)
        return events

    def cancel(self, index: int) -> None:
        """End a request that waits or runs; its slot is free at once."""
        self._cancelled.add(index)
        self._waiting = deque(row for row in self._waiting if row.index != index)
        self._leave(index)

    def close(self) -> None:
        """Free the cache."""
        self._cache.close()

    def _decode(self) -> Iterator[Pass]:
        """Feed each active row its newest id, and what is drafted behind it."""
        if not self._active:
            return
        rows = list(self._active)
        drafts = propose(rows, self._cache.length, self._vocabulary)
        tokens = [(row.tokens[-1], *draft) for row, draft in zip(rows, drafts, strict=True)]
        if any(drafts):
            logits, batch = self._cache.forward(0, tokens, every_position=True)
            yield Pass(rows, logits, batch, drafts)
        else:
            logits, batch = self._cache.forward(0, tokens)
            yield Pass(rows, logits[:, None], batch)

    def _load(self) -> Iterator[Pass]:
        """Compute the next chunk of a long prompt; the last one gives a pass."""
        slot = len(self._active)
        if self._loading is None:
            if slot == self._slots or not self._waiting or not self._is_long(self._waiting[0]):
                return
            self._loading = self._waiting.popleft()
            self._place(self._loading, slot, set(range(slot)))
        row, done = self._loading, len(self._cache.held[slot])
        chunk = row.tokens[done : done + self._chunk]
        every = row.request.prompt_logprobs
        logits, batch = self._cache.forward(slot, [chunk], every_position=every)
        if every:
            row.add_prompt_logprobs(logits[0], row.tokens[done + 1 : done + 1 + len(chunk)])
            logits = logits[:, -1]
        computed = Pass([row], logits[:, None], batch)
        if done + len(chunk) < len(row.tokens):
            check(computed, self._cache)
        else:
            self._loading = None
            self._active.append(row)
            yield computed

    def _let_in(self) -> Iterator[Pass]:
        """Give free slots to waiting rows whose prompts are short, computing them together."""
        group = self._next_group()
        if not group:
            return
        first, held = len(self._active), self._cache.held
        if self._loading:
            self._cache.swap(first, first + len(group))
        rows = list(enumerate(group, start=first))
        taken = set(range(first)) | ({first + len(group)} if self._loading else set())
        for slot, row in sorted(rows, key=lambda it: self._shared(it[1]), reverse=True):
            self._waiting.remove(row)
            self._place(row, slot, taken)  # before another one takes what it shares
            taken.add(slot)
        self._active += group
        width = max(len(row.tokens) - len(held[slot]) for slot, row in rows)
        if max(len(held[slot]) for slot, _ in rows) + width > self._cache.length:
            for slot, _ in rows:  # no room for the padding
                self._cache.truncate(slot, 0)
        tokens = [row.tokens[len(held[slot]) :] for slot, row in rows]
        logits, batch = self._cache.forward(first, tokens)
        yield Pass(group, logits[:, None], batch)

    def _next_group(self) -> list[RunningRow]:
        """Choose waiting rows whose prompts are worth computing in one pass.

        They keep their order, but while a long prompt is at work the short ones overtake the
        other long ones. Who shares much with a row of the group waits a step: its beginning can
        be copied then.
        """
        free = self._slots - len(self._active) - (self._loading is not None)
        group: list[RunningRow] = []
        counts: list[int] = []
        for row in islice(self._waiting, 2 * self._slots if free else 0):
            if self._is_long(row):
                if self._loading is None:
                    break
                continue
            shared = self._shared(row)
            counts.append(len(row.tokens) - shared)
            alike = max((shared_length(row.tokens, it.tokens) for it in group), default=0)
            if group and (not self._fits(counts) or alike >= shared + WORTH_COPYING):
                break
            group.append(row)
            if len(group) == free:
                break
        return group

    def _fits(self, counts: list[int]) -> bool:
        """Tell whether prompts of so many ids are worth computing in one pass."""
        padded = max(counts) * len(counts)
        full = padded <= ALWAYS_FULL_ENOUGH or sum(counts) >= FULL_ENOUGH * padded
        return padded <= self._chunk and full

    def _is_long(self, row: RunningRow) -> bool:
        """Tell whether a prompt takes a pass of its own, or several."""
        if row.request.prompt_logprobs:
            return True
        return len(row.tokens) > self._chunk and len(row.tokens) - self._shared(row) > self._chunk

    def _shared(self, row: RunningRow) -> int:
        """How many ids of a prompt the cache holds; the last one is always computed again."""
        return min(self._cache.best(row.tokens, 0)[1], len(row.tokens) - 1)

    def _place(self, row: RunningRow, slot: int, taken: Container[int]) -> None:
        """Have a free slot hold as much of a prompt's beginning as any slot does.

        Args:
            taken: the slots that rows have.
        """
        if row.request.prompt_logprobs:  # every position's logits are wanted
            self._cache.truncate(slot, 0)
            return
        source, shared = self._cache.best(row.tokens, slot)
        shared = min(shared, len(row.tokens) - 1)
        if source not in taken:
            self._cache.swap(source, slot)
        elif shared >= WORTH_COPYING:
            self._cache.copy(source, slot, shared)
        self._cache.truncate(slot, min(shared_length(self._cache.held[slot], row.tokens), shared))

    def _leave(self, index: int) -> None:
        """Take the slot of a row that ended; the last one moves into it.

        What the row's slot held goes to a free one: the next prompt may begin alike.
        """
        if self._loading and self._loading.index == index:
            self._loading = None
            return
        for slot, row in enumerate(self._active):
            if row.index == index:
                last = len(self._active) - 1
                self._cache.swap(slot, last)
                self._active[slot] = self._active[last]
                self._active.pop()
                if self._loading:
                    self._cache.swap(last, last + 1)
                return
