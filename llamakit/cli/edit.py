"""``llamakit edit``: changes dtypes, names, layers or the vocabulary."""

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
from llamakit.cli.number_types import WholeNumber

if TYPE_CHECKING:
    from llamakit.plugin_manager.toolkit import Toolkit


@click.command()
@source_and_destination
@shard_count_option(help="How many shards to write.  [default: as many as SRC has]")
@click.option(
    "--keep", metavar="PATTERN", multiple=True, help="Keep these parameters only; may be repeated."
)
@click.option("--drop", metavar="PATTERN", multiple=True, help="Leave these out; may be repeated.")
@click.option(
    "--rename",
    metavar="OLD=NEW",
    multiple=True,
    help="Rename; a * in NEW is what that wildcard of OLD matched. May be repeated.",
)
@click.option(
    "--dtype",
    metavar="[PATTERN=]DTYPE",
    multiple=True,
    help="Cast to float32, bfloat16 or float16; may be repeated, the last that matches counts.",
)
@click.option(
    "--vocab-size",
    metavar="N",
    type=WholeNumber(min=1),
    help="Give the embedding and the output layer N rows.",
)
@click.option(
    "--pad-vocab-to-multiple",
    metavar="M",
    type=WholeNumber(min=1),
    help="Add rows until their number is a multiple of M.",
)
@click.option(
    "--init",
    metavar="INIT",
    default="mean",
    show_default=True,
    help="New rows: mean (of the others), zero, or normal:STD:SEED.",
)
@click.option("--partial", is_flag=True, help="Write what is left even if it is no complete model.")
@PLAN
@VERIFY
@FORCE
@AS_JSON
@click.pass_obj
def edit(
    toolkit: Toolkit,
    /,
    source: Path,
    destination: Path,
    size: int | None,
    *,
    keep: tuple[str, ...],
    drop: tuple[str, ...],
    rename: tuple[str, ...],
    dtype: tuple[str, ...],
    vocab_size: int | None,
    pad_vocab_to_multiple: int | None,
    init: str,
    partial: bool,
    only_plan: bool,
    verify: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write the checkpoint SRC, of any format, with changes at DST, in Meta's format.

    A PATTERN matches the names that llamakit inspect --tensors SRC lists, as a whole: * is any
    characters, ? one, [ab] one of these, {8..15} a number from 8 to 15. What matches nothing is an
    error. Where whole layers are left out, the others are numbered from 0. DST is written
    atomically, and memory does not grow with the model.

    \b
    llamakit edit llama-2-7b/ out/ --dtype float16 --dtype '*norm.weight=float32'
    llamakit edit llama-2-7b/ out/ --drop 'layers.{24..31}.*'
    llamakit edit llama-2-7b/ out/ -n 8 --vocab-size 32003 --pad-vocab-to-multiple 64
    """
    from llamakit.api import Edits, plan_edit
    from llamakit.api import edit as run
    from llamakit.cli.conversion import describe_report, print_plan, weights_nbytes
    from llamakit.cli.terminal import bytes_bar

    edits = Edits(
        keep,
        drop,
        _pairs(rename, "--rename"),
        _casts(dtype),
        vocab_size,
        pad_vocab_to_multiple,
        init,
        partial,
    )
    checkpoint = toolkit.open_checkpoint(source)
    if only_plan:
        plan = plan_edit(checkpoint, destination, edits, size, verify=verify)
        print_plan(plan, force=force, as_json=as_json)
    with bytes_bar("editing", weights_nbytes(checkpoint)) as progress:
        report = run(
            checkpoint, destination, edits, size, verify=verify, force=force, progress=progress
        )
    click.echo(describe_report(report, as_json=as_json))


def _pairs(texts: tuple[str, ...], option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        old, equals, new = text.partition("=")
        if not (old and equals and new):
            raise click.BadParameter(f"{text!r} is not OLD=NEW", param_hint=option)
        if old in pairs:
            raise click.BadParameter(f"{old!r} is renamed twice", param_hint=option)
        pairs[old] = new
    return pairs


def _casts(texts: tuple[str, ...]) -> dict[str, str]:
    """Read ``PATTERN=DTYPE``, or ``DTYPE`` alone for all; of a pattern the last one counts."""
    casts: dict[str, str] = {}
    for text in texts:
        pattern, equals, dtype = text.rpartition("=")
        if (equals and not pattern) or not dtype:
            raise click.BadParameter(f"{text!r} is not PATTERN=DTYPE", param_hint="--dtype")
        casts.pop(pattern or "*", None)
        casts[pattern or "*"] = dtype
    return casts
