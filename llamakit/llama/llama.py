"""The ``Llama`` class: the methods of Meta's reference, and streaming ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

from llamakit.errors import SpecialTagError
from llamakit.llama.dialog_encoding import encode_dialog, with_tools
from llamakit.llama.infilling import decode_continuation
from llamakit.llama.loaded_model import LoadedModel
from llamakit.llama.loading import LoadSpec, check_length, load_on_ranks, load_tokenizer
from llamakit.llama.number_checks import check_at_least_1, check_counts
from llamakit.llama.prompt_checks import check_messages, check_prompt_string, check_prompts
from llamakit.llama.sampler_choice import choose_sampling
from llamakit.plugin_manager.toolkit import Toolkit, default_toolkit
from llamakit.protocols import Dialog, GapFormat, Message

UNSAFE_ERROR = "Error: special tags are not allowed as part of the prompt."
"""The reference's answer to a dialog that contains a tag of the prompt format."""


class CompletionPrediction(TypedDict, total=False):
    """What ``text_completion`` returns of each prompt."""

    generation: str
    tokens: list[str]
    logprobs: list[float]


class InfillingPrediction(CompletionPrediction, total=False):
    """What ``text_infilling`` returns of each gap."""

    full_text: str


class ChatPrediction(TypedDict, total=False):
    """What ``chat_completion`` returns of each dialog."""

    generation: Message
    tokens: list[str]
    logprobs: list[float]


class Llama(LoadedModel):
    """A loaded model with its tokenizer. Make one with ``Llama.build`` or ``Llama.open``.

    Under torchrun every rank makes the same calls and gets the same answers.
    """

    @classmethod
    def build(
        cls,
        ckpt_dir: str,
        tokenizer_path: str | None = None,
        max_seq_len: int | None = None,
        max_batch_size: int = 4,
        model_parallel_size: int | None = None,
        seed: int = 1,
        *,
        dtype: str = "auto",
        device: str = "auto",
        quantize: str | None = None,
        compile: bool | None = None,  # noqa: A002 (as the option is called)
        join_timeout: float | None = None,
        kv_cache: str | None = None,
    ) -> Llama:
        """Load a checkpoint of any number of shards on any valid number of ranks.

        Args:
            ckpt_dir: a folder in a format that a plugin opens: Meta's, Hugging Face's, …
            tokenizer_path: None looks for ``tokenizer.model`` there and in the parent.
            max_seq_len: None takes the checkpoint's context.
            model_parallel_size: None means as many ranks as torchrun started, else one.
            dtype: ``auto`` is the checkpoint's, or float32 where the device lacks it.
            device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
            quantize: ``int8`` or ``int4`` rounds the weights while they are read.
            compile: compile the decoding step; None does so on a GPU, once it pays.
            join_timeout: seconds that the ranks have to find each other; None takes
                ``LLAMAKIT_JOIN_TIMEOUT``, and 600 without it.
            kv_cache: ``int8`` rounds keys and values to 8 bits, so that twice as many tokens fit.
        Raises:
            LlamakitError: something is wrong with the files or the settings.
        Source: ``Llama.build`` in the reference's ``llama/generation.py``.
        """
        return cls.open(
            ckpt_dir,
            tokenizer_path,
            max_seq_len=max_seq_len,
            max_batch_size=max_batch_size,
            model_parallel_size=model_parallel_size,
            seed=seed,
            dtype=dtype,
            device=device,
            quantize=quantize,
            compile=compile,
            join_timeout=join_timeout,
            kv_cache=kv_cache,
        )

    @classmethod
    def open(
        cls,
        model: str | Path,
        tokenizer: str | Path | None = None,
        *,
        max_seq_len: int | None = None,
        max_batch_size: int = 4,
        model_parallel_size: int | None = None,
        seed: int = 1,
        dtype: str = "auto",
        device: str = "auto",
        quantize: str | None = None,
        compile: bool | None = None,  # noqa: A002 (as the option is called)
        join_timeout: float | None = None,
        rope_factor: float | None = None,
        kv_cache: str | None = None,
        led: bool = False,
        progress: Callable[[int], None] | None = None,
        toolkit: Toolkit | None = None,
    ) -> Llama:
        """Load a checkpoint, with more options than ``build``.

        Args:
            rope_factor: how far RoPE is scaled; None: what the files say or, for Llama 3.1 and
                later, what the shape implies.
            led: under torchrun, the other ranks run ``llamakit.llama.worker``, not this program.
            progress: called with the number of loaded layers after each.
        """
        check_counts(
            max_seq_len=max_seq_len,
            max_batch_size=max_batch_size,
            model_parallel_size=model_parallel_size,
        )
        check_at_least_1(join_timeout=join_timeout, rope_factor=rope_factor)
        toolkit = toolkit or default_toolkit()
        checkpoint = toolkit.open_checkpoint(Path(model))
        loaded = load_tokenizer(checkpoint, tokenizer, toolkit)
        max_seq_len = max_seq_len or checkpoint.params.context
        check_length(checkpoint, max_seq_len)

        path = str(Path(model).resolve())
        spec = LoadSpec(
            path, dtype, device, quantize, compile, max_batch_size, rope_factor, kv_cache
        )
        return cls(
            load_on_ranks(spec, checkpoint, model_parallel_size, led, progress, join_timeout),
            checkpoint,
            loaded,
            max_seq_len=max_seq_len,
            max_batch_size=max_batch_size,
            seed=seed,
            toolkit=toolkit,
        )

    # What the reference has -------------------------------------------------------------------

    def generate(
        self,
        prompt_tokens: Sequence[Sequence[int]],
        max_gen_len: int | None = None,
        temperature: float = 0.6,
        top_p: float = 0.9,
        logprobs: bool = False,
        echo: bool = False,
        stop_token: int | None = None,
        *,
        seed: int | None = None,
    ) -> tuple[list[list[int]], list[list[float]] | None]:
        """Continue prompts given as tokens.

        Args:
            prompt_tokens: one list of tokens a prompt; they may differ in length.
            max_gen_len: how many new tokens; None as many as the context holds.
            temperature: 0 is greedy.
            echo: begin each answer with its prompt.
            stop_token: ends an answer, instead of the model's own.
            seed: what sampled answers depend on; None takes the next of the model's own.
        Returns:
            The new tokens of each prompt, and their log-probabilities if asked for.
        Raises:
            PromptTooLongError: a prompt fills the context.
        Source: ``Llama.generate`` in the reference's ``llama/generation.py``.
        """
        sampling = choose_sampling(
            temperature=temperature,
            top_p=top_p,
            toolkit=self.toolkit,
            tokenizer=self.tokenizer,
        )
        tokens = [list(prompt) if echo else [] for prompt in prompt_tokens]
        scores: list[list[float]] = [[] for _ in prompt_tokens]
        for event in self.events(
            prompt_tokens,
            sampling,
            max_new_tokens=max_gen_len,
            seeds=self.seeds.of(prompt_tokens, seed),
            stop_tokens=None if stop_token is None else [stop_token],
            logprobs=logprobs,
            prompt_logprobs=logprobs and echo,
        ):
            scores[event.index] += event.prompt_logprobs or ()
            if event.token is not None:
                tokens[event.index].append(event.token)
            if event.logprob is not None:
                scores[event.index].append(event.logprob)
        return tokens, scores if logprobs else None

    def text_completion(
        self,
        prompts: Sequence[str],
        temperature: float = 0.6,
        top_p: float = 0.9,
        max_gen_len: int | None = None,
        logprobs: bool = False,
        echo: bool = False,
        *,
        seed: int | None = None,
    ) -> list[CompletionPrediction]:
        """Continue strings. Arguments and errors as ``generate``.

        Source: ``Llama.text_completion`` in the reference's ``llama/generation.py``.
        """
        check_prompts(prompts)
        prompt_tokens = [self.tokenizer.encode(prompt, bos=True) for prompt in prompts]
        tokens, scores = self.generate(
            prompt_tokens, max_gen_len, temperature, top_p, logprobs, echo, seed=seed
        )
        results = []
        for index, answer in enumerate(tokens):
            result: CompletionPrediction = {"generation": self.tokenizer.decode(answer)}
            if scores is not None:
                result["tokens"] = self._pieces(answer)
                result["logprobs"] = scores[index]
            results.append(result)
        return results

    def text_infilling(
        self,
        prefixes: Sequence[str],
        suffixes: Sequence[str],
        temperature: float = 0.6,
        top_p: float = 0.9,
        max_gen_len: int | None = None,
        logprobs: bool = False,
        suffix_first: bool = False,
        *,
        seed: int | None = None,
    ) -> list[InfillingPrediction]:
        """Write what is between strings, with Code Llama. Arguments and errors as ``generate``.

        Source: ``Llama.text_infilling`` in ``llama/generation.py`` of
            https://github.com/meta-llama/codellama
        """
        gaps = list(zip(prefixes, suffixes, strict=True))
        if not gaps:
            return []
        infill = cast(GapFormat, self.prompt_format("infill", suffix_first=suffix_first))
        prompts = [infill.encode_gap(*gap) for gap in gaps]
        end = infill.stop_tokens[0]
        tokens, scores = self.generate(
            prompts, max_gen_len, temperature, top_p, logprobs, stop_token=end, seed=seed
        )
        results = []
        for index, ((prefix, suffix), answer) in enumerate(zip(gaps, tokens, strict=True)):
            text = decode_continuation(self.tokenizer, answer)
            full = f"{prefix}{text}{suffix}"
            result: InfillingPrediction = {"generation": text, "full_text": full}
            if scores is not None:
                result["tokens"] = self._pieces(answer)
                result["logprobs"] = scores[index]
            results.append(result)
        return results

    def chat_completion(
        self,
        dialogs: Sequence[Dialog],
        temperature: float = 0.6,
        top_p: float = 0.9,
        max_gen_len: int | None = None,
        logprobs: bool = False,
        *,
        seed: int | None = None,
    ) -> list[ChatPrediction]:
        """Answer dialogs. Arguments and errors as ``generate``.

        A dialog with a tag of the prompt format in a message is refused: its answer is
        ``UNSAFE_ERROR``.

        Raises:
            DialogError: the roles of a dialog do not alternate, or the last is not the user's.
        Source: ``Llama.chat_completion`` in the reference's ``llama/generation.py``.
        """
        prompts = self._encode_safe(dialogs)
        safe = [prompt for prompt in prompts if prompt is not None]
        tokens, scores = self.generate(safe, max_gen_len, temperature, top_p, logprobs, seed=seed)
        answers = iter(zip(tokens, scores or [[]] * len(tokens), strict=True))
        results = []
        for prompt in prompts:
            answer, logs = next(answers) if prompt is not None else ([], [])
            text = UNSAFE_ERROR if prompt is None else self.tokenizer.decode(answer)
            result: ChatPrediction = {"generation": {"role": "assistant", "content": text}}
            if logprobs:
                result["tokens"] = self._pieces(answer)
                result["logprobs"] = logs
            results.append(result)
        return results

    # Streaming -------------------------------------------------------------------------------

    def stream_text(self, prompt: str, **settings: Any) -> Iterator[str]:
        """Continue one string; yield complete characters as they come. Settings as ``stream``."""
        check_prompt_string(prompt)
        yield from self._texts(self.tokenizer.encode(prompt, bos=True), settings)

    def stream_chat(
        self,
        dialog: Dialog,
        *,
        prompt_format: str | None = None,
        tools: Sequence[Any] | None = None,
        **settings: Any,
    ) -> Iterator[str]:
        """Answer one dialog; yield complete characters as they come. Settings as ``stream``.

        Args:
            prompt_format: ``NAME`` or ``NAME:k=v,k=v``; None is the tokenizer's.
            tools: described to the model, in the format of OpenAI's API; its calls are in the
                text, where ``llamakit.llama.tool_call_reader.read_answer`` finds them.
        Raises:
            SpecialTagError: a message holds a tag of the prompt format.
            DialogError: the roles are not in the order that the format knows.
        """
        check_messages(dialog)
        chosen = with_tools(self.prompt_format(prompt_format), tools, self.tokenizer)
        settings.setdefault("stop_tokens", self.stop_tokens.union(chosen.stop_tokens))
        settings.setdefault("keep_space", getattr(chosen, "keeps_space", False))
        settings["stop"] = [*settings.get("stop", ()), *getattr(chosen, "stop_strings", ())]
        yield from self._texts(encode_dialog(chosen, dialog), settings)

    def _texts(self, prompt: Sequence[int], settings: Mapping[str, Any]) -> Iterator[str]:
        for chunk in self.stream([prompt], **settings):
            if chunk.text:
                yield chunk.text

    def _pieces(self, tokens: Sequence[int]) -> list[str]:
        return [self.tokenizer.decode([token]) for token in tokens]

    def _encode_safe(self, dialogs: Sequence[Dialog]) -> list[list[int] | None]:
        chosen = self.prompt_format()
        prompts: list[list[int] | None] = []
        for dialog in dialogs:
            check_messages(dialog)
            try:
                prompts.append(encode_dialog(chosen, dialog))
            except SpecialTagError:
                prompts.append(None)
        return prompts
