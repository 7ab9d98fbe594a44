"""The job of ``generate``: checked before any weight is read, for any runner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llamakit import demo
from llamakit.cli.generate_options import GenerateOptions
from llamakit.cli.open_model import check_choices, open_model
from llamakit.llama.answer_requests import Requests
from llamakit.llama.encoding_model import EncodingModel
from llamakit.llama.loading import load_tokenizer
from llamakit.llama.prompt_batch import PromptBatch
from llamakit.llama.prompt_groups import PromptGroups
from llamakit.llama.prompts import Prompt
from llamakit.llama.replica import LlamaReplica
from llamakit.protocols import AnswerJob

if TYPE_CHECKING:
    from llamakit.plugin_manager.toolkit import Toolkit


def plan_job(
    toolkit: Toolkit,
    options: GenerateOptions,
    prompts: Sequence[Prompt],
    indexes: Sequence[int],
    address: str,
) -> tuple[AnswerJob, PromptGroups]:
    """Check what is chosen, and return the job and the settings of its prompts.

    Args:
        prompts: all of them, each with its seed.
        indexes: of those that are to be answered.
        address: of the runner.
    Raises:
        LlamakitError: a sampler, a processor or a drafter is not there, or has no such option.
    """
    options = replace(options, loading=options.loading.for_prompts(len(indexes)))
    loading = options.loading
    groups = PromptGroups(
        options.sampling,
        lambda it: check_choices(toolkit, options.model, loading.tokenizer, it, options.draft),
    )
    wanted = {index: prompts[index] for index in indexes}
    groups.of(wanted)

    def open_replica() -> LlamaReplica:
        return LlamaReplica(open_model(toolkit, options.model, loading), options, groups)

    job = AnswerJob(
        options=options.as_json(),
        requests=Requests(prompts, indexes),
        address=address,
        replicas=options.replicas,
        open=open_replica,
        check=lambda: _check_prompts(toolkit, options, wanted),
    )
    return job, groups


def _check_prompts(
    toolkit: Toolkit, options: GenerateOptions, prompts: Mapping[int, Prompt]
) -> None:
    """Encode every prompt; no weight is read."""
    checkpoint = toolkit.open_checkpoint(Path(options.model or demo.path()))
    tokenizer = load_tokenizer(checkpoint, options.loading.tokenizer, toolkit)
    max_seq_len = options.loading.max_seq_len or checkpoint.params.context
    model = EncodingModel(checkpoint, tokenizer, max_seq_len=max_seq_len, toolkit=toolkit)
    batch = PromptBatch(model, prompts, model.prompt_format(options.prompt_format))
    for index in prompts:
        batch.encode(index)
