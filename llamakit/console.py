"""What commands show on standard error while they work, and the model they open."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamakit import demo
from llamakit.api import Llama
from llamakit.errors import TokenizerError
from llamakit.loading import find_tokenizer
from llamakit.sampling import needs_tokenizer

if TYPE_CHECKING:
    from llamakit.factories import Choice
    from llamakit.protocols import Tokenizer
    from llamakit.toolkit import Toolkit


def note(text: str) -> None:
    """Say something on standard error."""
    click.echo(f"llamakit: {text}", err=True)


def open_model(toolkit: Toolkit, model: str | Path | None, **settings: Any) -> Llama:
    """Load the model that a command names, or the embedded one, showing how far it is.

    Args:
        settings: as ``Llama.open``.
    """
    if model is None:
        note("no model named (-m FOLDER or LLAMAKIT_MODEL): the embedded demonstration model")
        model = demo.path()
    with loading_bar() as progress:
        llama = Llama.open(model, **settings, led=True, toolkit=toolkit, progress=progress)
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
    if ranks > 1 and "OMP_NUM_THREADS" not in os.environ:
        import torch

        torch.set_num_threads(max(1, (os.cpu_count() or 1) // ranks))


@contextlib.contextmanager
def loading_bar() -> Iterator[Callable[[int], None] | None]:
    """Show how many layers are loaded, where somebody watches."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.status import Status

    with Status("loading", console=Console(stderr=True)) as status:
        yield lambda layers: status.update(f"loading: {layers} layers")


@contextlib.contextmanager
def answers_bar(total: int) -> Iterator[Callable[[], None]]:
    """Show how many answers are done, where somebody watches."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("answering", total=total)
        yield lambda: progress.advance(task)
