"""``llamakit download``: fetches models, and asks for a new link when one has expired."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llamakit.cli.completion import registered
from llamakit.cli.download_output import show_plan, shown
from llamakit.cli.download_session import fetch, link_if_needed
from llamakit.cli.link_prompt import ask, is_interactive, passed_link, read_checked_link
from llamakit.cli.number_types import Number, WholeNumber
from llamakit.cli.terminal import format_nbytes
from llamakit.cli.user_path import UserPath
from llamakit.download.catalog import ALL, Model, choose, listing, read_catalog
from llamakit.download.fetcher import DownloadSettings
from llamakit.download.hub_repo import PREFIX
from llamakit.download.rate_limit import read_rate
from llamakit.download.retry import RetryPolicy
from llamakit.download.session import Download
from llamakit.errors import UsageError

if TYPE_CHECKING:
    from llamakit.plugin_manager.toolkit import Toolkit


@click.command()
@click.argument(
    "models", metavar="[MODEL...]", nargs=-1, shell_complete=registered("models", beside=[ALL])
)
@click.option("--url-file", metavar="FILE", help="The file with the link; - is stdin.")
@click.option(
    "--url", metavar="LINK", help="The link itself; other users may see it, so prefer --url-file."
)
@click.option(
    "--output-dir",
    metavar="DIR",
    type=UserPath(file_okay=False),
    default=".",
    show_default=True,
    help="Where the models' folders and the tokenizer are written.",
)
@click.option(
    "--connections",
    metavar="N",
    type=WholeNumber(1, 64),
    default=8,
    show_default=True,
    help="How many connections, over all files.",
)
@click.option("--limit-rate", metavar="RATE", help="Bytes per second, such as 500k or 10M.")
@click.option(
    "--retries",
    metavar="N",
    type=WholeNumber(min=0),
    default=10,
    show_default=True,
    help="Failures in a row before giving up, counted from the last new byte.",
)
@click.option(
    "--retry-wait",
    metavar="SECONDS",
    type=Number(min=0),
    default=1.0,
    show_default=True,
    help="Wait after the first failure; doubled each time, up to a minute.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=Number(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="How long to wait for the next byte.",
)
@click.option(
    "--include",
    metavar="PATTERN",
    multiple=True,
    help="Of a hub's repository, fetch these files only; may be repeated.",
)
@click.option("--repair", is_flag=True, help="Verify the files on disk, and replace wrong ones.")
@click.option(
    "--into",
    metavar="FORMAT",
    help="Convert as it arrives, and store no source: reshard:N, hf or safetensors.",
)
@click.option(
    "--dry-run",
    "--plan",
    "dry_run",
    is_flag=True,
    help="Show files, sizes, what is on disk, and free space.",
)
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
    include: tuple[str, ...],
    repair: bool,
    into: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Fetch models with the link from Meta's email, or from the Hugging Face hub.

    MODEL is a name such as Llama3.1-8B-Instruct or 7B-chat (several: 7B,13B), or all, which means
    the link's family; without one, you choose from a list. The link comes from LLAMAKIT_URL,
    --url-file or a prompt without echo. If the download is stopped, the same command resumes it. A
    file is renamed into place after its MD5 is verified. The exit status is 3 when the link has
    expired.

    hf:OWNER/NAME or hf:OWNER/NAME@REVISION is a repository of the hub, and its original/ folder if
    it has one, unless --include names other files. It needs the extra hub; the token is that of the
    hub's own tools: HF_TOKEN, or what hf auth login has stored.

    --into writes the model as reshard or export would, in DIR/NAME-mpN, DIR/NAME-hf or
    DIR/NAME-safetensors, while it is fetched: the disk needs room for the result only.

    \b
    llamakit download Llama3.1-8B-Instruct --url-file link.txt
    LLAMAKIT_URL='https://...' llamakit download 7B,13B --output-dir models
    llamakit download --repair --url-file link.txt
    llamakit download 70B --into reshard:2 --url-file link.txt
    llamakit download hf:meta-llama/Llama-3.1-8B-Instruct
    """
    settings = DownloadSettings(
        connections=connections,
        retry_policy=RetryPolicy(retries, retry_wait),
        timeout=timeout,
        limit_rate=read_rate(limit_rate) if limit_rate else None,
        repair=repair,
    )
    folder, link = Path(output_dir), {"url": url, "url_file": url_file}
    _check_combination(models, include, into, has_link=bool(url or url_file))
    if _names_repo(models):
        from llamakit.cli.hub_download import run_hub

        run_hub(models[0], folder, settings, include, dry_run=dry_run, as_json=as_json)
    elif into is not None:
        from llamakit.cli.into_download import run_into

        run_into(toolkit, models, folder, settings, into, **link, dry_run=dry_run, as_json=as_json)
    else:
        run(toolkit, models, folder, settings, **link, dry_run=dry_run, as_json=as_json)


def _check_combination(
    models: Sequence[str], include: Sequence[str], into: str | None, *, has_link: bool
) -> None:
    """Refuse options of the link with a repository of the hub, and the other way round."""
    if not _names_repo(models):
        if include:
            raise UsageError("--include chooses files of a hub's repository: hf:owner/name")
        return
    if into is not None:
        raise UsageError(
            "--into takes Meta's link, not the hub: download the repository, then convert it"
        )
    if len(models) > 1 or has_link:
        raise UsageError("a repository of the hub is downloaded alone, and without a link")


def _names_repo(models: Sequence[str]) -> bool:
    return any(name.startswith(PREFIX) for name in models)


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
    """Fetch models and show the progress.

    Args:
        names: of models; none: those on disk with --repair, else chosen on the terminal.
        url: the link.
        url_file: the file with the link; ``-`` is standard input.

    Raises:
        LinkExpiredError: the link has expired, and there is no terminal to ask for a new one.
        LlamakitError: whatever ``Download.run`` raises.
    """
    with shown(as_json=as_json) as display:
        catalog = read_catalog(toolkit.models)
        names = names or _names(catalog, folder, repair=settings.repair)
        models = choose(names, catalog, None)  # refuse a wrong name before asking for a link
        text = passed_link(url, url_file)
        if dry_run:
            link = read_checked_link(text) if text is not None else None
            models = choose(names, catalog, link)
            events = Download(models, folder, settings).plan(link)
            show_plan(events, display, about="" if link else "about ", as_json=as_json)
            return
        link = link_if_needed(text, Download(models, folder, settings), display)
        if link is not None:
            models = choose(names, catalog, link)
            fetch(Download(models, folder, settings), link, models, catalog, display)
        display.close()
        if not as_json:
            click.echo(_next_steps(models, folder))


def _names(catalog: Sequence[Model], folder: Path, *, repair: bool) -> list[str]:
    """Return the models to fetch if none is named: those on disk with --repair, else ask."""
    on_disk = [model.name for model in catalog if (folder / model.folder).is_dir()]
    if repair and on_disk:
        return on_disk
    if repair:
        raise UsageError(
            f"--repair needs models on disk, and {folder} has none; pass the folder that contains "
            "their folders with --output-dir"
        )
    listed = [model for model in catalog if model.hosts]
    if not is_interactive():
        raise UsageError(
            f"which models? Name them: llamakit download NAME, or all. The catalog has "
            f"{listing(listed)}"
        )
    for model in listed:
        mark = "  (on disk, may be incomplete)" if model.name in on_disk else ""
        click.echo(f"  {model.name:32} {_size(model):>8}{mark}", err=True)
    return [ask("Models (Enter: all of the link's family)", default=ALL, show_default=False)]


def _size(model: Model) -> str:
    return format_nbytes(model.shards * model.shard_nbytes) if model.shard_nbytes else ""


def _next_steps(models: Sequence[Model], folder: Path) -> str:
    import shlex

    first = shlex.quote(str(folder / models[0].folder))
    return f'Everything is there and verified. Next: llamakit generate -m {first} "Hello"'
