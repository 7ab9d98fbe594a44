"""A model as far as prompts are concerned: its numbers and its tokenizer, and no weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llamakit.checkpoint.generation_config import stop_tokens as stop_tokens_of
from llamakit.llama.prompt_checks import check_prompt
from llamakit.llama.tokenizer import ChatFormat, Tokenizer
from llamakit.plugin_manager.contracts.prompt_formats import build_format
from llamakit.plugin_manager.factories import parse_choice
from llamakit.plugin_manager.toolkit import Toolkit
from llamakit.protocols import Checkpoint, PromptFormat
from llamakit.protocols import Tokenizer as AnyTokenizer


class EncodingModel:
    """Encodes prompts for a model, and says which it cannot answer.

    Args:
        max_seq_len: the context, in tokens: prompt and answer together.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        tokenizer: AnyTokenizer,
        *,
        max_seq_len: int,
        toolkit: Toolkit,
    ) -> None:
        self.checkpoint, self.tokenizer = checkpoint, Tokenizer.of(tokenizer)
        self.stop_tokens = stop_tokens_of(tokenizer, checkpoint)
        """Tokens that end an answer, whatever the prompt format."""
        self.max_seq_len, self.toolkit = max_seq_len, toolkit

    @property
    def formatter(self) -> ChatFormat:
        """Llama 3's prompt format, as the reference's ``Llama.formatter``."""
        return ChatFormat(self.tokenizer)

    @property
    def default_prompt_format(self) -> str:
        """The name of the prompt format that the tokenizer belongs to."""
        name: str = getattr(self.tokenizer, "prompt_format", "llama2")
        return name

    def prompt_format(self, name: str | None = None, **options: Any) -> PromptFormat:
        """Return a registered prompt format with this model's tokenizer.

        Args:
            name: ``NAME`` or ``NAME:k=v,k=v``, as on the command line; None is the tokenizer's.
            options: the format's own, such as ``file="chat.jinja"``.
        Raises:
            UnknownNameError: no such format.
            OptionError: an option it lacks, of a wrong type or out of range.
            PluginError: a third-party format fails, or does not return tokens.
        """
        choice = parse_choice(name or self.default_prompt_format)
        entry = self.toolkit.prompt_formats.entry(choice.name)
        return build_format(entry, {**choice.options, **options}, self.tokenizer)

    def check_prompt(self, prompt: Sequence[int], number: int = 1, count: int = 1) -> None:
        """Refuse a prompt that cannot be answered; as ``prompt_checks.check_prompt``."""
        vocabulary = self.checkpoint.params.vocab_size
        check_prompt(prompt, self.max_seq_len, vocabulary, number, count)
