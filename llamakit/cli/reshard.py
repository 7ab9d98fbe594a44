"""``llamakit reshard``: changes the number of shards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from llamakit.cli.conversion_options import (
    AS_JSON,
    FORCE,
    PLAN,
    VERIFY,
    shard_count_option,
    source_and_destination,
)

if TYPE_CHECKING:
    from llamakit.plugin_manager.toolkit import Toolkit


@click.command()
@source_and_destination
@shard_count_option(required=True)
@PLAN
@VERIFY
@FORCE
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Cast the weights.  [default: keep every byte]",
)
@AS_JSON
@click.pass_obj
def reshard(
    toolkit: Toolkit,
    source: Path,
    destination: Path,
    size: int,
    *,
    only_plan: bool,
    verify: bool,
    force: bool,
    dtype: str | None,
    as_json: bool,
) -> None:
    """Write the checkpoint SRC as N shards at DST.

    DST is written atomically, with params.json, the tokenizer and a checklist.chk. Memory does not
    grow with the model.

    \b
    llamakit reshard llama-2-70b/ llama-2-70b-mp2/ -n 2
    llamakit reshard llama-2-70b/ llama-2-70b-mp2/ -n 2 --plan
    """
    from llamakit.api import plan_reshard
    from llamakit.api import reshard as run
    from llamakit.cli.conversion import describe_report, print_plan, weights_nbytes
    from llamakit.cli.terminal import bytes_bar

    checkpoint = toolkit.open_checkpoint(source)
    if only_plan:
        plan = plan_reshard(checkpoint, destination, size, dtype=dtype, verify=verify)
        print_plan(plan, force=force, as_json=as_json)
    with bytes_bar("resharding", weights_nbytes(checkpoint)) as progress:
        report = run(
            checkpoint,
            destination,
            size,
            dtype=dtype,
            verify=verify,
            force=force,
            progress=progress,
        )
    click.echo(describe_report(report, as_json=as_json))
