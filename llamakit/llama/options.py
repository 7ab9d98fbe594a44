"""Options that travel together: how a model is loaded, and how its tokens are chosen."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from llamakit.llama.sampler_choice import choose_sampling, needs_tokenizer

if TYPE_CHECKING:
    from llamakit.plugin_manager.factories import Choice
    from llamakit.plugin_manager.toolkit import Toolkit
    from llamakit.protocols import Tokenizer
    from llamakit.runtime.sampling_pipeline import Sampling


BATCH = 8
"""Prompts that a command answers at the same time, where no option says so."""


@dataclass(frozen=True)
class LoadOptions:
    """How to load a model: the keyword arguments of ``Llama.open`` of the same names.

    Args:
        tokenizer: a file; None looks in the checkpoint's folder and next to it.
        dtype: what to compute in.
        quantize: ``int8``, ``int4`` or None.
        compile: None leaves it to the device.
        model_parallel_size: how many processes share the model.
        max_seq_len: tokens of a prompt and its answer together.
        max_batch_size: sequences that are generated at the same time.
        join_timeout: seconds that the processes have to find each other.
        rope_factor: how far RoPE is scaled.
        kv_cache: ``int8`` or None.
    """

    tokenizer: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    quantize: str | None = None
    compile: bool | None = None
    model_parallel_size: int | None = None
    max_seq_len: int | None = None
    max_batch_size: int | None = None
    join_timeout: float | None = None
    rope_factor: float | None = None
    kv_cache: str | None = None

    def for_prompts(self, count: int = BATCH) -> LoadOptions:
        """Return them with a batch size for so many prompts, if they have none."""
        return replace(self, max_batch_size=self.max_batch_size or min(count, BATCH))

    def as_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments for ``Llama.open``; what was not given is left out."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class SamplingOptions:
    """How the next token is chosen: the keyword arguments of ``choose_sampling``.

    Args:
        sampler: its name; None is the reference's way, by ``temperature`` and ``top_p``.
        sampler_options: ``k=v`` each.
        processors: ``NAME`` or ``NAME:k=v,k=v`` each, in order.
    """

    sampler: str | None = None
    sampler_options: tuple[str, ...] = ()
    processors: tuple[str | Choice, ...] = ()
    temperature: float | None = None
    top_p: float | None = None

    def as_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments for ``choose_sampling``."""
        return {field.name: getattr(self, field.name) for field in fields(SamplingOptions)}

    def needs_tokenizer(self, toolkit: Toolkit) -> bool:
        """Tell whether the sampler or a processor takes the tokenizer. Raises as ``build``."""
        return needs_tokenizer(self.sampler, self.processors, toolkit)

    def build(self, toolkit: Toolkit, tokenizer: Tokenizer | None) -> Sampling:
        """Build the sampler and the processors.

        Args:
            tokenizer: the model's; needed where ``needs_tokenizer``.
        Raises:
            As ``choose_sampling``.
        """
        return choose_sampling(**self.as_arguments(), toolkit=toolkit, tokenizer=tokenizer)
