"""``llamakit download``: find the link and the models, fetch, ask for a new link."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llamakit.cli.link_prompt import (
    ask,
    ask_for_link,
    given_link,
    is_interactive,
    read_checked_link,
)
from llamakit.cli.terminal import note
from llamakit.download.catalog import ALL, Model, choose, read_catalogue
from llamakit.download.events import Finished, Planned
from llamakit.download.link import Link
from llamakit.download.progress import Screen, open_screen, sized
from llamakit.download.rate import read_rate
from llamakit.download.retry import Patience
from llamakit.download.session import Download, DownloadSettings
from llamakit.errors import LinkEndedError, LinkError, LlamakitError, UsageError

if TYPE_CHECKING:
    from llamakit.plugin_manager.toolkit import Toolkit


@click.command()
@click.argument("models", metavar="[MODEL...]", nargs=-1)
@click.option("--url-file", metavar="FILE", help="The file that holds the link; - is stdin.")
@click.option("--url", metavar="LINK", help="The link itself; others may see it: rather not.")
@click.option(
    "--output-dir",
    metavar="DIR",
    type=click.Path(file_okay=False),
    default=".",
    show_default=True,
    help="Where the models' folders and the tokenizer go.",
)
@click.option(
    "--connections",
    metavar="N",
    type=click.IntRange(1, 64),
    default=8,
    show_default=True,
    help="How many at the same time, over all files.",
)
@click.option("--limit-rate", metavar="RATE", help="Bytes a second, such as 500k or 10M.")
@click.option(
    "--retries",
    metavar="N",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="Failures in a row that are borne, counted from the last byte gained.",
)
@click.option(
    "--retry-wait",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="After the first failure; doubled each time, up to a minute.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="How long the server may be silent.",
)
@click.option("--repair", is_flag=True, help="Verify what is there, and replace what is wrong.")
@click.option("--dry-run", is_flag=True, help="Show files, sizes, what is there, free space.")
@click.option("--json", "as_json", is_flag=True, help="Print events as lines of JSON.")
@click.pass_obj
def download(
    toolkit: Toolkit,
    models: tuple[str, ...],
    url_file: str | None,
    url: str | None,
    output_dir: str,
    *,
    connections: int,
    limit_rate: str | None,
    retries: int,
    retry_wait: float,
    timeout: float,
    repair: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Fetch models with the link from Meta's email.

    MODEL is a name such as 7B or 13B-chat (several: 7B,13B), or all; without one, you choose from
    a list. The link comes from LLAMAKIT_URL, --url-file or a prompt that does not show it.
    Whatever stops it, the same command goes on where it was. A file gets its name when its md5 is
    right. The exit status is 3 when the link has ended.

    \b
    llamakit download 7B-chat --url-file link.txt
    LLAMAKIT_URL='https://...' llamakit download 7B,13B --output-dir models
    llamakit download --repair --url-file link.txt
    """
    settings = DownloadSettings(
        connections=connections,
        patience=Patience(retries, retry_wait),
        timeout=timeout,
        limit_rate=read_rate(limit_rate) if limit_rate else None,
        repair=repair,
    )
    folder = Path(output_dir)
    run(
        toolkit,
        models,
        folder,
        settings,
        url=url,
        url_file=url_file,
        dry_run=dry_run,
        as_json=as_json,
    )


def run(
    toolkit: Toolkit,
    names: Sequence[str],
    folder: Path,
    settings: DownloadSettings,
    *,
    url: str | None = None,
    url_file: str | None = None,
    dry_run: bool = False,
    as_json: bool = False,
) -> None:
    """Fetch models, showing how far it is.

    Args:
        names: of models; none: those to be repaired, or chosen on the terminal.
        url: the link, if it was typed.
        url_file: the file that holds it; ``-`` is standard input.

    Raises:
        LinkEndedError: the link has ended and nobody is there to give a new one.
        LlamakitError: whatever ``Download.run`` raises.
    """
    screen = open_screen(json_lines=as_json)
    try:
        catalogue = read_catalogue(toolkit.models)
        names = names or _names(catalogue, folder, repair=settings.repair)
        models = choose(names, catalogue, None)  # a wrong name is said before a link is asked for
        text = given_link(url, url_file)
        if dry_run:
            link = read_checked_link(text) if text is not None else None
            models = choose(names, catalogue, link)
            _show_plan(Download(models, folder, settings), link, screen, as_json=as_json)
            return
        link = _link_if_needed(text, Download(models, folder, settings), screen)
        if link is not None:
            models = choose(names, catalogue, link)
            _fetch(Download(models, folder, settings), link, models, catalogue, screen)
        screen.close()
        if not as_json:
            click.echo(_next_steps(models, folder))
    except (LlamakitError, OSError, KeyboardInterrupt) as error:
        if as_json and not isinstance(error, BrokenPipeError):
            _print_error(error)
        raise
    finally:
        screen.close()


def _link_if_needed(text: str | None, run: Download, screen: Screen) -> Link | None:
    """Return the link that was given or, where something is missing, asked for.

    Returns:
        None if everything is there, and a link was not given or has ended.
    """
    if text is None:
        return None if _is_there(run, screen) else read_checked_link(ask_for_link())
    try:
        return read_checked_link(text)
    except LinkEndedError:
        if _is_there(run, screen):
            return None
        raise


def _is_there(run: Download, screen: Screen) -> bool:
    """Tell whether everything is there, so that no link is needed."""
    steps = run.look()
    while True:
        try:
            screen.show(next(steps))
        except StopIteration as end:
            return bool(end.value)


def _fetch(
    run: Download, link: Link, models: Sequence[Model], catalogue: Sequence[Model], screen: Screen
) -> None:
    """Run until all is there, with one link after the other if somebody gives them."""
    while True:
        try:
            for event in run.run(link):
                screen.show(event)
                if isinstance(event, Finished):
                    return
        except LinkEndedError as error:
            screen.close()
            if not is_interactive():
                raise
            note(str(error))
            link = _new_link(models, catalogue)
        except KeyboardInterrupt:
            screen.close()
            note("stopped; what is downloaded is kept: the same command goes on")
            raise


def _new_link(models: Sequence[Model], catalogue: Sequence[Model]) -> Link:
    while True:
        try:
            link = read_checked_link(ask_for_link("New link"))
            choose([model.name for model in models], catalogue, link)
        except LinkError as error:
            note(str(error))
        else:
            return link


def _names(catalogue: Sequence[Model], folder: Path, *, repair: bool) -> list[str]:
    """Work out which models are meant when none is named."""
    here = [model.name for model in catalogue if (folder / model.folder).is_dir()]
    if repair and here:
        return here
    if repair:
        raise UsageError(
            f"--repair mends models that are there, and {folder} holds none; name the folder that "
            "their folders are in with --output-dir"
        )
    listed = [model for model in catalogue if model.hosts]
    if not is_interactive():
        known = ", ".join(model.name for model in listed)
        raise UsageError(f"which models? Name them: llamakit download {known}, or all")
    for model in listed:
        size = sized(model.shards * model.shard_nbytes)
        mark = "  (here already, perhaps not whole)" if model.name in here else ""
        click.echo(f"  {model.name:10} {size:>8}  {model.folder}{mark}", err=True)
    return [ask("Models (Enter: all)", default=ALL, show_default=False)]


def _show_plan(run: Download, link: Link | None, screen: Screen, *, as_json: bool) -> None:
    """Print what would be fetched."""
    from llamakit.cli.terminal import grid, rendered

    for event in run.plan(link):
        if as_json or not isinstance(event, Planned):
            screen.show(event)
            continue
        about = "" if link else "about "
        table = grid("file", "size", "there", "")
        for file in event.files:
            size = "small" if file.nbytes is None else sized(file.nbytes)
            prefix = "" if file.status == "there" or file.nbytes is None else about
            table.add_row(file.path, prefix + size, sized(file.nbytes_there), file.status)
        click.echo(rendered(table))
        click.echo(
            f"\n{about}{sized(event.nbytes_missing)} to fetch; {sized(event.free_nbytes)} are free"
        )


def _next_steps(models: Sequence[Model], folder: Path) -> str:
    import shlex

    first = shlex.quote(str(folder / models[0].folder))
    return f'Everything is there and verified. Next: llamakit generate -m {first} "Hello"'


def _print_error(error: LlamakitError | OSError | KeyboardInterrupt) -> None:
    import json

    status = error.exit_status if isinstance(error, LlamakitError) else 1
    message = str(error)
    if isinstance(error, OSError) and error.strerror:
        message = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if isinstance(error, KeyboardInterrupt):
        status, message = 130, "interrupted"
    line = {"event": "error", "message": message, "exit_status": status}
    click.echo(json.dumps(line, ensure_ascii=False))
