"""``llamakit embed``: one embedding, a vector, of each string."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from llamakit.cli.shared_options import model_options
from llamakit.cli.user_path import jsonl_option
from llamakit.llama.embedding import POOLINGS
from llamakit.llama.prompts import LineKeys, read_prompts

if TYPE_CHECKING:
    from llamakit.llama.options import LoadOptions
    from llamakit.plugin_manager.toolkit import Toolkit

KEYS = LineKeys("embed", ("index", "embedding"))


@click.command()
@click.argument("text", nargs=-1)
@jsonl_option(
    "--prompts",
    help='One a line: {"prompt": "…"}, with an "id" if you like, or a JSON string; - is standard '
    "input.",
)
@model_options
@click.option(
    "--pooling",
    type=click.Choice(POOLINGS),
    default="mean",
    show_default=True,
    help="The mean of all tokens' last hidden states, or the last token's.",
)
@click.pass_obj
def embed(
    toolkit: Toolkit,
    /,
    text: tuple[str, ...],
    prompts: str | None,
    model: str | None,
    loading: LoadOptions,
    pooling: str,
) -> None:
    """Compute the embedding of each string, a vector of unit length.

    TEXT is one or several; - reads one from standard input. Each is a JSON object on a line, with
    its "embedding".

    \b
    llamakit embed -m llama-2-7b/ "A llama." "An alpaca."
    llamakit embed -m llama-2-7b/ --prompts strings.jsonl > vectors.jsonl
    """
    from llamakit.cli.open_model import open_model
    from llamakit.cli.terminal import json_text, note_unquoted
    from llamakit.errors import UsageError
    from llamakit.llama.embedding import embeddings

    note_unquoted(text)
    asked = read_prompts(text, None if prompts is None else Path(prompts), KEYS)
    for number, prompt in enumerate(asked, start=1):
        if prompt.text is None:
            raise UsageError(
                f"prompt {number} is a dialog, and a text is embedded as it is: pass it as "
                '{"prompt": "…"}'
            )
    with open_model(toolkit, model, loading.for_prompts(len(asked))) as llama:
        vectors = embeddings(llama, [prompt.text or "" for prompt in asked], pooling)
        for index, (prompt, vector) in enumerate(zip(asked, vectors, strict=True)):
            click.echo(json_text({"index": index, **prompt.named, "embedding": vector}))
