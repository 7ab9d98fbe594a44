"""The command that fetches models with Meta's signed link."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from llamakit import hookimpl

if TYPE_CHECKING:
    from llamakit.registry import Registrar
    from llamakit.toolkit import Toolkit


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
    from pathlib import Path

    from llamakit.download.rate import read_rate
    from llamakit.download.retry import Patience
    from llamakit.download.session import Settings
    from llamakit.downloading import download as run

    settings = Settings(
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


@hookimpl
def register_commands(commands: Registrar[click.Command]) -> None:
    """Offer ``download``."""
    commands.register("download", download, help="Fetch models with the link from Meta's email.")
