"""``llamakit export``: writes a checkpoint in another format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamakit.cli.conversion_options import AS_JSON, FORCE, PLAN, source_and_destination
from llamakit.cli.name_option import NameOption
from llamakit.cli.user_path import UserPath

if TYPE_CHECKING:
    from llamakit.plugin_manager.toolkit import Toolkit


@click.command()
@source_and_destination
@click.option(
    "--format",
    "format_name",
    cls=NameOption,
    registry="exporters",
    metavar="NAME",
    help="The format to write.  [default: hf]",
)
@click.option(
    "--for",
    "engine",
    cls=NameOption,
    registry="engines",
    metavar="NAME",
    help="Write what an engine starts from, and say the command.",
)
@click.option("--max-shard-size", metavar="SIZE", help="For hf: the largest file, such as 5GB.")
@click.option(
    "--tokenizer",
    metavar="FILE",
    type=UserPath(exists=True, dir_okay=False),
    help="For hf: its tokenizer.  [default: the one in SRC or next to it]",
)
@click.option(
    "--instruct/--base",
    default=None,
    help="For hf: trained on dialogs or not.  [default: by SRC's chat template, or its name]",
)
@click.option(
    "--quantize",
    type=click.Choice(["int8", "int8-weight-only"]),
    help="For hf: round weights (int8: activations too, as they are multiplied), in the layout of "
    "compressed-tensors.  [default: keep them]",
)
@click.option(
    "--option", "more", metavar="K=V", multiple=True, help="An option of a plugin's exporter."
)
@PLAN
@FORCE
@AS_JSON
@click.pass_obj
def export(
    toolkit: Toolkit,
    /,
    source: Path,
    destination: Path,
    format_name: str | None,
    engine: str | None,
    *,
    more: tuple[str, ...],
    only_plan: bool,
    force: bool,
    as_json: bool,
    **options: str | bool | None,
) -> None:
    """Write the checkpoint SRC in another format at DST: a Hugging Face folder, or a plugin's.

    DST is written atomically. The dtype is kept, without --quantize.

    \b
    llamakit export llama-2-7b/ llama-2-7b-hf/
    llamakit export llama-2-7b/ llama-2-7b-hf/ --plan
    llamakit export llama-2-7b/ llama-2-7b-safetensors/ --format safetensors
    llamakit export llama-2-7b/ llama-2-7b-vllm/ --for vllm
    """
    from llamakit.api import export as run
    from llamakit.api import plan_export
    from llamakit.cli.conversion import describe_report, print_plan, weights_nbytes
    from llamakit.cli.terminal import bytes_bar

    if engine is not None and format_name is not None:
        raise click.UsageError("--for says the format; leave --format out, or --for.")
    # Refuse a wrong name before anything is opened.
    if engine is not None:
        toolkit.engines.entry(engine)
    form = toolkit.exporters.entry(format_name or "hf").name
    checkpoint = toolkit.open_checkpoint(source)
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    given |= dict(map(_pair, more))
    if only_plan:
        plan = plan_export(checkpoint, destination, form, engine=engine, **given)
        print_plan(plan, force=force, as_json=as_json)
    with bytes_bar("exporting", weights_nbytes(checkpoint)) as progress:
        if progress is not None:
            given["progress"] = progress
        report = run(checkpoint, destination, form, engine=engine, force=force, **given)
    click.echo(describe_report(report, as_json=as_json))


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise click.BadParameter(f"{text!r} is not K=V", param_hint="--option")
    return key, value
