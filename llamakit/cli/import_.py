"""``llamakit import``: writes a Hugging Face checkpoint in Meta's format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from llamakit.cli.number_types import WholeNumber

if TYPE_CHECKING:
    from llamakit.plugin_manager.toolkit import Toolkit


@click.command("import")
@click.argument("source", metavar="SRC", type=click.Path(path_type=Path))
@click.argument("destination", metavar="DST", type=click.Path(path_type=Path))
@click.option(
    "-n",
    "--model-parallel-size",
    "size",
    metavar="N",
    type=WholeNumber(min=1),
    default=1,
    show_default=True,
    help="How many shards to write.",
)
@click.option("--force", is_flag=True, help="Replace DST if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def import_(
    toolkit: Toolkit, source: Path, destination: Path, size: int, *, force: bool, as_json: bool
) -> None:
    """Write the Hugging Face folder SRC as N shards in Meta's format at DST.

    DST is written atomically, with a params.json that Meta's reference code reads.

    \b
    llamakit import llama-2-7b-hf/ llama-2-7b/
    llamakit import llama-2-70b-hf/ llama-2-70b/ -n 8
    """
    from llamakit.api import import_checkpoint
    from llamakit.cli.conversion import describe_report, weights_nbytes
    from llamakit.cli.terminal import bytes_bar

    checkpoint = toolkit.open_checkpoint(source)
    with bytes_bar("importing", weights_nbytes(checkpoint)) as progress:
        report = import_checkpoint(checkpoint, destination, size, force=force, progress=progress)
    click.echo(describe_report(report, as_json=as_json))
