"""``llamakit download --into``: fetches models into another format, and stores no source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamakit.cli.conversion import describe_plan
from llamakit.cli.download_output import show_plan, shown
from llamakit.cli.download_progress import ProgressDisplay
from llamakit.cli.download_session import fetch, link_if_needed
from llamakit.cli.link_prompt import passed_link, read_checked_link
from llamakit.cli.terminal import json_text
from llamakit.download.catalog import Model, choose, read_catalog
from llamakit.download.fetcher import DownloadSettings
from llamakit.download.link import Link
from llamakit.download.session import Download
from llamakit.download_into.session import IntoDownload
from llamakit.download_into.target_format import read_target_format
from llamakit.errors import UsageError

if TYPE_CHECKING:
    from llamakit.plugin_manager.toolkit import Toolkit


def run_into(
    toolkit: Toolkit,
    names: Sequence[str],
    folder: Path,
    settings: DownloadSettings,
    into: str,
    *,
    url: str | None,
    url_file: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Fetch models into another format, one after the other, and show the progress.

    Args:
        into: what ``--into`` says; the others and errors as of ``cli.download.run``.
    """
    with shown(as_json=as_json) as display:
        if not names:
            raise UsageError("which model? Name it: llamakit download NAME --into FORMAT")
        target = read_target_format(into, toolkit.exporters)
        catalog = read_catalog(toolkit.models)
        models = choose(names, catalog, None)
        text = passed_link(url, url_file)
        sessions = [
            IntoDownload(model, folder, target, toolkit.open_checkpoint, settings)
            for model in models
        ]
        if not dry_run:
            for session in sessions:  # the last as well, before the first is fetched for hours
                session.is_done()
        link = None
        for model, session in zip(models, sessions, strict=True):
            if dry_run:
                link = read_checked_link(text) if text is not None else None
                _show_plan(session, model, folder, link, display, as_json=as_json)
                continue
            link = link or link_if_needed(text, session, display)
            if link is not None:
                choose([model.name], catalog, link)
                link = fetch(session, link, [model], catalog, display)
            display.close()
            if not as_json:
                click.echo(f"Everything is verified and converted: {session.destination}")


def _show_plan(
    session: IntoDownload,
    model: Model,
    folder: Path,
    link: Link | None,
    display: ProgressDisplay,
    *,
    as_json: bool,
) -> None:
    """Print what would be fetched and written; without a link, only what is known of the first."""
    if link is None:
        show_plan(Download([model], folder).plan(None), display, about="about ", as_json=as_json)
        return
    events = session.plan(link)
    while True:
        try:
            display.show(next(events))
        except StopIteration as end:
            plan: Mapping[str, Any] = end.value
            break
    if as_json:
        click.echo(json_text({"event": "conversion-plan", **plan}))
    else:
        click.echo(describe_plan(plan, as_json=False))
    if plan["refusals"]:
        click.get_current_context().exit(1)
