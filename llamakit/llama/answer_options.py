"""What a replica needs to know to answer requests, as one value that JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from llamakit.llama.options import LoadOptions, SamplingOptions
from llamakit.plugin_manager.factories import Choice


@dataclass(frozen=True)
class AnswerOptions:
    """Which model answers, and how.

    Args:
        model: its folder; None is the bundled demo model.
        prompt_format: ``NAME[:k=v,…]``; None is that of the tokenizer.
        max_new_tokens: of an answer; None is as many as the context holds.
        stop: strings that end an answer.
        echo: an answer begins with its prompt.
        logprobs: an answer has the log-probability of each token.
        draft: as ``choose_drafter``.
        observers: ``NAME`` or ``NAME:k=v,k=v`` each.
    """

    model: str | None = None
    loading: LoadOptions = field(default_factory=LoadOptions)
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    prompt_format: str | None = None
    max_new_tokens: int | None = None
    stop: Sequence[str] = ()
    echo: bool = False
    logprobs: bool = False
    draft: str | None = None
    observers: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """Return these options alone, as JSON can hold them."""
        values = asdict(self)
        return {it.name: values[it.name] for it in fields(AnswerOptions)}

    @staticmethod
    def of(options: Mapping[str, Any]) -> AnswerOptions:
        """Return the options that ``as_json`` has made; what is absent is as by default.

        Raises:
            TypeError: there is no such option.
        """
        sampling = dict(options.get("sampling", {}))
        processors = (
            it if isinstance(it, str) else Choice(*it) for it in sampling.pop("processors", ())
        )
        sampler_options = tuple(sampling.pop("sampler_options", ()))
        return AnswerOptions(
            **{
                **options,
                "loading": LoadOptions(**options.get("loading", {})),
                "sampling": SamplingOptions(
                    **sampling, sampler_options=sampler_options, processors=tuple(processors)
                ),
            }
        )
