"""``llamakit download hf:owner/name``: fetches a repository of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from llamakit.cli.download_output import note_stop, show_plan, shown
from llamakit.download.fetcher import DownloadSettings
from llamakit.download.hub import HubDownload
from llamakit.download.hub_repo import parse_repo


def run_hub(
    name: str,
    folder: Path,
    settings: DownloadSettings,
    include: Sequence[str],
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Fetch a repository of the hub and show the progress; arguments and errors as of ``run``.

    Args:
        name: ``hf:owner/name``, with ``@revision`` perhaps.
    """
    with shown(as_json=as_json) as display:
        repo = parse_repo(name)
        hub = HubDownload(repo, folder, settings, include)
        if dry_run:
            show_plan(hub.plan(), display, about="", as_json=as_json)
            return
        try:
            for event in hub.run():
                display.show(event)
        except KeyboardInterrupt:
            note_stop(display)
            raise
        display.close()
        if not as_json:
            click.echo(f"Everything is there and verified, in {folder / repo.folder}")
