"""What ``llamakit download`` prints besides the progress: the plan, and how it ended."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import click

from llamakit.cli.download_progress import ProgressDisplay, open_display
from llamakit.cli.terminal import format_nbytes, note
from llamakit.download.events import Event, Planned
from llamakit.download.inventory import is_large
from llamakit.errors import INTERRUPTED_STATUS, LlamakitError, for_commands


@contextlib.contextmanager
def shown(*, as_json: bool) -> Iterator[ProgressDisplay]:
    """Open the display of the progress; errors are its last line of JSON."""
    display = open_display(json_lines=as_json)
    try:
        yield display
    except (LlamakitError, OSError, KeyboardInterrupt) as error:
        if as_json and not isinstance(error, BrokenPipeError):
            _print_error(error)
        raise
    finally:
        display.close()


def note_stop(display: ProgressDisplay) -> None:
    """Say after Ctrl-C that nothing is lost."""
    display.close()
    note("stopped; what is downloaded is kept: run the same command to resume")


def show_plan(
    events: Iterable[Event], display: ProgressDisplay, *, about: str, as_json: bool
) -> None:
    """Print the plan.

    Args:
        about: put before sizes that are not exact.
    """
    from llamakit.cli.terminal import grid, rendered

    for event in events:
        if as_json or not isinstance(event, Planned):
            display.show(event)
            continue
        table = grid("file", "size", "on disk", "")
        for file in event.files:
            size = format_nbytes(file.nbytes) if file.nbytes is not None else _unknown(file.path)
            prefix = "" if file.status == "there" or file.nbytes is None else about
            table.add_row(file.path, prefix + size, format_nbytes(file.nbytes_there), file.status)
        click.echo(rendered(table))
        missing, free = map(format_nbytes, (event.nbytes_missing, event.free_nbytes))
        unknown = sum(file.nbytes is None and is_large(file.path) for file in event.files)
        more = f" and {unknown} files of unknown size" if unknown else ""
        click.echo(f"\n{about}{missing}{more} to fetch; {free} are free")


def _unknown(path: str) -> str:
    return "unknown" if is_large(path) else "small"


def _print_error(error: LlamakitError | OSError | KeyboardInterrupt) -> None:
    from llamakit.cli.terminal import json_text

    status = error.exit_status if isinstance(error, LlamakitError) else 1
    message = for_commands(error)
    if isinstance(error, OSError) and error.strerror:
        message = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if isinstance(error, KeyboardInterrupt):
        status, message = INTERRUPTED_STATUS, "interrupted"
    line = {"event": "error", "message": message, "exit_status": status}
    click.echo(json_text(line))
