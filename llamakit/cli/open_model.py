"""Opens the model that a command names, after a check of what is chosen with it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llamakit import demo
from llamakit.api import Llama
from llamakit.cli.terminal import loading_bar, note
from llamakit.cores import available_cores
from llamakit.errors import NotACheckpointError, TokenizerError
from llamakit.llama.drafter_choice import choose_drafter
from llamakit.llama.loading import find_tokenizer, fit_tokenizer
from llamakit.llama.observer_choice import choose_observers, needs_tokenizer
from llamakit.runtime.rank_environment import read_environment

if TYPE_CHECKING:
    from llamakit.llama.options import LoadOptions, SamplingOptions
    from llamakit.plugin_manager.toolkit import Toolkit
    from llamakit.protocols import Tokenizer
    from llamakit.runtime.requests import ChosenObserver
    from llamakit.runtime.sampling_pipeline import Sampling


def open_model(toolkit: Toolkit, model: str | Path | None, loading: LoadOptions) -> Llama:
    """Load the model that a command names and show the progress.

    Args:
        model: its folder; None is the bundled demo model.
    """
    is_demo = model is None
    if model is None:
        note("no model named (-m FOLDER or LLAMAKIT_MODEL): using the bundled demo model")
        model = demo.path()
    try:
        with loading_bar() as progress:
            llama = Llama.open(
                model, **loading.as_arguments(), led=True, toolkit=toolkit, progress=progress
            )
    except NotACheckpointError as error:
        variable = os.environ.get("LLAMAKIT_MODEL", "")
        if str(model) not in (variable, os.path.expanduser(variable)):  # noqa: PTH111
            raise
        raise NotACheckpointError(f"LLAMAKIT_MODEL: {error.for_commands}") from error
    share_cores(llama.model_parallel_size)
    stored = llama.checkpoint.parameters["norm.weight"].dtype
    if loading.dtype == "auto" and stored != llama.dtype and not is_demo:
        note(
            f"{stored} weights are computed in {llama.dtype}: this {llama.device} has no "
            f"{stored} arithmetic (--dtype {stored} forces it)"
        )
    return llama


def check_choices(
    toolkit: Toolkit,
    model: str | Path | None,
    tokenizer: str | None,
    sampling: SamplingOptions,
    draft: str | None,
) -> Sampling:
    """Build the sampler and its processors, and check the drafter, before any weight is read.

    Args:
        tokenizer: its file; None looks in the model's folder and next to it.
        draft: as ``choose_drafter``; None is no drafter.
    Raises:
        UnknownNameError: no such sampler, processor or drafter.
        OptionError: an option that it lacks, of a wrong type or out of range.
        TokenizerError: one of them needs the tokenizer, and there is none.
        CheckpointError: there is no checkpoint either.
    """
    needed = sampling.needs_tokenizer(toolkit)
    loaded = load_model_tokenizer(toolkit, model, tokenizer) if needed else None
    chosen = sampling.build(toolkit, loaded)
    if draft is not None:
        choose_drafter(draft, toolkit=toolkit)
    return chosen


def check_observers(
    toolkit: Toolkit, model: str | Path | None, tokenizer: str | None, choices: Sequence[str]
) -> tuple[ChosenObserver, ...]:
    """Build the observers before any weight is read. Arguments, Raises: as ``check_choices``."""
    if not choices:
        return ()
    needed = needs_tokenizer(choices, toolkit)
    loaded = load_model_tokenizer(toolkit, model, tokenizer) if needed else None
    layers = toolkit.open_checkpoint(demo.path() if model is None else model).params.n_layers
    return choose_observers(choices, layers, toolkit=toolkit, tokenizer=loaded)


def load_model_tokenizer(
    toolkit: Toolkit, model: str | Path | None, tokenizer: str | None
) -> Tokenizer:
    """Load the tokenizer alone, which takes little time compared with the weights."""
    folder = demo.path() if model is None else Path(model)
    try:
        path = find_tokenizer(folder, tokenizer)
    except TokenizerError:
        toolkit.open_checkpoint(folder)  # raises its own error if there is no model either
        raise
    return fit_tokenizer(toolkit.load_tokenizer(path), lambda: toolkit.open_checkpoint(folder))


def share_cores(ranks: int) -> None:
    """Limit PyTorch to this rank's share of the cores; only for a process of our own."""
    ranks = read_environment().local_size or ranks  # torchrun: those of this host
    if "OMP_NUM_THREADS" not in os.environ:
        import torch

        share = max(1, available_cores() // ranks)
        if share < torch.get_num_threads():
            torch.set_num_threads(share)
