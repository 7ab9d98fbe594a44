"""Prompts with the same settings: lines of OpenAI's batch files have settings of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llamakit.errors import LlamakitError

if TYPE_CHECKING:
    from llamakit.api import Chunk, Llama
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


def group_prompts(
    prompts: Sequence[Prompt],
    indexes: Sequence[int],
    sampling: SamplingOptions,
    build: Callable[[SamplingOptions], Sampling],
) -> list[Group]:
    """Put prompts with the same settings together.

    Args:
        indexes: of the prompts to answer.
        sampling: of those without settings of their own.
        build: checks the choices, and makes the sampler and the processors.
    Raises:
        LlamakitError: as ``build``; the message names the line's id.
    """
    together: dict[str, list[int]] = {}
    for index in indexes:
        own = prompts[index].own
        together.setdefault("" if own is None else own.key(), []).append(index)
    return [
        Group(members, _settings(prompts[members[0]], sampling, build))
        for members in together.values()
    ]


def chunks_of(
    llama: Llama,
    groups: Sequence[Group],
    batch: PromptBatch,
    prompt_tokens: Callable[[int], list[int]],
    common: Mapping[str, Any],
    lengths: Mapping[int, int] | None = None,
) -> Iterator[Chunk]:
    """Answer the groups, one after the other; a chunk has the index of its prompt.

    Args:
        prompt_tokens: returns the tokens of a prompt, when its turn has come.
        common: keyword arguments of ``Llama.stream``, where a group has none of its own.
        lengths: how many tokens each prompt has. With it only the prompts being answered, and the
            next few, are in memory as tokens.
    """
    for group in groups:
        tokens = map(prompt_tokens, group.indexes)
        chunks = llama.stream(
            list(tokens) if lengths is None else tokens,
            seeds=[batch.seed(index) for index in group.indexes],
            longest=None if lengths is None else max(lengths[it] for it in group.indexes),
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
