"""The class ``Llama3`` of ``llama_models/llama3/generation.py``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamakit.errors import UsageError
from llamakit.llama.llama import Llama as LoadedLlama
from llamakit.llama.sampler_choice import choose_sampling
from llamakit.llama_models.datatypes import (
    GenerationResult,
    QuantizationMode,
    RawContent,
    RawMessage,
    ToolPromptFormat,
    check_quantization,
)
from llamakit.llama_models.llama3.chat_format import ChatFormat, LLMInput
from llamakit.llama_models.llama3.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llamakit.runtime.requests import Event
    from llamakit.runtime.text_stream import TextStream


class Llama3:
    """A loaded model whose answers come token by token, a list of the batch's each.

    Args:
        llama: the model. Close it to free its memory.
    """

    def __init__(self, llama: LoadedLlama) -> None:
        self.llama = llama
        self.model, self.args = llama.model, llama.model.params
        self.tokenizer = Tokenizer.of(llama.tokenizer)
        self.formatter = ChatFormat(self.tokenizer)
        self._names = {it: name for name, it in self.tokenizer.special_tokens.items()}

    @staticmethod
    def build(
        ckpt_dir: str | os.PathLike[str],
        max_seq_len: int | None = None,
        max_batch_size: int = 4,
        world_size: int | None = None,
        quantization_mode: QuantizationMode | str | None = None,
        seed: int = 1,
        device: str = "auto",
        **options: Any,
    ) -> Llama3:
        """Load a checkpoint of any number of shards, with the tokenizer of its folder.

        Args:
            world_size: how many ranks; None means as many as torchrun started, else one.
            quantization_mode: None; weights may be quantized by ``quantize``.
            options: others of ``Llama.open``, such as ``tokenizer`` and ``quantize``.
        Raises:
            LlamakitError: something is wrong with the files or the settings.
        """
        check_quantization(quantization_mode)
        options |= {"max_seq_len": max_seq_len, "max_batch_size": max_batch_size}
        options |= {"model_parallel_size": world_size, "seed": seed, "device": str(device)}
        return Llama3(LoadedLlama.open(Path(ckpt_dir), **options))

    def completion(
        self,
        contents: Sequence[RawContent],
        temperature: float = 0.6,
        top_p: float = 0.9,
        max_gen_len: int | None = None,
        logprobs: bool = False,
        echo: bool = False,
    ) -> Iterator[list[GenerationResult]]:
        """Continue texts. Settings as ``generate``."""
        inputs = [self.formatter.encode_content(it) for it in contents]
        yield from self.generate(inputs, temperature, top_p, max_gen_len, logprobs, echo)

    def chat_completion(
        self,
        messages_batch: Sequence[Sequence[RawMessage]],
        temperature: float = 0.6,
        top_p: float = 0.9,
        max_gen_len: int | None = None,
        logprobs: bool = False,
        tool_prompt_format: ToolPromptFormat = ToolPromptFormat.json,
        echo: bool = False,
    ) -> Iterator[list[GenerationResult]]:
        """Answer dialogs. Settings as ``generate``.

        Args:
            tool_prompt_format: how the tool calls of the dialogs are written.
        """
        encode = self.formatter.encode_dialog_prompt
        inputs = [encode(messages, tool_prompt_format) for messages in messages_batch]
        yield from self.generate(inputs, temperature, top_p, max_gen_len, logprobs, echo)

    def generate(
        self,
        model_inputs: Sequence[LLMInput],
        temperature: float = 0.6,
        top_p: float = 0.9,
        max_gen_len: int | None = None,
        logprobs: bool = False,
        echo: bool = False,
        print_model_input: bool = False,
        logits_processor: object = None,
    ) -> Iterator[list[GenerationResult]]:
        """Continue prompts; yield a list with a result for each of them, a step each.

        A prompt that has ended has its last result again, with ``ignore_token``.

        Args:
            max_gen_len: how many new tokens; None, and 0, are as many as the context holds.
            echo: begin with the prompts' tokens, without log-probabilities.
            print_model_input: write the prompts to standard error.
            logits_processor: None; a plugin may register one.
        Raises:
            PromptTooLongError: a prompt fills the context.
        """
        if logits_processor is not None:
            raise UsageError(
                "logits_processor takes no function here: register it as a plugin, and choose it "
                "by name with llamakit.api.choose_sampling"
            )
        prompts = [it.tokens for it in model_inputs]
        if print_model_input:
            sys.stderr.write("".join(f"{''.join(map(self._text, it))}\n" for it in prompts))
        if echo:
            yield from self._echoed(prompts)
        yield from self._steps(prompts, temperature, top_p, max_gen_len or None, logprobs)

    def _echoed(self, prompts: Sequence[Sequence[int]]) -> Iterator[list[GenerationResult]]:
        for position in range(max(map(len, prompts), default=0)):
            column = [
                it[position] if position < len(it) else self.tokenizer.pad_id for it in prompts
            ]
            yield [
                GenerationResult(
                    token, self._text(token), "input", None, index, False, position >= len(prompt)
                )
                for index, (token, prompt) in enumerate(zip(column, prompts, strict=True))
            ]

    def _steps(
        self,
        prompts: Sequence[Sequence[int]],
        temperature: float,
        top_p: float,
        max_gen_len: int | None,
        logprobs: bool,
    ) -> Iterator[list[GenerationResult]]:
        """Run the prompts; stop tokens are results here, so they are looked for here."""
        from llamakit.runtime.text_stream import TextStream

        llama = self.llama
        if len(prompts) > llama.max_batch_size:
            raise UsageError(
                f"{len(prompts)} prompts at the same time, and max_batch_size is "
                f"{llama.max_batch_size}: build with a larger one, or pass fewer"
            )
        step = _Step(len(prompts), self.tokenizer.pad_id)
        texts = [TextStream(self.tokenizer) for _ in prompts]
        for event in llama.events(
            prompts,
            choose_sampling(temperature=temperature, top_p=top_p, toolkit=llama.toolkit),
            max_new_tokens=max_gen_len,
            seeds=llama.seeds.of(prompts, None),
            stop_tokens=(),
            logprobs=logprobs,
            done=step.has_ended,
        ):
            if event.token is None or step.has_ended(event.index):
                continue
            if event.index in step.fresh:
                yield step.take()
            step.add(self._result(event, texts[event.index]))
        if step.fresh:
            yield step.take()

    def _result(self, event: Event, text: TextStream) -> GenerationResult:
        assert event.token is not None
        finished = event.token in self.llama.stop_tokens
        said = self._text(event.token) if finished else text.feed(event.token)
        said += text.finish() if event.finish == "length" and not finished else ""
        scores = None if event.logprob is None else [event.logprob]
        return GenerationResult(event.token, said, "output", scores, event.index, finished, False)

    def _text(self, token: int) -> str:
        """Return a token's text, or its name where it has no text."""
        return self._names.get(token) or self.tokenizer.decode([token])


Llama = Llama3
"""Its name in older versions of the package."""


class _Step:
    """The newest result of each prompt."""

    def __init__(self, prompts: int, pad: int) -> None:
        self.fresh: set[int] = set()
        """The prompts that have a result since the last ``take``."""
        self._latest = [
            GenerationResult(pad, "", "output", None, index, False, True)
            for index in range(prompts)
        ]

    def add(self, result: GenerationResult) -> None:
        self._latest[result.batch_idx] = result
        self.fresh.add(result.batch_idx)

    def has_ended(self, index: int) -> bool:
        return self._latest[index].finished

    def take(self) -> list[GenerationResult]:
        """Return a result for each prompt, and begin the next step."""
        results = list(self._latest)
        self._latest = [replace(it, ignore_token=True) for it in results]
        self.fresh.clear()
        return results
