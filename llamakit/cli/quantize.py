"""``llamakit quantize``: rounds the weights once, for all later starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from llamakit.cli.conversion_options import AS_JSON, FORCE, PLAN, source_and_destination

if TYPE_CHECKING:
    from llamakit.plugin_manager.toolkit import Toolkit


@click.command()
@source_and_destination
@click.option(
    "--bits",
    type=click.Choice(["int8", "int4"]),
    required=True,
    help="As --quantize of generate, chat and serve.",
)
@PLAN
@FORCE
@AS_JSON
@click.pass_obj
def quantize(
    toolkit: Toolkit,
    source: Path,
    destination: Path,
    *,
    bits: str,
    only_plan: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write the weights of SRC in 8 or 4 bits at DST, from which models start at once.

    What runs from DST, on any number of ranks, computes as SRC does with --quantize. DST is written
    atomically, with params.json, the tokenizer and a checklist.chk. Memory does not grow with the
    model.

    \b
    llamakit quantize llama-2-70b/ llama-2-70b-int8/ --bits int8
    llamakit generate -m llama-2-70b-int8/ --model-parallel-size 2 "The sky"
    """
    from llamakit.api import plan_quantize
    from llamakit.api import quantize as run
    from llamakit.cli.conversion import describe_report, print_plan, weights_nbytes
    from llamakit.cli.terminal import bytes_bar

    checkpoint = toolkit.open_checkpoint(source)
    if only_plan:
        print_plan(plan_quantize(checkpoint, destination, bits), force=force, as_json=as_json)
    with bytes_bar("quantizing", weights_nbytes(checkpoint)) as progress:
        report = run(checkpoint, destination, bits, force=force, progress=progress)
    click.echo(describe_report(report, as_json=as_json))
