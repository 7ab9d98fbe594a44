"""The command ``merge-lora``: a checkpoint and a LoRA adapter become one checkpoint."""

import click

import llamakit
from llamakit import hookimpl


@click.command("merge-lora")
@click.argument("source", metavar="SRC")
@click.argument("adapter", metavar="ADAPTER")
@click.argument("destination", metavar="DST")
@click.option(
    "-n",
    "--model-parallel-size",
    "size",
    metavar="N",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many shards to make.",
)
@click.option("--force", is_flag=True, help="Replace DST if it exists.")
def merge_lora(source, adapter, destination, size, force):
    """Add the LoRA ADAPTER to the checkpoint SRC, and write the result at DST.

    ADAPTER is a folder that PEFT saved: adapter_config.json and adapter_model.safetensors. The
    result is a checkpoint in Meta's format like any other. Memory does not grow with the model.
    """
    from llamakit_merge.merge import merge

    merged = merge(llamakit.open_checkpoint(source), adapter)
    report = llamakit.reshard(merged, destination, size, force=force)
    click.echo(f"changed {len(merged.changed)} of {len(merged.parameters)} parameters")
    click.echo(f"made {report['destination']}: {report['nbytes']:,} bytes")


@hookimpl
def register_checkpoint_tools(tools):
    """Offer ``merge-lora``."""
    tools.register("merge-lora", merge_lora, help="Merge a LoRA adapter into a checkpoint.")
