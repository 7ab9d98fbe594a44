"""The commands ``merge-lora`` and ``merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from llamakit.cli.user_path import UserPath
from llamakit_merge.output import destination_argument, make_output, output_options, write

PATH = UserPath(path_type=Path)


@click.command("merge-lora")
@click.argument("source", metavar="SRC", type=PATH)
@click.argument("adapters", metavar="ADAPTER...", type=PATH, nargs=-1, required=True)
@destination_argument
@click.option(
    "--weight",
    "weights",
    metavar="W",
    type=float,
    multiple=True,
    help="How much an adapter counts; once for each.  [default: 1]",
)
@click.option(
    "--alpha",
    metavar="A",
    type=float,
    help="LoRA's alpha, for an adapter_0.pt without adapter_config.json.",
)
@output_options
def merge_lora(
    source: Path,
    adapters: tuple[Path, ...],
    destination: Path,
    weights: tuple[float, ...],
    alpha: float | None,
    **options: Any,
) -> None:
    """Merge each LoRA ADAPTER into the checkpoint SRC, and write the result at DST.

    An ADAPTER is a folder that PEFT or torchtune saved: adapter_config.json and
    adapter_model.safetensors, or its file of weights. LoRA, rsLoRA and DoRA are merged. Memory does
    not grow with the model.

    \b
    llamakit merge-lora llama-2-7b/ my-adapter/ llama-2-7b-mine/
    llamakit merge-lora llama-2-7b/ my-adapter/ llama-2-7b-mine-hf/ --format hf
    """  # noqa: D301 - Click's mark
    recorded = {"adapters": [path.name for path in adapters], "weights": list(weights) or None}
    output = make_output(destination, **options, recorded=recorded)
    from llamakit_merge.api import merge_lora as run

    merged = run(source, *adapters, weights=weights or None, alpha=alpha)
    facts = {"changed": len(merged.changed), "parameters": len(merged.parameters)}
    write(merged, output, "merging", facts)


@click.command()
@click.argument("config", metavar="CONFIG", type=PATH)
@destination_argument
@output_options
def merge(config: Path, destination: Path, **options: Any) -> None:
    """Merge the models that CONFIG names, and write the result at DST.

    CONFIG is mergekit's YAML: linear, slerp, task_arithmetic, ties and passthrough, with models or
    slices. Models may be in different formats. Memory does not grow with the models.

    \b
    llamakit merge ties.yml llama-2-7b-merged/ -n 2
    llamakit merge ties.yml llama-2-7b-merged-hf/ --format hf
    """  # noqa: D301 - Click's mark
    output = make_output(destination, **options, recorded={"config": config.name})
    from llamakit_merge.api import merge as run

    merged = run(config)
    facts = {"merge_method": merged.method.name, "models": len(merged.sources)}
    write(merged, output, "merging", facts)
