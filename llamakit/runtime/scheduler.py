"""Continuous batching: requests in, tokens out, with a free slot refilled at once.

Each row has a slot of one cache. The rows that decode have slots ``0 .. n - 1``, so that they form
one batch; the slot after them may belong to one row with a long prompt, computed in chunks. When a
row ends, the last row moves into its slot, and a waiting request takes the slot that is free.
Shapes: B rows, T positions, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

import torch

from llamakit.errors import PromptError, PromptTooLongError
from llamakit.runtime.admission import choose_group, is_long, shared_with_cache
from llamakit.runtime.cache_slots import CacheSlots
from llamakit.runtime.compute_threads import ComputeThreads
from llamakit.runtime.executor import Executor
from llamakit.runtime.hidden_states import forward
from llamakit.runtime.requests import Event, FinishReason, Request, RunningRow
from llamakit.runtime.speculation import collect_drafts
from llamakit.runtime.token_selection import Pass, check, choose

__all__ = ["Event", "FinishReason", "Request", "Scheduler"]

CHUNK = 512
"""How many prompt tokens are computed between two decoding steps. It bounds the memory that a long
prompt takes besides the cache, and how long it delays the other rows."""
CPU_PIECE = 64
"""The same on a CPU while rows decode: so many tokens are computed there at once as quickly as more
are, a token each, and a step of the other rows waits for them. A GPU would be half idle."""


class Scheduler:
    """Runs requests, at most as many at the same time as there are slots.

    One thread at a time may call it; ``Engine`` is for several.

    Args:
        slots: the largest batch.
        length: the longest sequence, in tokens.
        cache: slots of an earlier scheduler, at least as many and as long; None opens new ones.
        chunk: how many tokens of prompts are computed in one pass, at most.
        is_shared: as for ``ComputeThreads``.
    """

    def __init__(
        self,
        executor: Executor,
        slots: int,
        length: int,
        *,
        cache: CacheSlots | None = None,
        chunk: int = CHUNK,
        is_shared: bool = False,
    ) -> None:
        self._executor = executor
        self._threads = ComputeThreads(executor.model, is_shared=is_shared)
        self.slots = slots
        self._length = length
        self._chunk = self._piece = chunk
        self._cache = cache or CacheSlots(executor, slots, length)
        self._forward = partial(forward, self._cache, self._threads)
        self._waiting: deque[RunningRow] = deque()
        self._active: list[RunningRow] = []  # those that decode, by slot
        self._loading: RunningRow | None = None  # in the slot after them: a prompt in chunks
        self._cancelled: set[int] = set()
        self._submitted = 0
        self._vocabulary = 0  # known from the first logits

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self._waiting or self._active or self._loading)

    @property
    def free(self) -> int:
        """How many slots are free and not claimed by a waiting request."""
        taken = len(self._active) + len(self._waiting) + (self._loading is not None)
        return max(0, self.slots - taken)

    @property
    def share(self) -> int:
        """How many slots a client may have beside others: each row lengthens a step on a CPU."""
        return max(1, self.slots // (8 if self._executor.model.device.type == "cpu" else 2))

    def submit(self, request: Request) -> int:
        """Queue a request, at any time between two steps; return its index.

        Raises:
            PromptError: an empty prompt.
            PromptTooLongError: the prompt leaves no room for an answer.
        """
        if not request.tokens:
            raise PromptError("the prompt has no tokens: give at least one")
        request = replace(request, limit=min(request.limit, self._length))
        if len(request.tokens) >= request.limit + request.prompt_only:
            raise PromptTooLongError(
                f"the prompt's {len(request.tokens)} tokens leave no room in a context of "
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
            requests: more requests; each is taken when a slot for it will soon be free.
        Raises:
            Exception: what a request's own sampler or processor has raised.
        """
        more = iter(requests)
        while True:
            missing = max(0, 2 * self.slots - len(self._waiting))
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
        """Decode one token of every active row, or several with drafts, and admit waiting rows.

        A row whose sampler or processor fails ends with that event; ``run`` raises its error.

        A step has up to three forward passes: one for the rows that decode, one for a chunk of a
        long prompt and one for short prompts.

        Raises:
            NonFiniteError: NaN or infinity in the logits.
        """
        self._cancelled.clear()
        is_shared = self._active and self._executor.model.device.type == "cpu"
        self._piece = min(self._chunk, CPU_PIECE) if is_shared else self._chunk
        passes = [*self._decode(), *self._load(), *self._admit()]
        if passes:
            self._vocabulary = passes[0].logits.shape[-1]
        with self._threads.limited(sum(len(it.rows) for it in passes)):
            events = choose(passes, self._cache)
        for event in events:
            if event.finish:
                self._leave(event.index)
        return events

    def cancel(self, index: int) -> None:
        """End a waiting or running request; its slot is free at once."""
        self._cancelled.add(index)
        self._waiting = deque(row for row in self._waiting if row.index != index)
        self._leave(index)

    def end(self, index: int) -> Event | None:
        """End a request as ``cancel``; return its last event if it decodes and has observers."""
        row = next((row for row in self._active if row.index == index), None)
        self.cancel(index)
        return row.end() if row and row.request.observers else None

    def pause(self, index: int) -> RunningRow | None:
        """Take a row that decodes out of its slot, to be resumed; None if it cannot be.

        Observers see each position once: a row that has any stays.
        """
        for row in self._active:
            if row.index == index and not row.request.observers:
                self._leave(index)
                return row
        return None

    def resume(self, row: RunningRow) -> int:
        """Queue a paused row again; return its new index. Its tokens so far are its prompt."""
        row.index = self._submitted
        self._submitted += 1
        self._waiting.append(row)
        return row.index

    def close(self) -> None:
        """Free the cache."""
        self._cache.close()

    def _decode(self) -> Iterator[Pass]:
        """Compute each active row's newest token and the draft that follows it."""
        if not self._active:
            return
        rows = list(self._active)
        drafts = collect_drafts(rows, self._cache.length, self._vocabulary)
        tokens = [(row.tokens[-1], *draft) for row, draft in zip(rows, drafts, strict=True)]
        drafted = any(drafts)
        logits, batch = self._forward(rows, 0, tokens, every_position=drafted)
        yield (Pass(rows, logits, batch, drafts) if drafted else Pass(rows, logits[:, None], batch))

    def _load(self) -> Iterator[Pass]:
        """Compute the next chunk of a long prompt; yield a pass for the last one."""
        slot = len(self._active)
        if self._loading is None:
            if (
                slot == self.slots
                or not self._waiting
                or not is_long(self._waiting[0], self._cache, self._piece)
            ):
                return
            self._loading = self._waiting.popleft()
            row = self._loading
            self._cache.place(row.tokens, slot, set(range(slot)), row.reusable)
        row, done = self._loading, len(self._cache.held[slot])
        chunk = row.tokens[done : done + self._piece]
        computed = self._compute_prompts([row], slot, [chunk])
        if done + len(chunk) < len(row.tokens):
            check(computed, self._cache)
        else:
            self._loading = None
            self._active.append(row)
            yield computed

    def _admit(self) -> Iterator[Pass]:
        """Give free slots to waiting rows with short prompts, and compute those in one pass."""
        group = self._next_group()
        if not group:
            return
        first, held = len(self._active), self._cache.held
        if self._loading:
            self._cache.swap(first, first + len(group))
        rows = list(enumerate(group, start=first))
        taken = set(range(first)) | ({first + len(group)} if self._loading else set())
        by_shared = sorted(rows, key=lambda it: shared_with_cache(it[1], self._cache), reverse=True)
        for slot, row in by_shared:
            self._waiting.remove(row)
            # before another row takes the slot that it shares
            self._cache.place(row.tokens, slot, taken, row.reusable)
            taken.add(slot)
        self._active += group
        width = max(len(row.tokens) - len(held[slot]) for slot, row in rows)
        if max(len(held[slot]) for slot, _ in rows) + width > self._cache.length:
            for slot, _ in rows:  # no room for the padding
                self._cache.truncate(slot, 0)
        yield self._compute_prompts(
            group, first, [row.tokens[len(held[slot]) :] for slot, row in rows]
        )

    def _compute_prompts(
        self, rows: list[RunningRow], first: int, tokens: Sequence[Sequence[int]]
    ) -> Pass:
        """Compute the next tokens of some prompts in adjacent slots."""
        every = any(row.scores_prompt for row in rows)
        logits, batch = self._forward(rows, first, tokens, every_position=every)
        if not every:
            return Pass(rows, logits[:, None], batch)
        for row, start, count, of_row in zip(
            rows, batch.starts, map(len, tokens), logits, strict=True
        ):
            if row.scores_prompt:
                row.add_prompt_logprobs(of_row[:count], start)
        last = [len(row_tokens) - 1 for row_tokens in tokens]
        return Pass(rows, logits[list(range(len(rows))), last][:, None], batch)

    def _next_group(self) -> list[RunningRow]:
        """Choose waiting rows for the free slots."""
        overtakes = self._loading is not None
        free = self.slots - len(self._active) - overtakes
        waiting = islice(self._waiting, 2 * self.slots if free else 0)
        return choose_group(waiting, free, self._cache, self._piece, overtakes=overtakes)

    def _leave(self, index: int) -> None:
        """Free the slot of a row that ended; the last row moves into it.

        What the slot held is swapped into a free one: the next prompt may share its prefix.
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
