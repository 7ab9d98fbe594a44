"""What both commands share: where the result goes, in which format, and what is printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from llamakit.cli.user_path import UserPath

if TYPE_CHECKING:
    from llamakit.protocols import ToolCommand
    from llamakit_merge.block_checkpoint import BlockCheckpoint

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Output:
    """What is made of a merged checkpoint."""

    destination: Path
    size: int | None = None
    """How many shards in Meta's format; None: 1, or another format."""
    format_name: str | None = None
    """The name of an exporter."""
    options: Mapping[str, str] | None = None
    """The exporter's."""
    only_plan: bool = False
    force: bool = False
    as_json: bool = False
    recorded: Mapping[str, Any] | None = None
    """What ``llamakit.json`` says was asked for."""

    @property
    def shards(self) -> int:
        """How many shards Meta's format has."""
        return self.size or 1


def output_options(command: F) -> F:
    """Add the options that choose what is written."""
    for option in reversed(
        (
            click.option(
                "-n",
                "--model-parallel-size",
                "size",
                metavar="N",
                type=click.IntRange(min=1),
                help="How many shards to write in Meta's format.  [default: 1]",
            ),
            click.option(
                "--format",
                "format_name",
                metavar="NAME",
                help="Another format to write, as export --format has them, such as hf.",
            ),
            click.option(
                "--option", "more", metavar="K=V", multiple=True, help="An option of that format."
            ),
            click.option(
                "--plan",
                "only_plan",
                is_flag=True,
                help="Print what would be done, and do nothing.",
            ),
            click.option("--force", is_flag=True, help="Replace DST if it exists."),
            click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        )
    ):
        command = option(command)
    return command


def destination_argument(command: F) -> F:
    """Add the argument DST."""
    kind = UserPath(path_type=Path)
    return click.argument("destination", metavar="DST", type=kind)(command)


def make_output(
    destination: Path,
    size: int | None,
    format_name: str | None,
    more: tuple[str, ...],
    *,
    only_plan: bool,
    force: bool,
    as_json: bool,
    recorded: Mapping[str, Any],
) -> Output:
    """Check the options, and return them.

    Args:
        recorded: what ``llamakit.json`` says was asked for.

    Raises:
        click.UsageError: two do not go together.
    """
    if size is not None and format_name is not None:
        raise click.UsageError("-n is for Meta's format, and --format chooses another")
    if more and format_name is None:
        raise click.UsageError("--option is for a --format")
    options = {}
    for text in more:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{text!r} is not K=V", param_hint="--option")
        options[key] = value
    return Output(destination, size, format_name, options, only_plan, force, as_json, recorded)


def write(
    checkpoint: BlockCheckpoint, output: Output, title: str, facts: Mapping[str, Any]
) -> None:
    """Write a merged checkpoint, or print the plan.

    Args:
        title: of the progress bar.
        facts: what the plan and the report say besides, by key; values are numbers or strings.

    Raises:
        LlamakitError: it cannot be written.
    """
    import llamakit
    from llamakit.cli.conversion import describe_plan, describe_report, weights_nbytes
    from llamakit.cli.terminal import bytes_bar

    command = _command(checkpoint, output)
    check_not_a_source(checkpoint, output.destination)
    if output.only_plan:
        described = {**plan_of(checkpoint, output), **facts}
        click.echo(describe_plan(described, as_json=output.as_json))
        _echo_facts(facts, output)
        click.get_current_context().exit(1 if described["refusals"] else 0)
    with bytes_bar(title, weights_nbytes(checkpoint)) as progress:
        if output.format_name is None:
            report: Mapping[str, Any] = llamakit.reshard(
                checkpoint,
                output.destination,
                output.shards,
                force=output.force,
                progress=progress,
                command=command,
            )
        else:
            options: dict[str, Any] = dict(output.options or {})
            if progress is not None:
                options["progress"] = progress
            report = llamakit.export(
                checkpoint,
                output.destination,
                output.format_name,
                force=output.force,
                command=command,
                **options,
            )
    nbytes_read = sum(source.nbytes_read for source in checkpoint.sources)
    report = {**report, "nbytes_read": nbytes_read, **facts}
    click.echo(describe_report(report, as_json=output.as_json))
    _echo_facts(facts, output)


def plan_of(checkpoint: BlockCheckpoint, output: Output) -> dict[str, Any]:
    """Return the plan of what is written, in JSON's terms.

    Raises:
        UsageError: the exporter of the format has no plan.
    """
    import llamakit

    command = _command(checkpoint, output)
    destination, form = output.destination, output.format_name
    plan: Any
    if form is None:
        plan = llamakit.plan_reshard(checkpoint, destination, output.shards, command=command)
    else:
        options = output.options or {}
        plan = llamakit.plan_export(checkpoint, destination, form, command=command, **options)
    described: dict[str, Any] = plan.as_json(force=output.force)
    described["nbytes_read"] = checkpoint.nbytes_to_read()
    described["memory_nbytes"] += checkpoint.memory_nbytes()
    return described


def _command(checkpoint: BlockCheckpoint, output: Output) -> ToolCommand:
    """Return what ``llamakit.json`` says has made it; an exporter adds its format and options."""
    from importlib.metadata import version

    from llamakit.protocols import ToolCommand

    size = {"model_parallel_size": output.shards} if output.format_name is None else {}
    made_by = f"llamakit-merge {version('llamakit-merge')}"
    return ToolCommand(checkpoint.form, {**size, **(output.recorded or {})}, made_by)


def check_not_a_source(checkpoint: BlockCheckpoint, destination: Path) -> None:
    """Refuse a destination whose replacement would remove something that is read.

    Raises:
        DestinationError: it would.
    """
    from llamakit.errors import DestinationError

    place = destination.resolve()
    read = [*checkpoint.reads, *(source.path for source in checkpoint.sources)]
    for path in read:
        if place == path.resolve() or place in path.resolve().parents:
            raise DestinationError(
                f"writing {destination} would remove {path}, which is read; choose another name."
            )


def _echo_facts(facts: Mapping[str, Any], output: Output) -> None:
    if not output.as_json:
        for key, value in facts.items():
            click.echo(f"{key.replace('_', ' ')}: {value}")
