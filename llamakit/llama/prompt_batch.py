"""A batch of prompts: each is encoded when its turn comes, gets a seed, and gets an answer."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llamakit.errors import PromptError
from llamakit.llama.dialog_encoding import ReadAnswer, answer_reader, encode_dialog, with_tools
from llamakit.llama.prompts import Prompt
from llamakit.llama.seeds import spread

if TYPE_CHECKING:
    from llamakit.llama.chunks import Chunk
    from llamakit.llama.llama import Llama
    from llamakit.protocols import PromptFormat
    from llamakit.runtime.requests import ChosenObserver


@dataclass
class Answer:
    """One answer while it is generated."""

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
    read: ReadAnswer | None = None
    """Finds tool calls, where the prompt describes tools."""
    observers: Sequence[ChosenObserver] = ()
    observed: dict[str, Any] = field(default_factory=dict)
    """What they have found, by name."""

    def add(self, chunk: Chunk) -> None:
        """Add a chunk."""
        self.text += chunk.text
        self.finish = chunk.finish
        self.prompt_logprobs += chunk.prompt_logprobs or ()
        if chunk.token is not None:
            self.tokens.append(chunk.token)
        if chunk.logprob is not None:
            self.logprobs.append(chunk.logprob)
        if chunk.observed:
            self.observed = named_results(self.observers, chunk)
        if self.drafted is not None:
            self.drafted, self.accepted = chunk.drafted, chunk.accepted

    def as_dict(self, index: int, logprobs: bool) -> dict[str, Any]:
        """Return the answer as ``--json`` prints it."""
        prompt = self.prompt
        result: dict[str, Any] = {"index": index}
        if prompt.id is not None:
            result["id"] = prompt.id
        if prompt.dialog is not None:
            result["messages"] = prompt.dialog
            if prompt.tools:
                result["tools"] = prompt.tools
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
        if self.read is not None and (calls := self.read(self.tokens).tool_calls):
            result["tool_calls"] = [call.as_openai() for call in calls]
        if logprobs:
            result["logprobs"] = self.logprobs
        if self.prompt_logprobs:
            result["prompt_logprobs"] = self.prompt_logprobs
        if self.drafted is not None:
            result |= {"drafted": self.drafted, "accepted": self.accepted}
        if self.observed:
            result["observed"] = self.observed
        return {**result, **prompt.more}


def named_results(observers: Sequence[ChosenObserver], chunk: Chunk) -> dict[str, Any]:
    """Return what observers have found, by name; an answer's last chunk has it."""
    return {it.name: found for it, found in zip(observers, chunk.observed, strict=True)}


class PromptBatch:
    """Prompts, encoded when they are asked for, each with its seed.

    Args:
        seed: what sampled answers depend on; None takes any.
        observers: of all answers.
    """

    def __init__(
        self,
        llama: Llama,
        prompts: Sequence[Prompt],
        prompt_format: PromptFormat,
        seed: int | None,
        observers: Sequence[ChosenObserver] = (),
    ) -> None:
        self.observers = observers
        self._llama = llama
        self._format = prompt_format
        self._encode_text: Any = getattr(prompt_format, "encode_text", None)
        self._prompts = prompts
        first = secrets.randbits(31) if seed is None else seed
        self._seeds = spread(first, (prompt.digest for prompt in prompts))
        stop_tokens = set(llama.stop_tokens)
        if self._encode_text or any(prompt.dialog is not None for prompt in prompts):
            stop_tokens |= set(prompt_format.stop_tokens)
        self.stop_tokens = sorted(stop_tokens)

    def seed(self, index: int) -> int:
        """Return the seed of a prompt: its own, else one derived from the call's."""
        own = self._prompts[index].seed
        return self._seeds[index] if own is None else own

    def encode(self, index: int) -> list[int]:
        """Return the tokens of a prompt.

        Raises:
            PromptError: it cannot be encoded, or leaves no room for an answer.
        """
        prompt = self._prompts[index]
        try:
            tokens = self._tokens(prompt)
        except PromptError as error:
            name = index + 1 if prompt.id is None else repr(prompt.id)
            raise type(error)(f"prompt {name}: {error.for_commands}") from error
        self._llama.check_prompt(tokens, index + 1, len(self._prompts))
        return tokens

    def _tokens(self, prompt: Prompt) -> list[int]:
        if prompt.dialog is not None:
            return encode_dialog(self._format_of(prompt), prompt.dialog)
        if self._encode_text:
            tokens: list[int] = self._encode_text(prompt.text or "")
            return tokens
        return self._llama.tokenizer.encode(prompt.text or "", bos=True)

    def _format_of(self, prompt: Prompt) -> PromptFormat:
        return with_tools(self._format, prompt.tools, self._llama.tokenizer)

    def answer(self, index: int, drafting: bool) -> Answer:
        """Encode a prompt and return its empty answer."""
        prompt = self._prompts[index]
        return Answer(
            prompt,
            self.encode(index),
            self.seed(index),
            drafted=0 if drafting else None,
            read=None if prompt.dialog is None else answer_reader(self._format_of(prompt)),
            observers=self.observers,
        )
