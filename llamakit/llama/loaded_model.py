"""A loaded model that answers prompts as a stream; the base of ``Llama``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from llamakit.errors import UsageError
from llamakit.llama.chunks import Chunk, ChunkMaker
from llamakit.llama.drafter_choice import choose_drafter
from llamakit.llama.encoding_model import EncodingModel
from llamakit.llama.model import ModelArgs, Transformer
from llamakit.llama.number_checks import check_counts
from llamakit.llama.observer_choice import choose_observers
from llamakit.llama.sampler_choice import choose_sampling
from llamakit.llama.seeds import Seeds
from llamakit.plugin_manager.toolkit import Toolkit
from llamakit.protocols import Checkpoint, Drafter
from llamakit.protocols import Tokenizer as AnyTokenizer

if TYPE_CHECKING:
    from llamakit.llama.observer_choice import AnyObserver
    from llamakit.runtime.engine import Engine
    from llamakit.runtime.executor import Executor
    from llamakit.runtime.request_stream import Delivery
    from llamakit.runtime.requests import ChosenObserver, Event, Request
    from llamakit.runtime.sampling_pipeline import Sampling
    from llamakit.runtime.scheduler import Scheduler

M = TypeVar("M", bound="LoadedModel")


class LoadedModel(EncodingModel):
    """A model on its ranks, with its tokenizer.

    It keeps the KV cache of the last call: of a prompt with the same prefix, such as the next turn
    of a dialog, only the rest is computed.

    Args:
        executor: its group is acquired already; closing the model releases it.
        max_seq_len: the context, in tokens: prompt and answer together.
        max_batch_size: how many prompts are answered at the same time; more wait for a free slot.
        seed: what sampled answers depend on when a call names no seed.
    """

    def __init__(
        self,
        executor: Executor,
        checkpoint: Checkpoint,
        tokenizer: AnyTokenizer,
        *,
        max_seq_len: int,
        max_batch_size: int,
        seed: int,
        toolkit: Toolkit,
    ) -> None:
        super().__init__(checkpoint, tokenizer, max_seq_len=max_seq_len, toolkit=toolkit)
        self.max_batch_size = max_batch_size
        from llamakit.runtime.prefix_cache import PrefixCache

        args = ModelArgs.of(checkpoint.params, max_batch_size, max_seq_len)
        self.model = Transformer(args, executor)
        """Logits for tokens, as the reference's ``Llama.model``."""
        self._executor = executor
        self._prefix_cache = PrefixCache(executor)
        self.seeds = Seeds(seed)
        self._is_open = True

    def close(self) -> None:
        """Free the model and end the ranks started for it. Does nothing the second time."""
        if self._is_open:
            self._is_open = False
            self._prefix_cache.close()
            self._executor.group.release()

    def __enter__(self: M) -> M:
        """Return the model itself."""
        return self

    def __exit__(self, *unused: object) -> None:
        """Close it."""
        self.close()

    @property
    def dtype(self) -> str:
        """What the model computes in."""
        return str(self._executor.model.dtype).removeprefix("torch.")

    @property
    def device(self) -> str:
        """Where it computes."""
        return str(self._executor.model.device)

    @property
    def model_parallel_size(self) -> int:
        """How many ranks hold it."""
        return self._executor.group.size

    def drafter(self, name: str, **options: Any) -> Drafter:
        """Return a drafter for speculative decoding. Arguments as ``choose_drafter``.

        A draft model that is given by its folder runs on the device of this one.
        """
        if Path(name).is_dir():
            options = {"device": self.device.partition(":")[0], **options}
        return choose_drafter(name, options, self.tokenizer, toolkit=self.toolkit)

    def observers(self, choices: Iterable[AnyObserver]) -> tuple[ChosenObserver, ...]:
        """Return observers of this model's hidden states. Raises as ``choose_observers``."""
        layers = self.checkpoint.params.n_layers
        return choose_observers(choices, layers, toolkit=self.toolkit, tokenizer=self.tokenizer)

    def engine(
        self,
        prefix_cache: int = 0,
        deliver: Callable[[Sequence[Delivery]], None] | None = None,
    ) -> Engine:
        """Open an engine that several threads may use at the same time.

        It has a cache of its own, ``max_batch_size`` slots of ``max_seq_len`` tokens; close it
        before the model.

        Args:
            prefix_cache: how many bytes the prefixes may take that have lost their slot.
            deliver: as for ``Engine``.
        """
        from llamakit.runtime.cache_slots import CacheSlots
        from llamakit.runtime.engine import Engine
        from llamakit.runtime.scheduler import Scheduler

        slots, length = self.max_batch_size, self.max_seq_len

        def open_scheduler() -> Scheduler:
            cache = CacheSlots(self._executor, slots, length, stored_nbytes=prefix_cache)
            return Scheduler(self._executor, slots, length, cache=cache, is_shared=True)

        return Engine(open_scheduler, deliver)

    def forget(self) -> None:
        """Free the KV cache that is kept for prompts with the same prefix."""
        from llamakit.runtime.broadcast import broadcast_results

        def work() -> Generator[None]:
            self._prefix_cache.forget()
            yield None

        list(broadcast_results(self._executor.group, work))

    def stream(
        self,
        prompts: Iterable[Sequence[int]],
        *,
        sampling: Sampling | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        max_new_tokens: int | None = None,
        seed: int | None = None,
        seeds: Iterable[int] | None = None,
        stop: Sequence[str] = (),
        stop_tokens: Collection[int] | None = None,
        logprobs: bool = False,
        echo: bool = False,
        keep_space: bool = False,
        draft: str | Drafter | None = None,
        observers: Sequence[AnyObserver] = (),
        longest: int | None = None,
    ) -> Generator[Chunk]:
        """Answer prompts given as tokens, yielding a chunk for each new token.

        Args:
            prompts: the tokens of each.
            sampling: from ``choose_sampling``; without it ``temperature`` and ``top_p`` choose the
                reference's samplers.
            max_new_tokens: for each prompt; None as many as the context holds.
            seeds: one for each prompt, instead of ``seed``.
            stop: strings that end an answer and are not part of it.
            stop_tokens: tokens that end an answer; None is the model's own.
            echo: the first chunk of an answer begins with its prompt's text, and holds the
                prompt's log-probabilities if those are asked for.
            keep_space: a space at the start of an answer is part of it, as when a prompt ends
                within a line. That of an answer that is held to a grammar never is.
            draft: the drafter for speculative decoding: ``NAME[:k=v,…]``, a draft model's folder or
                a ``Drafter``. The answers are the same with and without.
            observers: read the hidden states: ``NAME[:k=v,…]`` or an ``Observer`` each. What they
                have found is ``observed`` of an answer's last chunk, in this order.
            longest: the length of the longest prompt. With it, and with ``seeds``, prompts may come
                from an iterator, which is advanced when a slot will soon be free.
        Raises:
            PromptTooLongError: a prompt fills the context.
            UsageError: both a drafter and observers.
        """
        chosen = self.observers(observers)
        if chosen and draft is not None:
            raise UsageError("a drafter and observers: choose one of the two")
        if longest is None:
            prompts = list(prompts)
            seeds = seeds or self.seeds.of(prompts, seed)
        sampling = sampling or choose_sampling(
            temperature=temperature,
            top_p=top_p,
            toolkit=self.toolkit,
            tokenizer=self.tokenizer,
        )
        chunks = ChunkMaker(
            self.tokenizer,
            stop,
            echo=echo,
            keep_space=keep_space and not sampling.is_constrained,
            has_observers=bool(chosen),
        )
        events = self.events(
            chunks.record(prompts),
            sampling,
            max_new_tokens=max_new_tokens,
            seeds=seeds or (),
            stop_tokens=stop_tokens,
            logprobs=logprobs,
            prompt_logprobs=logprobs and echo,
            draft=draft,
            observers=chosen,
            longest=longest,
            done=chunks.has_ended,
        )
        yield from filter(None, map(chunks.chunk, events))

    def events(
        self,
        prompts: Iterable[Sequence[int]],
        sampling: Sampling,
        *,
        seeds: Iterable[int],
        max_new_tokens: int | None = None,
        stop_tokens: Collection[int] | None = None,
        logprobs: bool = False,
        prompt_logprobs: bool = False,
        draft: str | Drafter | None = None,
        observers: tuple[ChosenObserver, ...] = (),
        longest: int | None = None,
        done: Callable[[int], bool] = lambda index: False,  # noqa: ARG005
    ) -> Generator[Event]:
        """Run prompts and yield events. ``done`` may end a prompt; it is called after each token.

        With observers, a prompt that ``done`` has ended has one more event, with their results.

        Raises:
            PromptTooLongError: a prompt fills the context.
            PromptError: a prompt has a token outside of the model's vocabulary.
            UsageError: fewer than one new token is asked for.
        """
        from llamakit.runtime.requests import Request

        check_counts(**{"max_gen_len, or max_new_tokens,": max_new_tokens})
        slots = self.max_batch_size
        if longest is None:
            prompts = list(prompts)
            for number, prompt in enumerate(prompts, start=1):
                self.check_prompt(prompt, number, len(prompts))
            slots, longest = min(slots, len(prompts)), max(map(len, prompts), default=0)
        stops = self.stop_tokens if stop_tokens is None else frozenset(stop_tokens)
        room = self.max_seq_len if max_new_tokens is None else max_new_tokens
        length = min(self.max_seq_len, longest + room)
        drafter = self.drafter(draft) if isinstance(draft, str) else draft
        requests = (
            Request(
                tokens=prompt,
                limit=min(self.max_seq_len, len(prompt) + room),
                sampling=sampling,
                seed=seed,
                stop_tokens=stops,
                logprobs=logprobs,
                prompt_logprobs=prompt_logprobs,
                drafter=drafter,
                observers=observers,
            )
            for prompt, seed in zip(prompts, seeds, strict=True)
        )
        known = prompts if isinstance(prompts, list) else ()
        if slots:
            yield from self._broadcast(requests, slots, length, known, done)

    def run(self, requests: Sequence[Request]) -> Generator[Event]:
        """Run requests and yield their events; each may have other settings.

        A request for the prompt alone may be one token longer than the context.
        """
        slots = min(self.max_batch_size, len(requests))
        if slots:
            length = max(request.limit for request in requests)
            known = [request.tokens for request in requests]
            yield from self._broadcast(requests, slots, length, known)

    def _broadcast(
        self,
        requests: Iterable[Request],
        slots: int,
        length: int,
        known: Sequence[Sequence[int]],
        done: Callable[[int], bool] = lambda index: False,  # noqa: ARG005
    ) -> Generator[Event]:
        """Run requests over the kept cache, and yield the events on every rank of a script."""
        from llamakit.runtime.broadcast import broadcast_results

        yield from broadcast_results(
            self._executor.group,
            lambda: self._run(requests, self._prefix_cache.scheduler(slots, length, known), done),
        )

    @staticmethod
    def _run(
        requests: Iterable[Request],
        opened: AbstractContextManager[Scheduler],
        done: Callable[[int], bool],
    ) -> Generator[Event]:
        with opened as scheduler:
            for event in scheduler.run(requests):
                yield event
                if event.finish is None and done(event.index):
                    last = scheduler.end(event.index)
                    if last is not None and last.error is not None:
                        raise last.error
                    if last is not None:
                        yield last
