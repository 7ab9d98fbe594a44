"""The options of ``llamakit generate``, as one value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llamakit.cli.part_option import Part
from llamakit.llama.options import LoadOptions, SamplingOptions


@dataclass(frozen=True)
class GenerateOptions:
    """The options of ``llamakit generate``.

    Args:
        prompt: strings, ``-`` is standard input.
        prompts: a JSON Lines file of prompts.
        model: its folder; None is the bundled demo model.
        seed: None takes any.
        stop: strings that end an answer.
        draft: as ``choose_drafter``.
        observers: ``NAME`` or ``NAME:k=v,k=v`` each.
        observations: the folder of what they find.
        output: a file that the answers are appended to as they end, or a pipe or device.
        mixed: append to it even where other settings have made its answers.
        part: of the prompts; None is all of them.
    """

    prompt: Sequence[str]
    prompts: str | None
    model: str | None
    loading: LoadOptions
    sampling: SamplingOptions
    prompt_format: str | None
    max_new_tokens: int | None
    seed: int | None
    stop: Sequence[str]
    echo: bool
    logprobs: bool
    draft: str | None
    observers: Sequence[str]
    observations: str | None
    output: str | None
    mixed: bool
    part: Part | None
