"""What ``llamakit download`` does: find the link and the models, fetch, ask for a new link."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamakit.console import note
from llamakit.download.catalogue import ALL, Model, choose, read_catalogue
from llamakit.download.events import Finished, Planned
from llamakit.download.link import HOW_TO_GIVE, MAX_NBYTES, CutLinkError, Link, read_link
from llamakit.download.policy import spell
from llamakit.download.screen import Screen, open_screen, sized
from llamakit.download.session import Download, Settings
from llamakit.errors import LinkEndedError, LinkError, LlamakitError, UsageError

if TYPE_CHECKING:
    from llamakit.toolkit import Toolkit

VARIABLE = "LLAMAKIT_URL"


def download(
    toolkit: Toolkit,
    names: Sequence[str],
    folder: Path,
    settings: Settings,
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
        text = _given_link(url, url_file)
        if dry_run:
            link = _read(text) if text is not None else None
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
        return None if _is_there(run, screen) else _read(_asked_link())
    try:
        return _read(text)
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
            if not _somebody_is_there():
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
            link = _read(_asked_link("New link"))
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
    if not _somebody_is_there():
        known = ", ".join(model.name for model in listed)
        raise UsageError(f"which models? Name them: llamakit download {known}, or all")
    for model in listed:
        size = sized(model.shards * model.shard_nbytes)
        mark = "  (here already, perhaps not whole)" if model.name in here else ""
        click.echo(f"  {model.name:10} {size:>8}  {model.folder}{mark}", err=True)
    return [_asked("Models (Enter: all)", default=ALL, show_default=False)]


def _given_link(url: str | None, url_file: str | None) -> str | None:
    """Return the text of the link, if one was given."""
    if url is not None and url_file is not None:
        raise UsageError("--url and --url-file both name a link: give one of them")
    if url is not None:
        note(
            "--url puts the link into the shell's history and the process list, where others may "
            f"read it; next time use --url-file, {VARIABLE} or the prompt"
        )
        return url
    if url_file == "-":
        return sys.stdin.read(MAX_NBYTES + 1)
    if url_file is not None:
        return _link_in(url_file)
    return os.environ.get(VARIABLE) or None


def _link_in(url_file: str) -> str:
    try:
        with Path(url_file).open(encoding="utf-8", errors="replace") as file:
            return file.read(MAX_NBYTES + 1)
    except OSError as error:
        if any(sign in url_file for sign in ("://", "%2F", "Policy=")):
            raise LinkError(
                f"--url-file takes the name of a file, not the link itself. {HOW_TO_GIVE}"
            ) from None
        raise UsageError(f"--url-file: {url_file} cannot be read: {error.strerror}") from None


def _asked_link(title: str = "Link") -> str:
    """Ask for the link without showing it, in one line or in many."""
    if not _somebody_is_there():
        raise UsageError(f"no link was given. {HOW_TO_GIVE}")
    from llamakit.hidden_input import ask_hidden

    try:
        return ask_hidden(f"{title} (it is not shown)", _rest_of, MAX_NBYTES)
    except EOFError:
        raise click.Abort from None


def _rest_of(text: str) -> str | None:
    """Say that a link goes on, if what was typed is not all of it."""
    try:
        read_link(text)
    except CutLinkError:
        return "The link goes on: paste the rest, or press Enter to leave it so"
    except LlamakitError:
        pass
    return None


def _asked(question: str, **how: Any) -> str:
    """Ask on the terminal; Ctrl-C is Ctrl-C, which Click tells from no answer by nothing else."""
    try:
        return str(click.prompt(question, err=True, **how))
    except click.Abort as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


def _read(text: str) -> Link:
    link = read_link(text)
    if link.policy is not None and link.policy.ends is not None:
        link.policy.check_time()
        note(f"the link is good until {spell(link.policy.ends)}")
    return link


def _somebody_is_there() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def _show_plan(run: Download, link: Link | None, screen: Screen, *, as_json: bool) -> None:
    """Print what would be fetched."""
    from llamakit.tables import grid, rendered

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
