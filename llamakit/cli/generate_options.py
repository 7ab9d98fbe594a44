"""The options of ``llamakit generate``, as one value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llamakit.cli.part_option import Part
from llamakit.llama.answer_options import AnswerOptions


@dataclass(frozen=True, kw_only=True)
class GenerateOptions(AnswerOptions):
    """The options of ``llamakit generate``: those of every answer, and what is done with them.

    Args:
        prompt: strings, ``-`` is standard input.
        prompts: a JSON Lines file of prompts, or what the runner reads.
        seed: None takes any.
        observations: the folder of what observers find.
        output: a file that the answers are appended to as they end, a folder, whose answers.jsonl
            that is, or a pipe or device.
        mixed: append to it even where other settings have made its answers.
        on: ``NAME`` or ``NAME:ADDRESS`` of a runner.
        replicas: how many loaded models the runner is to have; None leaves it to the runner.
        part: of the prompts; None is all of them.
    """

    prompt: Sequence[str]
    prompts: str | None
    seed: int | None
    observations: str | None
    output: str | None
    mixed: bool
    on: str
    replicas: int | None
    part: Part | None
