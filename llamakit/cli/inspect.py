"""The command that says what a checkpoint is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from llamakit.examine.inspect import Inspection
    from llamakit.plugin_manager.toolkit import Toolkit


@click.command()
@click.argument("path", required=False, type=click.Path())
@click.option("--tensors", is_flag=True, help="List the parameters too.")
@click.option(
    "--max-seq-len",
    metavar="N",
    type=click.IntRange(min=1),
    help="Tokens that the KV cache is to hold.  [default: what the model was made for]",
)
@click.option(
    "--max-batch-size",
    metavar="N",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Sequences that the KV cache is to hold.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def inspect(
    toolkit: Toolkit,
    path: str | None,
    *,
    tensors: bool,
    max_seq_len: int | None,
    max_batch_size: int,
    as_json: bool,
) -> None:
    """Say what the checkpoint at PATH is, from its indexes alone.

    No weight is read, so the largest model takes no longer than the smallest. Without PATH it is
    the embedded model. The exit status is 1 if its parts do not fit together.

    \b
    llamakit inspect llama-2-7b/
    llamakit inspect llama-2-70b/ --max-seq-len 4096 --max-batch-size 8
    """
    from llamakit import demo
    from llamakit.cli.terminal import rendered
    from llamakit.examine.inspect import inspect as run

    if path is None:
        click.echo("llamakit: no PATH named: the embedded demonstration model", err=True)
    found = run(
        demo.path() if path is None else Path(path),
        toolkit,
        max_seq_len=max_seq_len,
        max_batch_size=max_batch_size,
    )
    if as_json:
        import json

        click.echo(json.dumps(found.as_json(tensors=tensors), indent=2, ensure_ascii=False))
    else:
        click.echo(rendered(*_parts(found, tensors=tensors)))
    click.get_current_context().exit(0 if found.good else 1)


def _parts(found: Inspection, *, tensors: bool) -> list[RenderableType]:
    from rich.text import Text

    from llamakit.cli.terminal import grid

    facts = grid("", "")
    facts.show_header = False
    for name, value in _facts(found):
        facts.add_row(Text(name, style="bold"), Text(value))
    parts: list[RenderableType] = [facts, "", *_memory(found)]
    if found.oddities or found.faults:
        parts.append("")
    parts += [Text(f"odd: {sentence}", style="yellow") for sentence in found.oddities]
    parts += [Text(f"wrong: {sentence}", style="red") for sentence in found.faults]
    return [*parts, *(["", _tensors(found)] if tensors else [])]


def _facts(found: Inspection) -> Iterator[tuple[str, str]]:
    params = found.params
    files = "" if found.shards is None else f", {found.shards} {_plural('file', found.shards)}"
    yield "path", str(found.path)
    yield "form", f"{found.form}{files}"
    yield "generation", found.generation
    yield "parameters", f"{found.numel:,}"
    yield "dtype", ", ".join(found.dtypes)
    yield "layers", str(params.n_layers)
    yield "width", f"{params.dim}, feed-forward {params.hidden_dim}"
    yield (
        "heads",
        f"{params.n_heads} of width {found.head_dim}, {params.n_kv_heads} for keys and values",
    )
    yield "vocabulary", f"{params.vocab_size}{_tokenizer(found)}"
    if found.embedding_axis is not None:
        yield "embedding", f"cut on axis {found.embedding_axis}"
    yield "norm eps", f"{params.norm_eps:g}"
    yield "rope theta", f"{params.rope_theta:g}{', scaled' if params.use_scaled_rope else ''}"
    yield "context", f"{params.context} tokens"
    yield "legal sizes", ", ".join(map(str, found.legal_sizes))


def _tokenizer(found: Inspection) -> str:
    if found.tokenizer.size is None:
        return ""
    return f", {found.tokenizer.size} ids in {found.tokenizer.path}"


def _memory(found: Inspection) -> Iterator[RenderableType]:
    from rich.text import Text

    from llamakit.cli.terminal import grid, sized

    length, batch = found.max_seq_len, found.max_batch_size
    yield Text(f"memory of a rank, with {batch} × {length} tokens in its KV cache:")
    table = grid("ranks", "weights", "KV cache", "together")
    for row in found.memory:
        nbytes = (row.weights, row.kv_cache, row.weights + row.kv_cache)
        table.add_row(str(row.size), *map(sized, nbytes))
    yield table


def _tensors(found: Inspection) -> RenderableType:
    from rich.text import Text

    from llamakit.cli.terminal import grid

    table = grid("parameter", "shape", "dtype", "axis")
    for it in found.parameters:
        axis = "each rank" if it.axis is None else str(it.axis)
        table.add_row(*map(Text, (it.name, " × ".join(map(str, it.shape)), it.dtype, axis)))
    return table


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"
