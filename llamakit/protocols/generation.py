"""What generates tokens: tokenizers, logits processors, samplers and drafters.

Shapes: B rows in the batch, V tokens in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from llamakit.checkpoint.params import ModelParams

__all__ = [
    "Drafter",
    "DrafterFactory",
    "LogitsProcessor",
    "LogitsProcessorFactory",
    "OpenTokenizer",
    "Row",
    "Sampler",
    "SamplerFactory",
    "Tokenizer",
]


class Row(Protocol):
    """One sequence being written. Rows join and leave a batch; what they carry stays with them."""

    tokens: list[int]
    """The tokens so far, the prompt's first."""

    @property
    def prompt_length(self) -> int:
        """How many of ``tokens`` are the prompt's."""
        ...

    @property
    def stop_tokens(self) -> Collection[int]:
        """Tokens that end this row's answer."""
        ...

    generator: torch.Generator
    """The row's own source of randomness, on the device of the logits."""
    state: dict[Any, Any]
    """Whatever a processor or a sampler must remember from one step to the next."""


class LogitsProcessor(Protocol):
    """Edits logits."""

    def __call__(self, logits: torch.Tensor, rows: Sequence[Row], /) -> torch.Tensor:
        """Return edited logits: ``(B, V)`` float32 in, the same out. Row i of both is rows[i]."""
        ...


class Sampler(Protocol):
    """Picks a token for each row.

    One that edits the logits itself before it draws may have ``drawn_from(logits, rows)``, which
    returns them as edited, ``(B, V)``. It is called before the draw, and only where a request asks
    for probabilities.
    """

    def __call__(self, logits: torch.Tensor, rows: Sequence[Row], /) -> torch.Tensor:
        """Return ``(B,)`` int64 token IDs for ``(B, V)`` float32 logits. Row i is rows[i]."""
        ...


SamplerFactory = Callable[..., Sampler]


LogitsProcessorFactory = Callable[..., LogitsProcessor]


class Tokenizer(Protocol):
    """Text to tokens and back."""

    path: Path
    """Its file: messages name it."""
    vocab_size: int
    """How many tokens it has, the control tokens among them."""
    bos_id: int
    """The token that a prompt begins with."""
    eos_id: int
    """The token that ends an answer, where a prompt format names no others."""

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        """Return the tokens of ``text``; text never becomes a control token.

        Args:
            bos: put ``bos_id`` before them.
            eos: put ``eos_id`` behind them.
        """
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of ``tokens``; control tokens have none."""
        ...


class OpenTokenizer(Tokenizer, Protocol):
    """A tokenizer that also says what its tokens are: the built-in ones do.

    All of it is optional. A tokenizer without the methods does for everything but prompt formats
    that write special tokens, and for constrained output: ask with ``getattr(tokenizer,
    "special_ids", None)``.
    """

    stop_ids: Collection[int]
    """The tokens that end an answer; without it, ``eos_id`` alone."""
    prompt_format: str
    """The name of the prompt format that its chat models were trained with; without it,
    ``llama2``."""

    chat_template: str | None
    """A chat template of Hugging Face's that is in the tokenizer's own file; None: in none."""

    def for_model(self, params: ModelParams) -> Tokenizer:
        """Return the tokenizer as the model with these numbers uses it.

        For files that do not say it themselves, as tiktoken ranks do not name the control tokens.
        """
        ...

    def special_ids(self) -> Mapping[str, int]:
        """Return the token IDs, by name, that a prompt format may write and no text may become."""
        ...

    def token_bytes(self) -> Sequence[bytes]:
        """Return what each token adds to a string, in UTF-8; ``b""`` where it adds none."""
        ...


class Drafter(Protocol):
    """Proposes tokens for the model to check.

    It may also have ``batch(sequences) -> drafts``, asked instead for all rows at once, and
    ``tokenizer``, which is compared with the model's.
    """

    def __call__(self, tokens: Sequence[int], /) -> Sequence[int]:
        """Return the tokens that probably follow ``tokens``; none is an answer too."""
        ...


DrafterFactory = Callable[..., Drafter]
