"""The logit lens: what the output layer makes of the hidden states after each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from llamakit.hookspecs import Registrar
    from llamakit.protocols import ObserverFactory, Tokenizer
    from llamakit_logit_lens.lens import LogitLens


def logit_lens(tokenizer: Tokenizer, top: int = 3, every: int = 1, last: int = 100) -> LogitLens:
    """Show which token each layer would say next, and draw it.

    Args:
        top: how many of the likeliest tokens are kept in each cell; 1 to 100.
        every: show every so many layers, and the last one in any case.
        last: show so many tokens at most: the last ones of the prompt and its answer.
    Source: nostalgebraist 2020,
        https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens
    """
    if not 1 <= top <= 100:
        raise ValueError(f"top is {top}; it has to be from 1 to 100")
    if every < 1 or last < 1:
        raise ValueError(f"every is {every} and last is {last}; both have to be 1 or more")
    from llamakit_logit_lens.lens import LogitLens

    return LogitLens(tokenizer, top, every, last)


@hookimpl
def register_observers(observers: Registrar[ObserverFactory]) -> None:
    """Offer ``logit-lens``."""
    observers.register(
        "logit-lens", logit_lens, help="what each layer would say next, as a picture"
    )
