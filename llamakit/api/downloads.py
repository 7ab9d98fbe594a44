"""Downloads models with a signed link."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llamakit.plugin_manager.toolkit import default_toolkit

if TYPE_CHECKING:
    from llamakit.download.catalog import Model
    from llamakit.download.events import Event, Finished
    from llamakit.download.session import Session


def download_models(
    *models: str,
    link: str,
    output_dir: str | Path = ".",
    connections: int = 8,
    limit_rate: float | None = None,
    repair: bool = False,
    into: str | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Finished:
    """Download models with a signed link; files that are there already are not fetched again.

    Args:
        models: names such as ``7B`` or ``13B-chat``, or ``all``.
        link: as Meta's email has it; what mail clients do to it is undone.
        output_dir: where the models' folders and the tokenizer go.
        connections: how many at the same time, over all files.
        limit_rate: bytes a second; None is no limit.
        repair: replace files that are there but wrong.
        into: write each model in another format as it arrives, and store no source:
            ``reshard:N``, ``hf`` or ``safetensors``. ``on_event`` gets a ``Converted`` with where.
        on_event: called with each event: progress, problems, completed files.
    Returns:
        How much was fetched, with how many requests.

    Raises:
        LinkError: the link is mangled or for another family.
        LinkExpiredError: it has expired; the same call with a new link resumes.
        DownloadError: the server did not give what it should, or could not be reached.
        DamagedFileError: a file is wrong twice, or was there, wrong, and ``repair`` is off.
        NoSpaceError: there is no room.
        OptionError: ``into`` is no format that a download is written in.
        DestinationError: something else is where ``into`` writes.
    """
    from llamakit.download.fetcher import DownloadSettings
    from llamakit.download.session import Download, fetch_models
    from llamakit.download_into.session import IntoDownload
    from llamakit.download_into.target_format import read_target_format

    toolkit, folder = default_toolkit(), Path(output_dir)
    settings = DownloadSettings(connections=connections, limit_rate=limit_rate, repair=repair)
    target = None if into is None else read_target_format(into, toolkit.exporters)

    def sessions(chosen: Sequence[Model]) -> Sequence[Session]:
        if target is None:
            return [Download(chosen, folder, settings)]
        open_checkpoint = toolkit.open_checkpoint
        return [IntoDownload(it, folder, target, open_checkpoint, settings) for it in chosen]

    return fetch_models(models, toolkit.models, link, sessions, on_event)
