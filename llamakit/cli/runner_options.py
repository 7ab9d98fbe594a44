"""``generate --on`` and ``--replicas``: what answers the prompts, and with how many models."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from llamakit.cli.name_option import NameOption
from llamakit.cli.number_types import WholeNumber
from llamakit.errors import DestinationError, UnknownNameError, UsageError
from llamakit.llama.prompts import Prompt, parse_prompts
from llamakit.plugin_manager.contracts.runners import checked_pieces
from llamakit.plugin_manager.failures import guarded
from llamakit.printable import printable

if TYPE_CHECKING:
    from llamakit.plugin_manager.registry import Entry
    from llamakit.plugin_manager.toolkit import Toolkit
    from llamakit.protocols import AnswerJob, AnswerPiece

PACKAGES = {"ray": "llamakit-ray"}
"""Packages that bring a runner, to name where one is not installed."""
F = TypeVar("F", bound=Callable[..., Any])


class ReplicaCount(WholeNumber):
    """A number of replicas, or ``auto``, which is None."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or None."""
        return None if value == "auto" else super().convert(value, param, ctx)


def runner_options(command: F) -> F:
    """Add both options. The function gets ``on``, a string, and ``replicas``, a number or None."""
    command = click.option(
        "--replicas",
        metavar="N|auto",
        type=ReplicaCount(min=1),
        default="auto",
        show_default=True,
        help="How many times the runner loads the model; auto: as often as there is room.",
    )(command)
    return click.option(
        "--on",
        cls=NameOption,
        registry="runners",
        metavar="NAME[:ADDRESS]",
        default="local",
        show_default=True,
        help="What answers the prompts: this process, or a cluster.",
    )(command)


class ChosenRunner:
    """The runner of ``--on``, held to its contract.

    Raises:
        UnknownNameError: there is none of that name; the message says what to install.
    """

    def __init__(self, toolkit: Toolkit, on: str) -> None:
        name, _, self.address = on.partition(":")
        self._entry = _entry(toolkit, name)
        self._run = guarded(self._entry.value, self._entry)

    @property
    def reads_prompts(self) -> bool:
        """Whether it reads the file of prompts itself."""
        return hasattr(self._entry.value, "read_prompts")

    def read_prompts(self, file: str) -> Iterator[Prompt]:
        """Yield the prompts of a file. Raises: as ``parse_prompts``."""
        # An address may be a signed link, which no message shows.
        name = "the file of prompts" if "://" in file else file
        return parse_prompts(self._run.read_prompts(file, self.address), name)

    def run(self, job: AnswerJob, indexes: Sequence[int]) -> Iterator[AnswerPiece]:
        """Answer the requests of a job, whose indexes these are."""
        return checked_pieces(self._run(job), indexes, self._entry.breach)


@contextlib.contextmanager
def output_file(output: str) -> Iterator[Path]:
    """Return the file of ``--output``: of a folder, which is made if need be, answers.jsonl.

    What was made and is empty at the end of the block is removed.

    Raises:
        DestinationError: a file is in the folder's place, or the name is empty.
    """
    if not output:
        raise DestinationError("--output is empty: pass the name of a file or a folder")
    path = Path(output)
    if not output.endswith("/") and not path.is_dir():
        yield path
        return
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise DestinationError(f"{path} is no folder: pass another --output") from None
    try:
        yield path / "answers.jsonl"
    finally:
        with contextlib.suppress(OSError):  # it is not empty
            for folder in new:
                folder.rmdir()


def _entry(toolkit: Toolkit, name: str) -> Entry:
    try:
        return toolkit.runners.entry(name)
    except UnknownNameError as error:
        package = PACKAGES.get(name)
        if package is None or name in toolkit.runners.off:
            raise
        raise UsageError(
            f"no runner is called {printable(name)!r} here: install {package} in the environment "
            "that llamakit is in, then do this again (docs/how-to/packages.md)"
        ) from error
