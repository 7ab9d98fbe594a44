"""Prompts in, answers out as they come: what scripts, commands and the chat are made of."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from llamakit.errors import PromptError, PromptTooLongError
from llamakit.factories import build, parse_choice
from llamakit.protocols import Checkpoint, PromptFormat, Tokenizer
from llamakit.sampling import choose_sampling
from llamakit.seeds import Seeds
from llamakit.toolkit import Toolkit

if TYPE_CHECKING:
    from llamakit.runtime.executor import Executor
    from llamakit.runtime.generator import Event, FinishReason, Request
    from llamakit.runtime.parallel import Group
    from llamakit.runtime.sampling import Sampling

T = TypeVar("T")
M = TypeVar("M", bound="LoadedModel")


@dataclass(frozen=True)
class Chunk:
    """What one step adds to one answer.

    Args:
        index: which prompt.
        text: whole characters; may be empty while a character or a stop string is incomplete.
        token: the new id, or None when the answer only ends.
        logprob: of ``token``, before any processor, if asked for.
        finish: why the answer ended, or None while it goes on.
        prompt_logprobs: with a prompt's first chunk, if asked for.
    """

    index: int
    text: str
    token: int | None
    logprob: float | None = None
    finish: FinishReason | None = None
    prompt_logprobs: tuple[float, ...] | None = None


class LoadedModel:
    """A model on its ranks, with its tokenizer.

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
        self._executor = executor
        self._seeds = Seeds(seed)
        self._is_open = True

    def close(self) -> None:
        """Let the ranks go that this model was loaded on. Does nothing the second time."""
        if self._is_open:
            self._is_open = False
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
        """
        choice = parse_choice(name)
        entry = self.toolkit.prompt_formats.entry(choice.name)
        made: PromptFormat = build(entry, {**choice.options, **options}, self.tokenizer)
        return made

    def stream(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        sampling: Sampling | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        max_new_tokens: int | None = None,
        seed: int | None = None,
        seeds: Sequence[int] | None = None,
        stop: Sequence[str] = (),
        stop_tokens: Sequence[int] | None = None,
        logprobs: bool = False,
        echo: bool = False,
        keep_space: bool = False,
    ) -> Generator[Chunk]:
        """Answer prompts given as ids, yielding a chunk for each new id of each.

        Args:
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
        Raises:
            PromptTooLongError: a prompt fills the context.
        """
        from llamakit.runtime.text_stream import TextStream

        sampling = sampling or choose_sampling(
            temperature=temperature,
            top_p=top_p,
            toolkit=self.toolkit,
            tokenizer=self.tokenizer,
        )
        texts = [TextStream(self.tokenizer, stop) for _ in prompts]
        heads = [
            text.begin(prompt) if echo or keep_space else ""
            for text, prompt in zip(texts, prompts, strict=True)
        ]
        if not echo:
            heads = [""] * len(texts)
        events = self.events(
            prompts,
            sampling,
            max_new_tokens=max_new_tokens,
            seeds=seeds or self._seeds.of(prompts, seed),
            stop_tokens=stop_tokens,
            logprobs=logprobs,
            prompt_logprobs=logprobs and echo,
            done=lambda index: texts[index].stopped,
        )
        for event in events:
            text = texts[event.index]
            new, heads[event.index] = heads[event.index], ""
            if event.token is not None:
                new += text.feed(event.token)
            finish = event.finish
            if text.stopped:
                finish = "stop"
            elif finish:
                new += text.finish()
            yield Chunk(event.index, new, event.token, event.logprob, finish, event.prompt_logprobs)

    def events(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        seeds: Sequence[int],
        max_new_tokens: int | None = None,
        stop_tokens: Sequence[int] | None = None,
        logprobs: bool = False,
        prompt_logprobs: bool = False,
        done: Callable[[int], bool] = lambda index: False,  # noqa: ARG005
    ) -> Generator[Event]:
        """Run prompts and yield ids. ``done`` may end one: it is asked after each of its ids.

        Raises:
            PromptTooLongError: a prompt fills the context.
            PromptError: a prompt has an id that the model has not.
        """
        from llamakit.runtime.generator import Generator as Runner
        from llamakit.runtime.generator import Request

        stops = frozenset([self.tokenizer.eos_id] if stop_tokens is None else stop_tokens)
        room = self.max_seq_len if max_new_tokens is None else max_new_tokens
        requests: list[Request] = []
        for number, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True), start=1):
            if len(prompt) >= self.max_seq_len:
                raise _too_long(number, len(prompts), len(prompt), self.max_seq_len)
            if max(prompt, default=0) >= self.checkpoint.params.vocab_size:
                raise PromptError(
                    f"{_which(number, len(prompts))} has the id {max(prompt)}, and the model has "
                    f"{self.checkpoint.params.vocab_size}: its tokenizer files are another model's"
                )
            requests.append(
                Request(
                    tokens=prompt,
                    limit=min(self.max_seq_len, len(prompt) + room),
                    sampling=sampling,
                    seed=seed,
                    stop_tokens=stops,
                    logprobs=logprobs,
                    prompt_logprobs=prompt_logprobs,
                )
            )

        def run() -> Generator[Event]:
            slots = min(self.max_batch_size, len(requests))
            generator = Runner(self._executor, slots, max(request.limit for request in requests))
            try:
                for request in requests:
                    generator.submit(request)
                for event in generator.run():
                    yield event
                    if event.finish is None and done(event.index):
                        generator.cancel(event.index)
            finally:
                generator.close()

        if requests:
            yield from self._on_every_rank(run)

    def _on_every_rank(self, work: Callable[[], Generator[T]]) -> Generator[T]:
        """Do the work on rank 0; where all ranks run the same script, all get its items."""
        group = self._executor.group
        if group.size == 1 or getattr(group, "led", False):
            yield from work()
        elif group.rank == 0:
            try:
                for item in work():
                    group.send("item", item)
                    yield item
            except Exception as error:
                group.send("error", error)
                raise
            except GeneratorExit:
                group.send("end")
                raise
            group.send("end")
        else:
            yield from _follow(group)


def _follow(group: Group) -> Generator[Any]:
    """Give out the items of rank 0; when the caller stops early, so has rank 0."""
    ended = False
    try:
        while not ended:
            kind, payload = group.follow()
            ended = kind != "item"
            if kind == "error":
                raise payload
            if not ended:
                yield payload
    finally:
        while not ended:
            ended = group.follow()[0] != "item"


def _too_long(number: int, count: int, length: int, context: int) -> PromptTooLongError:
    return PromptTooLongError(
        f"{_which(number, count)} has {length} ids and the context holds {context}, answer "
        "included: shorten it or raise --max-seq-len"
    )


def _which(number: int, count: int) -> str:
    return f"prompt {number} of {count}" if count > 1 else "the prompt"
