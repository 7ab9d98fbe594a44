"""``llamakit embed``: one vector a text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llamakit.cli.shared_options import model_options
from llamakit.cli.user_path import UserPath
from llamakit.llama.embedding import POOLINGS

if TYPE_CHECKING:
    from llamakit.llama.options import LoadOptions
    from llamakit.plugin_manager.toolkit import Toolkit

BATCH = 8
"""Texts that are computed at the same time."""


@click.command()
@click.argument("text", nargs=-1)
@click.option(
    "--prompts",
    type=UserPath(dir_okay=False, allow_dash=True),
    metavar="FILE.jsonl",
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
    """Make a vector of each text, of unit length.

    TEXT is one or several; - reads one from standard input. Each is a JSON object on a line, with
    its "embedding".

    \b
    llamakit embed -m llama-2-7b/ "A llama." "An alpaca."
    llamakit embed -m llama-2-7b/ --prompts texts.jsonl > vectors.jsonl
    """
    from llamakit.cli.open_model import open_model
    from llamakit.cli.terminal import json_text, note_unquoted
    from llamakit.errors import UsageError
    from llamakit.llama.embedding import embed as run
    from llamakit.llama.prompts import read_prompts

    note_unquoted(text)
    asked = read_prompts(text, None if prompts is None else Path(prompts))
    for number, prompt in enumerate(asked, start=1):
        if prompt.text is None:
            raise UsageError(f"prompt {number} is a dialog, and a text is embedded as it is")
    size = loading.max_batch_size or min(len(asked), BATCH)
    with open_model(toolkit, model, replace(loading, max_batch_size=size)) as llama:
        for start in range(0, len(asked), size):
            part = asked[start : start + size]
            vectors = run(llama, [prompt.text or "" for prompt in part], pooling=pooling)
            for index, (prompt, vector) in enumerate(zip(part, vectors, strict=True), start):
                name = {} if prompt.id is None else {"id": prompt.id}
                click.echo(json_text({"index": index, **prompt.more, **name, "embedding": vector}))
