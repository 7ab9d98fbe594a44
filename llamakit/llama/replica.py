"""A replica: a loaded model that answers requests of a job, several at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llamakit.llama.answer_options import AnswerOptions
from llamakit.llama.answer_requests import prompt_of
from llamakit.llama.prompt_batch import Answer, PromptBatch
from llamakit.llama.prompt_groups import PromptGroups, chunks_of
from llamakit.protocols import AnswerPiece

if TYPE_CHECKING:
    from llamakit.llama.llama import Llama


class LlamaReplica:
    """A loaded model that answers requests. Use it in a ``with`` statement, or close it.

    Args:
        llama: is closed with it.
        options: how it answers.
        groups: settings that are built already, of all requests that are to come.
    Raises:
        LlamakitError: there is no such prompt format, drafter or observer.
    """

    def __init__(
        self, llama: Llama, options: AnswerOptions, groups: PromptGroups | None = None
    ) -> None:
        self.llama, self._options = llama, options
        self._groups = groups or PromptGroups(
            options.sampling, lambda it: it.build(llama.toolkit, llama.tokenizer)
        )
        self._format = llama.prompt_format(options.prompt_format)
        self._observers = llama.observers(options.observers)
        self._drafter = None if options.draft is None else llama.drafter(options.draft)

    def __enter__(self) -> LlamaReplica:
        """Return the replica itself."""
        return self

    def __exit__(self, *unused: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close its model."""
        self.llama.close()

    def answer(self, requests: Sequence[Mapping[str, Any]]) -> Iterator[AnswerPiece]:
        """Answer requests, several at a time.

        Raises:
            LlamakitError: a request cannot be answered; none of these has been then.
        """
        prompts = {request["index"]: prompt_of(request) for request in requests}
        groups = self._groups.of(prompts)
        batch = PromptBatch(self.llama, prompts, self._format, self._observers)
        answers: dict[int, Answer] = {}

        def prompt_tokens(index: int) -> list[int]:
            tokens = batch.encode(index)
            answers[index] = batch.answer(index, len(tokens), self._drafter is not None)
            return tokens

        # A wrong one is refused before anything is computed.
        lengths = {index: len(batch.encode(index)) for index in prompts}
        common = self._common_settings(batch)
        for chunk in chunks_of(self.llama, groups, batch, prompt_tokens, common, lengths):
            answer = answers[chunk.index]
            answer.add(chunk)
            done = None
            if chunk.finish:
                batch.finish(answer, chunk)
                done = answers.pop(chunk.index).as_json()
            yield AnswerPiece(chunk.index, int(chunk.token is not None), chunk.text, done)

    def _common_settings(self, batch: PromptBatch) -> dict[str, Any]:
        """Return the keyword arguments of ``Llama.stream`` that all prompts have."""
        options, prompt_format = self._options, self._format
        return {
            "max_new_tokens": options.max_new_tokens,
            "stop": [*options.stop, *getattr(prompt_format, "stop_strings", ())],
            "stop_tokens": batch.stop_tokens,
            "echo": options.echo,
            "logprobs": options.logprobs,
            "keep_space": getattr(prompt_format, "keeps_space", False),
            "draft": self._drafter,
            "observers": self._observers,
        }


def open_replica(options: Mapping[str, Any]) -> LlamaReplica:
    """Load the model of an ``AnswerJob`` in this process, to answer some of its requests.

    Args:
        options: those of the job.
    Raises:
        LlamakitError: the files or the options are wrong.
    """
    from llamakit import demo
    from llamakit.llama.llama import Llama

    given = AnswerOptions.of(options)
    loading = given.loading.for_prompts()
    llama = Llama.open(given.model or demo.path(), **loading.as_arguments(), led=True)
    try:
        return LlamaReplica(llama, given)
    except BaseException:
        llama.close()
        raise
