"""The command that continues texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from llamakit import hookimpl
from llamakit.options import draft_option, model_options, sampling_options

if TYPE_CHECKING:
    from llamakit.registry import Registrar
    from llamakit.toolkit import Toolkit


@click.command()
@click.argument("prompt", nargs=-1)
@click.option(
    "--prompts",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="FILE.jsonl",
    help='One prompt a line: {"prompt": "…"} or {"messages": […]}, with an "id" and a "seed" '
    "if you like; - is standard input.",
)
@model_options
@sampling_options
@draft_option
@click.option("--stop", multiple=True, metavar="TEXT", help="End an answer at this text.")
@click.option("--echo", is_flag=True, help="Begin the answer with the prompt.")
@click.option(
    "--logprobs", is_flag=True, help="Log-probability of each id: in --json, else on stderr."
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False),
    metavar="FILE.jsonl",
    help="Append the answers to this file as they end, one JSON object a line; prompts whose "
    "answers it holds are passed over, so the same command goes on where it was stopped.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object an answer, a line each.")
@click.pass_obj
def generate(toolkit: Toolkit, /, as_json: bool, **arguments: Any) -> None:
    """Continue a text.

    PROMPT is one text or several; - reads one from standard input. Without -m the embedded
    model answers. Answers go to standard output, everything else to standard error.

    \b
    llamakit generate "Once upon a time"
    llamakit generate -m llama-2-7b/ --temperature 0 "The capital of France is"
    llamakit generate -m llama-2-13b/ --prompts questions.jsonl --output answers.jsonl
    """
    import json

    from llamakit.completion import complete

    for piece in complete(toolkit, as_json=as_json, **arguments):
        text = json.dumps(piece, ensure_ascii=False) + "\n" if as_json else piece
        click.echo(text, nl=False)


@hookimpl
def register_commands(commands: Registrar[click.Command]) -> None:
    """Offer ``generate``."""
    commands.register("generate", generate)
