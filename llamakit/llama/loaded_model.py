"""Prompts in, answers out as they come: what scripts, commands and the chat are made of."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from llamakit.errors import UsageError
from llamakit.llama.chunks import Chunk, check_prompt, to_chunk
from llamakit.llama.drafters import choose_drafter
from llamakit.llama.sampler_choice import choose_sampling
from llamakit.llama.seeds import Seeds
from llamakit.plugin_manager.contracts import build_format
from llamakit.plugin_manager.factories import parse_choice
from llamakit.plugin_manager.toolkit import Toolkit
from llamakit.protocols import Checkpoint, Drafter, PromptFormat, Tokenizer

if TYPE_CHECKING:
    from llamakit.runtime.engine import Engine
    from llamakit.runtime.executor import Executor
    from llamakit.runtime.requests import Event
    from llamakit.runtime.sampling import Sampling
    from llamakit.runtime.text_stream import TextStream

M = TypeVar("M", bound="LoadedModel")


class LoadedModel:
    """A model on its ranks, with its tokenizer.

    It keeps the keys and values of the last call: a prompt that begins alike, such as the next
    turn of a dialog, has only the rest computed.

    Args:
        executor: whose group is acquired; closing the model releases it.
        max_seq_len: the context, in ids: prompt and answer together.
        max_batch_size: how many prompts are answered at once; more wait for a free place.
        seed: what sampled answers depend on when a call names no seed.
    """

    def __init__(
        self,
        executor: Executor,
        checkpoint: Checkpoint,
        tokenizer: Tokenizer,
        *,
        max_seq_len: int,
        max_batch_size: int,
        seed: int,
        toolkit: Toolkit,
    ) -> None:
        self.checkpoint, self.tokenizer = checkpoint, tokenizer
        self.max_seq_len, self.max_batch_size = max_seq_len, max_batch_size
        self.toolkit = toolkit
        from llamakit.runtime.prefix_cache import PrefixCache

        self._executor = executor
        self._prefix_cache = PrefixCache(executor)
        self._seeds = Seeds(seed)
        self._is_open = True

    def close(self) -> None:
        """Let the ranks go that this model was loaded on. Does nothing the second time."""
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

    def prompt_format(self, name: str = "llama2", **options: Any) -> PromptFormat:
        """Return a registered prompt format with this model's tokenizer.

        Args:
            name: ``NAME`` or ``NAME:k=v,k=v``, as on the command line.
            options: the format's own, such as ``file="chat.jinja"``.
        Raises:
            UnknownNameError: no such format.
            OptionError: an option it lacks, of a wrong type or out of range.
            PluginError: a stranger's format fails, or hands out what are no ids.
        """
        choice = parse_choice(name)
        entry = self.toolkit.prompt_formats.entry(choice.name)
        return build_format(entry, {**choice.options, **options}, self.tokenizer)

    def drafter(self, name: str, **options: Any) -> Drafter:
        """Return what proposes ids for speculative decoding. Arguments as ``choose_drafter``.

        A draft model that is named by its folder runs where this one does.
        """
        if Path(name).is_dir():
            options = {"device": self.device.partition(":")[0], **options}
        return choose_drafter(name, options, self.tokenizer, toolkit=self.toolkit)

    def engine(self) -> Engine:
        """Open an engine that several threads may ask at the same time.

        It holds a cache of its own, ``max_batch_size`` slots of ``max_seq_len`` ids; close it
        before the model.
        """
        from llamakit.runtime.engine import Engine
        from llamakit.runtime.scheduler import Scheduler

        return Engine(lambda: Scheduler(self._executor, self.max_batch_size, self.max_seq_len))

    def forget(self) -> None:
        """Free the keys and values that are kept for prompts that begin alike."""
        from llamakit.runtime.every_rank import on_every_rank

        def work() -> Generator[None]:
            self._prefix_cache.forget()
            yield None

        list(on_every_rank(self._executor.group, work))

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
        stop_tokens: Sequence[int] | None = None,
        logprobs: bool = False,
        echo: bool = False,
        keep_space: bool = False,
        draft: str | Drafter | None = None,
        longest: int | None = None,
    ) -> Generator[Chunk]:
        """Answer prompts given as ids, yielding a chunk for each new id of each.

        Args:
            prompts: ids of each.
            sampling: of ``choose_sampling``; else ``temperature`` and ``top_p`` mean the
                reference's way.
            max_new_tokens: for each prompt; None as many as the context holds.
            seeds: one for each prompt, instead of ``seed``.
            stop: strings that end an answer and are not part of it.
            stop_tokens: ids that do the same; None means the tokenizer's end of sequence.
            echo: the first chunk of an answer begins with its prompt's text, and holds the
                prompt's log-probabilities if those are asked for.
            keep_space: a space that an answer begins with is part of it, as where a prompt
                breaks off within a line.
            draft: what proposes ids for the model to check: ``NAME[:k=v,…]``, a draft model's
                folder or a ``Drafter``. The answers are the same with and without.
            longest: how many ids the longest prompt has. With it, and with ``seeds``, prompts may
                come from an iterator, which is asked for one when a place will soon be free.
        Raises:
            PromptTooLongError: a prompt fills the context.
        """
        from llamakit.runtime.text_stream import TextStream

        if longest is None:
            prompts = list(prompts)
            seeds = seeds or self._seeds.of(prompts, seed)
        sampling = sampling or choose_sampling(
            temperature=temperature,
            top_p=top_p,
            toolkit=self.toolkit,
            tokenizer=self.tokenizer,
        )
        asked = dict(enumerate(prompts)) if longest is None else {}
        writing: dict[int, TextStream] = {}
        events = self.events(
            prompts if longest is None else _noted(prompts, asked),
            sampling,
            max_new_tokens=max_new_tokens,
            seeds=seeds or (),
            stop_tokens=stop_tokens,
            logprobs=logprobs,
            prompt_logprobs=logprobs and echo,
            draft=draft,
            longest=longest,
            done=lambda index: index not in writing,
        )
        for event in events:
            head = ""
            if (prompt := asked.pop(event.index, None)) is not None:
                writing[event.index] = TextStream(self.tokenizer, stop)
                text = writing[event.index].begin(prompt) if echo or keep_space else ""
                head = text if echo else ""
            chunk = to_chunk(event, writing[event.index], head)
            if chunk.finish:
                del writing[event.index]
            yield chunk

    def events(
        self,
        prompts: Iterable[Sequence[int]],
        sampling: Sampling,
        *,
        seeds: Iterable[int],
        max_new_tokens: int | None = None,
        stop_tokens: Sequence[int] | None = None,
        logprobs: bool = False,
        prompt_logprobs: bool = False,
        draft: str | Drafter | None = None,
        longest: int | None = None,
        done: Callable[[int], bool] = lambda index: False,  # noqa: ARG005
    ) -> Generator[Event]:
        """Run prompts and yield ids. ``done`` may end one: it is asked after each of its ids.

        Raises:
            PromptTooLongError: a prompt fills the context.
            PromptError: a prompt has an id that the model has not.
            UsageError: no new id is wanted.
        """
        from llamakit.runtime.every_rank import on_every_rank
        from llamakit.runtime.requests import Request

        if max_new_tokens is not None and max_new_tokens < 1:
            raise UsageError(
                f"max_gen_len, or max_new_tokens, is {max_new_tokens}; it has to be 1 or more"
            )
        slots = self.max_batch_size
        if longest is None:
            prompts = list(prompts)
            for number, prompt in enumerate(prompts, start=1):
                self.check_prompt(prompt, number, len(prompts))
            slots, longest = min(slots, len(prompts)), max(map(len, prompts), default=0)
        stops = frozenset([self.tokenizer.eos_id] if stop_tokens is None else stop_tokens)
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
            )
            for prompt, seed in zip(prompts, seeds, strict=True)
        )

        def run() -> Generator[Event]:
            known = prompts if isinstance(prompts, list) else ()
            with self._prefix_cache.scheduler(slots, length, known) as scheduler:
                for event in scheduler.run(requests):
                    yield event
                    if event.finish is None and done(event.index):
                        scheduler.cancel(event.index)

        if slots:
            yield from on_every_rank(self._executor.group, run)

    def check_prompt(self, prompt: Sequence[int], number: int = 1, count: int = 1) -> None:
        """Refuse a prompt that cannot be answered. Arguments and exceptions as of ``chunks``."""
        vocabulary = self.checkpoint.params.vocab_size
        check_prompt(prompt, self.max_seq_len, vocabulary, number, count)


def _noted(
    prompts: Iterable[Sequence[int]], asked: MutableMapping[int, Sequence[int]]
) -> Iterator[Sequence[int]]:
    """Hand prompts on, noting each that is asked for."""
    for index, prompt in enumerate(prompts):
        asked[index] = prompt
        yield prompt
