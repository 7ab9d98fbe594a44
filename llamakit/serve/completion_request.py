"""A request for completions, parsed: what the engine is asked, and how its answer is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llamakit.runtime.requests import Request
from llamakit.serve.chat_prompt import AnswerTools


@dataclass(frozen=True)
class CompletionRequest:
    """A parsed HTTP request for completions.

    Args:
        choices: the engine's request for each choice: all of the first prompt's, then of the next.
        stop: strings that end an answer.
        echo: each choice begins with its prompt.
        keep_space: a space at the start of an answer is part of it.
        top: how many alternatives each token is shown with; None shows no probabilities.
        seen: the probabilities that the sampler saw are shown too.
        tools: how calls are found in an answer; None where the request has no tools.
        continuous_usage: each event of a stream has the usage so far.
        repeated: what a response repeats of its request; None where it is no ``/v1/responses``.
    """

    choices: Sequence[Request]
    n: int = 1
    stop: Sequence[str] = ()
    echo: bool = False
    keep_space: bool = False
    top: int | None = None
    seen: bool = False
    tools: AnswerTools | None = None
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    repeated: Mapping[str, Any] | None = None

    @property
    def keeps_chunks(self) -> bool:
        """Whether a whole response is made of the answer's tokens, not of its text alone."""
        return self.top is not None or self.tools is not None or self.repeated is not None

    @property
    def is_whole(self) -> bool:
        """Whether nothing is done with an answer before it has ended."""
        return not (self.stream or self.stop or self.keeps_chunks)

    @property
    def prompt_tokens(self) -> int:
        """How many tokens the prompts have."""
        return sum(len(request.tokens) for request in self.choices[:: self.n])
