"""Runs a download: asks for the link where it is needed, and for a new one when it has expired."""

from __future__ import annotations

from collections.abc import Sequence

from llamakit.cli.download_output import note_stop
from llamakit.cli.download_progress import ProgressDisplay
from llamakit.cli.link_prompt import ask_for_link, is_interactive, read_checked_link
from llamakit.cli.terminal import note
from llamakit.download.catalog import Model, choose
from llamakit.download.events import Finished
from llamakit.download.link import Link
from llamakit.download.session import Session
from llamakit.errors import LinkError, LinkExpiredError


def link_if_needed(text: str | None, run: Session, display: ProgressDisplay) -> Link | None:
    """Return the link that was passed, or ask for one if something is missing.

    Returns:
        None if everything is there, and no link was passed or it has expired.
    """
    if text is None:
        return None if _is_complete(run, display) else read_checked_link(ask_for_link())
    try:
        return read_checked_link(text)
    except LinkExpiredError:
        if _is_complete(run, display):
            return None
        raise


def _is_complete(run: Session, display: ProgressDisplay) -> bool:
    """Tell whether everything is on disk and verified, so that no link is needed."""
    events = run.verify_local()
    while True:
        try:
            display.show(next(events))
        except StopIteration as end:
            display.close()  # a prompt for the link may follow
            return bool(end.value)


def fetch(
    run: Session,
    link: Link,
    models: Sequence[Model],
    catalog: Sequence[Model],
    display: ProgressDisplay,
) -> Link:
    """Run until everything is there; on a terminal, ask for a new link when one has expired.

    Returns:
        The link that was good until the end.
    """
    while True:
        try:
            for event in run.run(link):
                display.show(event)
                if isinstance(event, Finished):
                    return link
        except LinkExpiredError as error:
            display.close()
            if not is_interactive():
                raise
            note(error.for_commands)
            link = _new_link(models, catalog)
        except KeyboardInterrupt:
            note_stop(display)
            raise


def _new_link(models: Sequence[Model], catalog: Sequence[Model]) -> Link:
    while True:
        try:
            link = read_checked_link(ask_for_link("New link"))
            choose([model.name for model in models], catalog, link)
        except LinkError as error:
            note(error.for_commands)
        else:
            return link
