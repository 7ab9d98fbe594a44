"""A download in one call, for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from llamakit.download.catalogue import choose, read_catalogue
from llamakit.download.events import Event, Finished
from llamakit.download.link import read_link
from llamakit.download.session import Download, Settings
from llamakit.registry import Entry


def fetch_models(
    names: Sequence[str],
    entries: Iterable[Entry],
    link: str,
    folder: Path,
    *,
    connections: int,
    limit_rate: float | None,
    repair: bool,
    on_event: Callable[[Event], None] | None,
) -> Finished:
    """Fetch models; ``llamakit.download_models`` explains the arguments.

    Args:
        entries: the catalogue, as plugins have registered it.
    """
    found = read_link(link)
    models = choose(names, read_catalogue(entries), found)
    settings = Settings(connections=connections, limit_rate=limit_rate, repair=repair)
    for event in Download(models, folder, settings).run(found):
        if on_event is not None:
            on_event(event)
        if isinstance(event, Finished):
            return event
    raise AssertionError("the last event is Finished")
