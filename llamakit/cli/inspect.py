"""``llamakit inspect``: describes a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from llamakit.cli.number_types import WholeNumber
from llamakit.cli.user_path import UserPath
from llamakit.errors import LlamakitError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from llamakit.examine.inspect import Inspection


@click.command()
@click.argument("path", required=False, type=UserPath())
@click.option("--tensors", is_flag=True, help="List the parameters as well.")
@click.option(
    "--history", is_flag=True, help="Show what it was made from, by which commands, instead."
)
@click.option(
    "--max-seq-len",
    metavar="N",
    type=WholeNumber(min=1),
    help="Length of the KV cache, in tokens.  [default: the model's context]",
)
@click.option(
    "--max-batch-size",
    metavar="N",
    type=WholeNumber(min=1),
    default=1,
    show_default=True,
    help="Number of sequences in the KV cache.",
)
@click.option("--kv-cache", type=click.Choice(["int8"]), help="Count keys and values of 8 bits.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(
    path: str | None,
    *,
    tensors: bool,
    history: bool,
    max_seq_len: int | None,
    max_batch_size: int,
    kv_cache: str | None,
    as_json: bool,
) -> None:
    """Describe the checkpoint at PATH from its indexes alone.

    No weight is read, so the largest model takes no longer than the smallest. Without PATH it is
    the bundled demo model. The exit status is 1 if its parts do not fit together.

    \b
    llamakit inspect llama-2-7b/
    llamakit inspect llama-2-70b/ --max-seq-len 4096 --max-batch-size 8
    llamakit inspect llama-2-70b-mp2/ --history
    """
    from llamakit import demo
    from llamakit.api import inspect as run
    from llamakit.cli.history import describe_history
    from llamakit.cli.terminal import json_text, rendered

    if path is None:
        click.echo("llamakit: no PATH named: using the bundled demo model", err=True)
    inspection = run(
        demo.path() if path is None else path,
        max_seq_len=max_seq_len,
        max_batch_size=max_batch_size,
        kv_cache=kv_cache,
    )
    if as_json:
        click.echo(json_text(inspection.as_json(tensors=tensors, history=history), indent=2))
    elif history:
        click.echo(describe_history(inspection))
    else:
        click.echo(rendered(*_parts(inspection, tensors=tensors)))
    click.get_current_context().exit(0 if inspection.good else 1)


def _parts(inspection: Inspection, *, tensors: bool) -> list[RenderableType]:
    from rich.text import Text

    from llamakit.cli.terminal import grid

    facts = grid("", "")
    facts.show_header = False
    for name, value in _facts(inspection):
        facts.add_row(Text(name, style="bold"), Text(value))
    parts: list[RenderableType] = [facts, "", *_memory(inspection)]
    if inspection.oddities or inspection.faults:
        parts.append("")
    parts += [Text(f"odd: {sentence}", style="yellow") for sentence in inspection.oddities]
    parts += [Text(f"wrong: {sentence}", style="red") for sentence in inspection.faults]
    return [*parts, *(["", _tensors(inspection)] if tensors else [])]


def _facts(inspection: Inspection) -> Iterator[tuple[str, str]]:
    params = inspection.params
    files = (
        ""
        if inspection.shards is None
        else f", {inspection.shards} {_plural('file', inspection.shards)}"
    )
    yield "path", str(inspection.path)
    yield "format", f"{inspection.form}{files}"
    yield "generation", inspection.generation
    yield "parameters", f"{inspection.numel:,}"
    yield "dtype", ", ".join(inspection.dtypes)
    yield "layers", str(params.n_layers)
    yield "width", f"{params.dim}, feed-forward {params.hidden_dim}"
    yield (
        "heads",
        f"{params.n_heads} of width {inspection.head_dim}, {params.n_kv_heads} for keys and values",
    )
    yield "vocabulary", f"{params.vocab_size}{_tokenizer(inspection)}"
    if inspection.embedding_axis is not None:
        yield "embedding", f"sharded on axis {inspection.embedding_axis}"
    yield "norm eps", f"{params.norm_eps:g}"
    yield "rope theta", f"{params.rope_theta:g}{_scaling(inspection)}"
    yield "context", f"{params.context} tokens"
    yield "valid sizes", ", ".join(map(str, inspection.legal_sizes))


def _scaling(inspection: Inspection) -> str:
    from llamakit.checkpoint.rope_scaling import scaling_of

    try:
        scaling = scaling_of(inspection.params, inspection.path)
    except LlamakitError:
        return ", scaled"
    return "" if scaling is None else f", {scaling.rope_type} scaling by {scaling.factor:g}"


def _tokenizer(inspection: Inspection) -> str:
    if inspection.tokenizer.size is None:
        return ""
    return f", {inspection.tokenizer.size} tokens in {inspection.tokenizer.path}"


def _memory(inspection: Inspection) -> Iterator[RenderableType]:
    from rich.text import Text

    from llamakit.cli.terminal import format_nbytes, grid

    length, batch = inspection.max_seq_len, inspection.max_batch_size
    yield Text(f"memory per rank, with {batch} × {length} tokens in its KV cache:")
    table = grid("ranks", "weights", "KV cache", "total")
    for row in inspection.memory:
        nbytes = (row.weights, row.kv_cache, row.weights + row.kv_cache)
        table.add_row(str(row.size), *map(format_nbytes, nbytes))
    yield table


def _tensors(inspection: Inspection) -> RenderableType:
    from rich.text import Text

    from llamakit.cli.terminal import grid

    table = grid("parameter", "shape", "dtype", "axis")
    for parameter in inspection.parameters:
        axis = "each rank" if parameter.axis is None else str(parameter.axis)
        shape = " × ".join(map(str, parameter.shape))
        table.add_row(*map(Text, (parameter.name, shape, parameter.dtype, axis)))
    return table


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"
