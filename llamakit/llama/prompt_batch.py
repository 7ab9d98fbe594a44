"""A batch of prompts: each is encoded when its turn comes, and gets an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llamakit.errors import PromptError
from llamakit.llama.dialog_encoding import ReadAnswer, answer_reader, encode_dialog, with_tools
from llamakit.llama.prompts import Prompt

if TYPE_CHECKING:
    from llamakit.llama.chunks import Chunk
    from llamakit.llama.encoding_model import EncodingModel
    from llamakit.protocols import PromptFormat
    from llamakit.runtime.requests import ChosenObserver


@dataclass
class Answer:
    """One answer while it is generated.

    Args:
        prompt_tokens: how many the prompt has.
        content: the text without its tool calls, where there are some.
        observed: what observers have found, by name.
    """

    prompt: Prompt
    prompt_tokens: int
    seed: int
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    prompt_logprobs: list[float] = field(default_factory=list)
    finish: str | None = None
    drafted: int | None = None
    accepted: int = 0
    content: str | None = None
    tool_calls: Sequence[Mapping[str, Any]] = ()
    observed: Mapping[str, Any] = field(default_factory=dict)

    def add(self, chunk: Chunk) -> None:
        """Add a chunk."""
        self.text += chunk.text
        self.finish = chunk.finish
        self.prompt_logprobs += chunk.prompt_logprobs or ()
        if chunk.token is not None:
            self.tokens.append(chunk.token)
        if chunk.logprob is not None:
            self.logprobs.append(chunk.logprob)
        if self.drafted is not None:
            self.drafted, self.accepted = chunk.drafted, chunk.accepted

    def as_json(self) -> dict[str, Any]:
        """Return all but the prompt, as JSON can hold it."""
        return {name: value for name, value in vars(self).items() if name != "prompt"}

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
            "prompt_tokens": self.prompt_tokens,
            "new_tokens": len(self.tokens),
            "seed": self.seed,
            "tokens": self.tokens,
        }
        if self.tool_calls:
            result["tool_calls"] = self.tool_calls
        if logprobs:
            result["logprobs"] = self.logprobs
        if self.prompt_logprobs:
            result["prompt_logprobs"] = self.prompt_logprobs
        if self.drafted is not None:
            result |= {"drafted": self.drafted, "accepted": self.accepted}
        if self.observed:
            result["observed"] = self.observed
        return {**result, **prompt.more}


class PromptBatch:
    """Prompts, encoded when they are asked for.

    Args:
        prompts: each with its seed, by index.
        observers: of all answers.
    """

    def __init__(
        self,
        model: EncodingModel,
        prompts: Mapping[int, Prompt],
        prompt_format: PromptFormat,
        observers: Sequence[ChosenObserver] = (),
    ) -> None:
        self.observers = observers
        self._model = model
        self._format = prompt_format
        self._encode_text: Any = getattr(prompt_format, "encode_text", None)
        self._prompts = prompts
        stop_tokens = set(model.stop_tokens)
        if self._encode_text or any(prompt.dialog is not None for prompt in prompts.values()):
            stop_tokens |= set(prompt_format.stop_tokens)
        self.stop_tokens = sorted(stop_tokens)

    def seed(self, index: int) -> int:
        """Return the seed of a prompt."""
        seed = self._prompts[index].seed
        assert seed is not None
        return seed

    def encode(self, index: int) -> list[int]:
        """Return the tokens of a prompt.

        Raises:
            PromptError: it cannot be encoded, or leaves no room for an answer.
        """
        prompt = self._prompts[index]
        try:
            tokens = self._tokens(prompt)
            self._model.check_prompt(tokens)
        except PromptError as error:
            name = index + 1 if prompt.id is None else repr(prompt.id)
            raise type(error)(f"prompt {name}: {error.for_commands}") from error
        return tokens

    def _tokens(self, prompt: Prompt) -> list[int]:
        if prompt.dialog is not None:
            return encode_dialog(self._format_of(prompt), prompt.dialog)
        if self._encode_text:
            tokens: list[int] = self._encode_text(prompt.text or "")
            return tokens
        return self._model.tokenizer.encode(prompt.text or "", bos=True)

    def _format_of(self, prompt: Prompt) -> PromptFormat:
        return with_tools(self._format, prompt.tools, self._model.tokenizer)

    def answer(self, index: int, prompt_tokens: int, drafting: bool) -> Answer:
        """Return the empty answer to a prompt of so many tokens."""
        drafted = 0 if drafting else None
        return Answer(self._prompts[index], prompt_tokens, self.seed(index), drafted=drafted)

    def finish(self, answer: Answer, chunk: Chunk) -> None:
        """Add to an answer what shows at its end: tool calls, and what observers have found."""
        if chunk.observed:
            names = (it.name for it in self.observers)
            answer.observed = dict(zip(names, chunk.observed, strict=True))
        read = self._reader(answer.prompt)
        if read is not None and (parsed := read(answer.tokens)).tool_calls:
            answer.content = parsed.content
            answer.tool_calls = [call.as_openai() for call in parsed.tool_calls]

    def _reader(self, prompt: Prompt) -> ReadAnswer | None:
        return None if prompt.dialog is None else answer_reader(self._format_of(prompt))
