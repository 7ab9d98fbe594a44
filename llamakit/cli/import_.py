"""``llamakit import``: writes the weights of other tools in Meta's format."""

from __future__ import annotations

from pathlib import Path

import click

from llamakit.cli.conversion_options import (
    AS_JSON,
    FORCE,
    PLAN,
    shard_count_option,
    source_and_destination,
)


class _Import(click.Command):
    """Takes ``--strip-prefix`` with a prefix, which ends with a dot, and without."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give the option a value of its own where the next word is none."""
        for index, word in enumerate(args):
            if word == "--":
                break
            follower = args[index + 1] if index + 1 < len(args) else ""
            if word == "--strip-prefix" and (not follower.endswith(".") or follower in (".", "..")):
                args[index] = "--strip-prefix="
        return super().parse_args(ctx, args)


@click.command("import", cls=_Import)
@source_and_destination
@shard_count_option(default=1, show_default=True)
@click.option(
    "--key",
    metavar="KEY",
    help="Where the weights are in a training checkpoint, such as model or state_dict.",
)
@click.option(
    "--strip-prefix",
    metavar="[PREFIX.]",
    help="Take PREFIX off the names of tensors; alone: what torch.compile, DDP or FSDP has added.",
)
@PLAN
@FORCE
@AS_JSON
def import_(
    source: Path,
    destination: Path,
    size: int,
    *,
    key: str | None,
    strip_prefix: str | None,
    only_plan: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write the weights at SRC as N shards in Meta's format at DST.

    SRC is a folder of Hugging Face, torchtune or Meta, or a file of weights (.pt, .bin or
    .safetensors) with its config.json or params.json next to it. Pickles are read without running
    anything. DST is written atomically, with a params.json that Meta's reference code reads.

    \b
    llamakit import llama-2-7b-hf/ llama-2-7b/
    llamakit import llama-2-70b-hf/ llama-2-70b/ -n 8
    llamakit import --key model --strip-prefix run/ckpt.pt tuned/
    """
    from llamakit.api import import_checkpoint, open_for_import, plan_import
    from llamakit.cli.conversion import describe_report, print_plan, weights_nbytes
    from llamakit.cli.terminal import bytes_bar

    prefix = True if strip_prefix == "" else strip_prefix or False
    checkpoint = open_for_import(source, key=key, strip_prefix=prefix)
    if only_plan:
        plan = plan_import(checkpoint, destination, size, key=key, strip_prefix=prefix)
        print_plan(plan, force=force, as_json=as_json)
    with bytes_bar("importing", weights_nbytes(checkpoint)) as progress:
        report = import_checkpoint(
            checkpoint,
            destination,
            size,
            key=key,
            strip_prefix=prefix,
            force=force,
            progress=progress,
        )
    click.echo(describe_report(report, as_json=as_json))
