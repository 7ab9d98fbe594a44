"""What ``llamakit generate`` does: prompts in, answers out in their order, or into a file."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamakit.answer_file import AnswerFile, check_names, name_of
from llamakit.console import answers_bar, note, open_model, tokenizer_for_sampling
from llamakit.drafters import choose_drafter, drafts_summary
from llamakit.errors import PromptError
from llamakit.prompts import Prompt, read_prompts
from llamakit.sampling import choose_sampling
from llamakit.seeds import spread

if TYPE_CHECKING:
    from llamakit.api import Chunk, Llama
    from llamakit.protocols import PromptFormat
    from llamakit.toolkit import Toolkit


@dataclass
class Answer:
    """One answer while it is written."""

    prompt: Prompt
    prompt_tokens: list[int]
    seed: int
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    prompt_logprobs: list[float] = field(default_factory=list)
    finish: str | None = None
    drafted: int | None = None
    accepted: int = 0

    def add(self, chunk: Chunk) -> None:
        """Take in what one step added."""
        self.text += chunk.text
        self.finish = chunk.finish
        self.prompt_logprobs += chunk.prompt_logprobs or ()
        if chunk.token is not None:
            self.tokens.append(chunk.token)
        if chunk.logprob is not None:
            self.logprobs.append(chunk.logprob)
        if self.drafted is not None:
            self.drafted, self.accepted = chunk.drafted, chunk.accepted

    def as_dict(self, index: int, logprobs: bool) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        prompt = self.prompt
        result: dict[str, Any] = {"index": index}
        if prompt.id is not None:
            result["id"] = prompt.id
        if prompt.dialog is not None:
            result["messages"] = prompt.dialog
        else:
            result["prompt"] = prompt.text
        result |= {
            "text": self.text,
            "finish_reason": self.finish,
            "prompt_tokens": len(self.prompt_tokens),
            "new_tokens": len(self.tokens),
            "seed": self.seed,
            "tokens": self.tokens,
        }
        if logprobs:
            result["logprobs"] = self.logprobs
        if self.prompt_logprobs:
            result["prompt_logprobs"] = self.prompt_logprobs
        if self.drafted is not None:
            result |= {"drafted": self.drafted, "accepted": self.accepted}
        return result


class Asking:
    """Prompts, encoded when they are asked for, each with its seed.

    Args:
        seed: what sampled answers depend on; None takes any.
    """

    def __init__(
        self, llama: Llama, prompts: Sequence[Prompt], prompt_format: PromptFormat, seed: int | None
    ) -> None:
        self._llama = llama
        self._format = prompt_format
        self._encode_text: Any = getattr(prompt_format, "encode_text", None)
        self._prompts = prompts
        first = secrets.randbits(31) if seed is None else seed
        self._seeds = spread(first, (prompt.digest for prompt in prompts))
        stop_tokens = {llama.tokenizer.eos_id}
        if self._encode_text or any(prompt.dialog is not None for prompt in prompts):
            stop_tokens |= set(prompt_format.stop_tokens)
        self.stop_tokens = sorted(stop_tokens)

    def seed(self, index: int) -> int:
        """Return the seed of a prompt: its own, else one that follows from the call's."""
        own = self._prompts[index].seed
        return self._seeds[index] if own is None else own

    def encode(self, index: int) -> list[int]:
        """Return the ids of a prompt.

        Raises:
            PromptError: it cannot be encoded, or leaves no room for an answer.
        """
        prompt = self._prompts[index]
        try:
            tokens = self._tokens(prompt)
        except PromptError as error:
            name = index + 1 if prompt.id is None else repr(prompt.id)
            raise type(error)(f"prompt {name}: {error}") from error
        self._llama.check_prompt(tokens, index + 1, len(self._prompts))
        return tokens

    def _tokens(self, prompt: Prompt) -> list[int]:
        if prompt.dialog is not None:
            return self._format.encode(prompt.dialog)
        if self._encode_text:
            tokens: list[int] = self._encode_text(prompt.text or "")
            return tokens
        return self._llama.tokenizer.encode(prompt.text or "", bos=True)

    def answer(self, index: int, drafting: bool) -> Answer:
        """Begin the answer to a prompt."""
        drafted = 0 if drafting else None
        return Answer(self._prompts[index], self.encode(index), self.seed(index), drafted=drafted)


def complete(
    toolkit: Toolkit,
    *,
    prompt: Sequence[str],
    prompts: str | None,
    model: str | None,
    sampling: dict[str, Any],
    loading: dict[str, Any],
    prompt_format: str = "llama2",
    max_new_tokens: int | None = None,
    seed: int | None = None,
    stop: Sequence[str] = (),
    echo: bool = False,
    logprobs: bool = False,
    draft: str | None = None,
    output: str | None = None,
    as_json: bool = False,
) -> Iterator[str | dict[str, Any]]:
    """Answer prompts.

    Args:
        sampling: as ``choose_sampling``.
        loading: as ``Llama.open``.
        draft: as ``choose_drafter``.
        output: a file that the answers are appended to as they end; nothing is yielded then.
    Yields:
        Pieces of text to be written one behind the other, or with ``as_json`` one dict a prompt.
    """
    wanted = read_prompts(prompt, None if prompts is None else Path(prompts))
    tokenizer = tokenizer_for_sampling(
        toolkit,
        model,
        loading.get("tokenizer"),
        sampler=sampling.get("sampler"),
        processors=sampling.get("processors", ()),
    )
    chosen = choose_sampling(toolkit=toolkit, tokenizer=tokenizer, **sampling)
    if draft is not None:
        choose_drafter(draft, toolkit=toolkit)  # refuse what cannot be built first of all
    loading["max_batch_size"] = loading.get("max_batch_size") or min(len(wanted), 8)
    with contextlib.ExitStack() as stack:
        file = None
        if output is not None:
            file = stack.enter_context(AnswerFile(Path(output)))
            missing = _missing(file, wanted)
            if not missing:
                note(f"{output} holds all {len(wanted)} answers already")
                return
        llama = stack.enter_context(open_model(toolkit, model, **loading))
        chosen_format = llama.prompt_format(prompt_format)
        asking = Asking(llama, wanted, chosen_format, seed)
        settings: dict[str, Any] = {
            "sampling": chosen,
            "max_new_tokens": max_new_tokens,
            "stop": [*stop, *getattr(chosen_format, "stop_strings", ())],
            "stop_tokens": asking.stop_tokens,
            "echo": echo,
            "logprobs": logprobs,
            "keep_space": getattr(chosen_format, "keeps_space", False),
            "draft": None if draft is None else llama.drafter(draft),
        }
        if file is not None:
            _write_to(file, llama, asking, missing, settings)
            return
        answers = [asking.answer(index, draft is not None) for index in range(len(wanted))]
        chunks = llama.stream(
            [answer.prompt_tokens for answer in answers],
            seeds=[answer.seed for answer in answers],
            **settings,
        )
        if as_json:
            for index, answer in enumerate(_in_order(answers, chunks)):
                yield answer.as_dict(index, logprobs)
        elif len(answers) == 1:
            yield from _as_written(answers[0], chunks)
        else:
            for answer in _in_order(answers, chunks):
                yield answer.text + "\n"
        if logprobs and not as_json:
            _show_logprobs(llama, answers)
        if not as_json and any(getattr(it, "is_constraint", False) for it in chosen.processors):
            _show_cut(answers)
        if draft is not None:
            drafted = sum(answer.drafted or 0 for answer in answers)
            note(drafts_summary(drafted, sum(answer.accepted for answer in answers)))


def _missing(file: AnswerFile, prompts: list[Prompt]) -> list[int]:
    """Say which prompts have no answer in a file yet."""
    check_names(prompts, file.path)
    return [
        index
        for index, prompt in enumerate(prompts)
        if not file.holds(name_of(prompt, index), prompt)
    ]


def _write_to(
    file: AnswerFile, llama: Llama, asking: Asking, missing: list[int], settings: dict[str, Any]
) -> None:
    """Append the answers to some prompts to a file, each as it ends.

    Only the prompts being answered, and those next in turn, are held as ids.
    """
    longest = max(len(asking.encode(index)) for index in missing)
    writing: dict[int, Answer] = {}
    drafting = settings["draft"] is not None

    def asked() -> Iterator[list[int]]:
        for number, index in enumerate(missing):
            writing[number] = asking.answer(index, drafting)
            yield writing[number].prompt_tokens

    seeds = (asking.seed(index) for index in missing)
    there, drafted, accepted = len(file), 0, 0
    with answers_bar(len(missing)) as tally:
        for chunk in llama.stream(asked(), seeds=seeds, longest=longest, **settings):
            answer = writing[chunk.index]
            answer.add(chunk)
            tally.add(chunk.token is not None, chunk.finish is not None)
            if chunk.finish:
                index = missing[chunk.index]
                line = answer.as_dict(index, settings["logprobs"])
                file.append({"index": index, "id": name_of(answer.prompt, index), **line})
                drafted, accepted = drafted + chunk.drafted, accepted + chunk.accepted
                del writing[chunk.index]
    note(f"{tally.summary}" + (f"; {there} were in {file.path} already" if there else ""))
    if drafting:
        note(drafts_summary(drafted, accepted))


def _as_written(answer: Answer, chunks: Iterator[Chunk]) -> Iterator[str]:
    try:
        for chunk in chunks:
            answer.add(chunk)
            if chunk.text:
                yield chunk.text
    except Exception:
        if answer.text:  # what is said of the error begins a line of its own
            yield "\n"
        raise
    yield "\n"


def _in_order(answers: Sequence[Answer], chunks: Iterator[Chunk]) -> Iterator[Answer]:
    """Yield each answer when it and all before it have ended."""
    given = 0
    with answers_bar(len(answers)) as tally:
        for chunk in chunks:
            answers[chunk.index].add(chunk)
            tally.add(chunk.token is not None, chunk.finish is not None)
            while given < len(answers) and answers[given].finish:
                yield answers[given]
                given += 1


def _show_logprobs(llama: Llama, answers: Sequence[Answer]) -> None:
    for answer in answers:
        for token, logprob in zip(answer.tokens, answer.logprobs, strict=True):
            note(f"{logprob:9.4f}  {token:6}  {llama.tokenizer.decode([token])!r}")


def _show_cut(answers: Sequence[Answer]) -> None:
    """Say which answers ended before they had the form that they were to have."""
    for number, answer in enumerate(answers, start=1):
        if answer.finish == "length":
            which = "the answer" if len(answers) == 1 else f"answer {number}"
            note(
                f"{which} was cut after {len(answer.tokens)} tokens and is not whole: raise "
                "--max-new-tokens or --max-seq-len"
            )
