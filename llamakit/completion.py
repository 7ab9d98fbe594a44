"""What ``llamakit generate`` does: prompts in, answers out in their order."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamakit.console import answers_bar, note, open_model, tokenizer_for_sampling
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

    def add(self, chunk: Chunk) -> None:
        """Take in what one step added."""
        self.text += chunk.text
        self.finish = chunk.finish
        self.prompt_logprobs += chunk.prompt_logprobs or ()
        if chunk.token is not None:
            self.tokens.append(chunk.token)
        if chunk.logprob is not None:
            self.logprobs.append(chunk.logprob)

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
        return result


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
    as_json: bool = False,
) -> Iterator[str | dict[str, Any]]:
    """Answer prompts.

    Args:
        sampling: as ``choose_sampling``.
        loading: as ``Llama.open``.
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
    loading["max_batch_size"] = loading.get("max_batch_size") or min(len(wanted), 8)
    with open_model(toolkit, model, **loading) as llama:
        chosen_format = llama.prompt_format(prompt_format)
        answers, stop_tokens = _prepare(llama, wanted, chosen_format, seed)
        chunks = llama.stream(
            [answer.prompt_tokens for answer in answers],
            sampling=chosen,
            max_new_tokens=max_new_tokens,
            seeds=[answer.seed for answer in answers],
            stop=[*stop, *getattr(chosen_format, "stop_strings", ())],
            stop_tokens=stop_tokens,
            echo=echo,
            logprobs=logprobs,
            keep_space=getattr(chosen_format, "keeps_space", False),
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


def _prepare(
    llama: Llama, prompts: Sequence[Prompt], prompt_format: PromptFormat, seed: int | None
) -> tuple[list[Answer], list[int]]:
    """Encode every prompt and give it its seed; collect the ids that end an answer."""
    encode_text: Any = getattr(prompt_format, "encode_text", None)
    stop_tokens = {llama.tokenizer.eos_id}
    encoded = []
    for number, prompt in enumerate(prompts, start=1):
        if prompt.dialog is None and encode_text is None:
            encoded.append(llama.tokenizer.encode(prompt.text or "", bos=True))
            continue
        stop_tokens |= set(prompt_format.stop_tokens)
        try:
            if prompt.dialog is None:
                encoded.append(encode_text(prompt.text or ""))
            else:
                encoded.append(prompt_format.encode(prompt.dialog))
        except PromptError as error:
            name = number if prompt.id is None else repr(prompt.id)
            raise type(error)(f"prompt {name}: {error}") from error
    first = secrets.randbits(31) if seed is None else seed
    seeds = spread(first, encoded)
    answers = [
        Answer(prompt, tokens, own if prompt.seed is None else prompt.seed)
        for prompt, tokens, own in zip(prompts, encoded, seeds, strict=True)
    ]
    return answers, sorted(stop_tokens)


def _as_written(answer: Answer, chunks: Iterator[Chunk]) -> Iterator[str]:
    for chunk in chunks:
        answer.add(chunk)
        if chunk.text:
            yield chunk.text
    yield "\n"


def _in_order(answers: Sequence[Answer], chunks: Iterator[Chunk]) -> Iterator[Answer]:
    """Yield each answer when it and all before it have ended."""
    given = 0
    with answers_bar(len(answers)) as advance:
        for chunk in chunks:
            answers[chunk.index].add(chunk)
            if chunk.finish:
                advance()
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
