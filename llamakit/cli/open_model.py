"""The model that a command names, opened: its weights, or only what its arguments need."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamakit import demo
from llamakit.api import Llama
from llamakit.cli.terminal import loading_bar, note
from llamakit.errors import NotACheckpointError, TokenizerError
from llamakit.llama.loading import find_tokenizer
from llamakit.llama.sampler_choice import needs_tokenizer

if TYPE_CHECKING:
    from llamakit.plugin_manager.factories import Choice
    from llamakit.plugin_manager.toolkit import Toolkit
    from llamakit.protocols import Tokenizer


def open_model(toolkit: Toolkit, model: str | Path | None, **settings: Any) -> Llama:
    """Load the model that a command names, or the embedded one, showing how far it is.

    Args:
        settings: as ``Llama.open``.
    """
    if model is None:
        note("no model named (-m FOLDER or LLAMAKIT_MODEL): the embedded demonstration model")
        model = demo.path()
    try:
        with loading_bar() as progress:
            llama = Llama.open(model, **settings, led=True, toolkit=toolkit, progress=progress)
    except NotACheckpointError as error:
        if os.environ.get("LLAMAKIT_MODEL") != str(model):
            raise
        raise NotACheckpointError(f"LLAMAKIT_MODEL: {error}") from error
    share_cores(llama.model_parallel_size)
    stored = llama.checkpoint.parameters["norm.weight"].dtype
    if settings.get("dtype", "auto") == "auto" and stored != llama.dtype:
        note(
            f"{stored} weights are computed in {llama.dtype}: this {llama.device} has no "
            f"{stored} arithmetic (--dtype {stored} forces it)"
        )
    return llama


def tokenizer_for_sampling(
    toolkit: Toolkit,
    model: str | Path | None,
    tokenizer: str | Path | None,
    *,
    sampler: str | None,
    processors: Sequence[str | Choice],
) -> Tokenizer | None:
    """Load the tokenizer of the model that a command names, if a sampler or processor needs it.

    That takes no time beside the weights, so wrong options are still said before those are read.

    Args:
        tokenizer: its file; None looks beside the model.
    Raises:
        UnknownNameError: no such sampler or processor.
        TokenizerError: there is no tokenizer.
        CheckpointError: there is no checkpoint either.
    """
    if not needs_tokenizer(sampler, processors, toolkit):
        return None
    folder = demo.path() if model is None else Path(model)
    try:
        path = find_tokenizer(folder, tokenizer)
    except TokenizerError:
        toolkit.open_checkpoint(folder)  # if there is no model either, that is what to say
        raise
    return toolkit.load_tokenizer(path)


def share_cores(ranks: int) -> None:
    """Leave the other ranks of this machine their cores; only for a process of our own."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", ranks))  # torchrun: those of this host
    if ranks > 1 and "OMP_NUM_THREADS" not in os.environ:
        import torch

        torch.set_num_threads(max(1, (os.cpu_count() or 1) // ranks))
