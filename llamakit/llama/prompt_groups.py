"""Prompts with the same settings: lines of OpenAI's batch files have settings of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llamakit.errors import LlamakitError

if TYPE_CHECKING:
    from llamakit.llama.chunks import Chunk
    from llamakit.llama.llama import Llama
    from llamakit.llama.options import SamplingOptions
    from llamakit.llama.prompt_batch import PromptBatch
    from llamakit.llama.prompts import Prompt
    from llamakit.runtime.sampling_pipeline import Sampling


@dataclass(frozen=True)
class Group:
    """Some prompts, and what the command line's settings become for them.

    Args:
        indexes: of the prompts, in their order.
        settings: keyword arguments of ``Llama.stream``.
    """

    indexes: Sequence[int]
    settings: Mapping[str, Any]


class PromptGroups:
    """Puts prompts with the same settings together; each settings are built once.

    Args:
        sampling: of prompts without settings of their own.
        build: checks the choices, and makes the sampler and the processors.
    """

    def __init__(
        self, sampling: SamplingOptions, build: Callable[[SamplingOptions], Sampling]
    ) -> None:
        self._sampling, self._build = sampling, build
        self._built: dict[str, Mapping[str, Any]] = {}

    def of(self, prompts: Mapping[int, Prompt]) -> list[Group]:
        """Return the groups of prompts by their indexes.

        Raises:
            LlamakitError: as ``build``; the message names the line's id.
        """
        together: dict[str, list[int]] = {}
        for index, prompt in prompts.items():
            own = prompt.own
            together.setdefault("" if own is None else own.key(), []).append(index)
        return [
            Group(members, self._settings(key, prompts[members[0]]))
            for key, members in together.items()
        ]

    @property
    def is_constrained(self) -> bool:
        """Whether an answer is constrained by a grammar."""
        return any(settings["sampling"].is_constrained for settings in self._built.values())

    def _settings(self, key: str, prompt: Prompt) -> Mapping[str, Any]:
        if key not in self._built:
            self._built[key] = _settings(prompt, self._sampling, self._build)
        return self._built[key]


def chunks_of(
    llama: Llama,
    groups: Sequence[Group],
    batch: PromptBatch,
    prompt_tokens: Callable[[int], list[int]],
    common: Mapping[str, Any],
    lengths: Mapping[int, int],
) -> Iterator[Chunk]:
    """Answer the groups, one after the other; a chunk has the index of its prompt.

    Of more prompts than slots, those being answered, and the next few, are in memory as tokens.

    Args:
        prompt_tokens: returns the tokens of a prompt, when its turn has come.
        common: keyword arguments of ``Llama.stream``, where a group has none of its own.
        lengths: how many tokens each prompt has.
    """
    for group in groups:
        tokens = map(prompt_tokens, group.indexes)
        is_long = len(group.indexes) > llama.max_batch_size
        chunks = llama.stream(
            tokens if is_long else list(tokens),
            seeds=[batch.seed(index) for index in group.indexes],
            longest=max(lengths[it] for it in group.indexes) if is_long else None,
            **{**common, **group.settings, "stop": [*common["stop"], *group.settings["stop"]]},
        )
        for chunk in chunks:
            yield replace(chunk, index=group.indexes[chunk.index])


def _settings(
    prompt: Prompt, sampling: SamplingOptions, build: Callable[[SamplingOptions], Sampling]
) -> dict[str, Any]:
    own = prompt.own
    if own is None:
        return {"sampling": build(sampling), "stop": ()}
    changed = replace(
        sampling,
        processors=(*own.processors, *sampling.processors),
        temperature=sampling.temperature if own.temperature is None else own.temperature,
        top_p=sampling.top_p if own.top_p is None else own.top_p,
    )
    try:
        built = build(changed)
    except LlamakitError as error:
        raise type(error)(f"prompt {prompt.id!r}: {error.for_commands}") from error
    limit = {} if own.max_new_tokens is None else {"max_new_tokens": own.max_new_tokens}
    return {"sampling": built, "stop": own.stop, **limit}
