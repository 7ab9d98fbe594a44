"""Requests of an ``AnswerJob``, in JSON, and the prompts that they are."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, overload

from llamakit.llama.openai_batch import OwnSettings
from llamakit.llama.prompts import Prompt
from llamakit.llama.seeds import spread
from llamakit.plugin_manager.factories import Choice


class Requests(Sequence[Mapping[str, Any]]):
    """Some of the prompts, as requests; each is made when it is asked for.

    Args:
        prompts: all of them, each with its seed.
        indexes: of those that are to be answered.
    """

    def __init__(self, prompts: Sequence[Prompt], indexes: Sequence[int]) -> None:
        self._prompts, self._indexes = prompts, indexes

    def __len__(self) -> int:
        """How many there are."""
        return len(self._indexes)

    @overload
    def __getitem__(self, place: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, place: slice) -> Requests: ...
    def __getitem__(self, place: int | slice) -> Mapping[str, Any] | Requests:
        """Return one, or some."""
        if isinstance(place, slice):
            return Requests(self._prompts, self._indexes[place])
        index = self._indexes[place]
        return request_of(index, self._prompts[index])


def with_seeds(prompts: Sequence[Prompt], seed: int | None) -> list[Prompt]:
    """Return prompts with a seed each: their own, else one derived from the call's.

    Args:
        seed: what sampled answers depend on; None takes any.
    """
    first = secrets.randbits(31) if seed is None else seed
    seeds = spread(first, (prompt.digest for prompt in prompts))
    return [
        replace(prompt, seed=derived) if prompt.seed is None else prompt
        for prompt, derived in zip(prompts, seeds, strict=True)
    ]


def request_of(index: int, prompt: Prompt) -> dict[str, Any]:
    """Return a prompt as a request."""
    content = {"prompt": prompt.text} if prompt.dialog is None else {"messages": prompt.dialog}
    others = {"id": prompt.id, "tools": prompt.tools, "more": prompt.more or None}
    own = None if prompt.own is None else asdict(prompt.own)
    given = {key: value for key, value in {**others, "own": own}.items() if value is not None}
    return {"index": index, "seed": prompt.seed, **content, **given}


def prompt_of(request: Mapping[str, Any]) -> Prompt:
    """Return the prompt of a request, as ``request_of`` has made it."""
    return Prompt(
        text=request.get("prompt"),
        dialog=request.get("messages"),
        tools=request.get("tools"),
        id=request.get("id"),
        seed=request["seed"],
        own=None if request.get("own") is None else _own_of(request["own"]),
        more=request.get("more", {}),
    )


def _own_of(settings: Mapping[str, Any]) -> OwnSettings:
    processors = tuple(Choice(*it) for it in settings["processors"])
    return OwnSettings(**{**settings, "stop": tuple(settings["stop"]), "processors": processors})
