"""What commands show on standard error while they work, and the model they open."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamakit import demo
from llamakit.api import Llama
from llamakit.errors import NotACheckpointError, TokenizerError
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


class Tally:
    """How many answers and ids there are, and how fast they come.

    Args:
        show: told the text of the speed, a few times a second, and how many answers there are.
    """

    def __init__(self, show: Callable[[str, int], object] | None = None) -> None:
        self.answers = self.ids = 0
        self._show = show
        self._start = self._shown = time.monotonic()

    def add(self, ids: int, answers: int) -> None:
        """Count."""
        self.ids += ids
        self.answers += answers
        now = time.monotonic()
        if self._show and (answers or now - self._shown > 0.2):
            self._shown = now
            self._show(self.speed, self.answers)

    @property
    def speed(self) -> str:
        """Ids a second since the beginning."""
        return f"{self.ids / max(time.monotonic() - self._start, 1e-3):.1f} tokens/s"

    @property
    def summary(self) -> str:
        """What was done, in one line."""
        what = "1 answer" if self.answers == 1 else f"{self.answers} answers"
        seconds = time.monotonic() - self._start
        return f"{what}, {self.ids} tokens in {seconds:.1f} s: {self.speed}"


@contextlib.contextmanager
def answers_bar(total: int) -> Iterator[Tally]:
    """Count answers, and show where somebody watches how many are done and how fast."""
    if not sys.stderr.isatty():
        yield Tally()
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    speed = TextColumn("{task.fields[speed]}")
    with Progress(*columns, speed, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("answering", total=total, speed="")
        yield Tally(lambda speed, done: progress.update(task, completed=done, speed=speed))
