"""``llamakit moderate``: judges strings and dialogs with a Llama Guard model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamakit.cli.number_types import Number
from llamakit.cli.shared_options import PROMPT_FORMAT, model_options
from llamakit.cli.user_path import jsonl_option
from llamakit.llama.prompts import LineKeys, read_prompts

if TYPE_CHECKING:
    from llamakit.llama.moderation import Moderation
    from llamakit.llama.options import LoadOptions
    from llamakit.llama.prompts import Prompt
    from llamakit.plugin_manager.toolkit import Toolkit
    from llamakit.protocols import Dialog

KEYS = LineKeys("moderate", ("flagged", "score", "categories", "text"))


@click.command()
@click.argument("text", nargs=-1)
@jsonl_option(
    "--prompts",
    help='One a line: {"prompt": "…"} or {"messages": […]}, whose last message is judged, with an '
    '"id" if you like; - is standard input.',
)
@model_options
@PROMPT_FORMAT
@click.option(
    "--threshold",
    type=Number(0, 1),
    default=0.5,
    show_default=True,
    help='From this probability of "unsafe" a string is flagged.',
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a string, a line each.")
@click.pass_obj
def moderate(
    toolkit: Toolkit,
    /,
    text: tuple[str, ...],
    prompts: str | None,
    model: str | None,
    loading: LoadOptions,
    prompt_format: str | None,
    threshold: float,
    as_json: bool,
) -> None:
    """Say whether a string is safe, by a Llama Guard model.

    TEXT is one or several, each a message of the user; - reads one from standard input. A line is
    "safe" or "unsafe", the probability of "unsafe", and the categories that the model names.

    \b
    llamakit moderate -m Llama-Guard-3-1B/ "How do I bake bread?"
    llamakit moderate -m Llama-Guard-3-8B/ --prompts dialogs.jsonl --json
    """
    from llamakit.cli.open_model import open_model
    from llamakit.cli.terminal import json_text, note_unquoted
    from llamakit.llama.moderation import moderations

    note_unquoted(text)
    asked = read_prompts(text, None if prompts is None else Path(prompts), KEYS)
    with open_model(toolkit, model, loading.for_prompts(len(asked))) as llama:
        verdicts = moderations(llama, [_dialog(prompt) for prompt in asked], prompt_format)
        for prompt, verdict in zip(asked, verdicts, strict=True):
            result = _as_dict(prompt, verdict, threshold)
            click.echo(json_text(result) if as_json else _line(result))


def _dialog(prompt: Prompt) -> Dialog:
    if prompt.dialog is not None:
        return prompt.dialog
    return [{"role": "user", "content": prompt.text or ""}]


def _as_dict(prompt: Prompt, verdict: Moderation, threshold: float) -> dict[str, Any]:
    return {
        **prompt.named,
        "flagged": verdict.score >= threshold,
        "score": verdict.score,
        "categories": list(verdict.categories),
        "text": verdict.text,
    }


def _line(result: dict[str, Any]) -> str:
    word = "unsafe" if result["flagged"] else "safe"
    return " ".join([word, f"{result['score']:.4f}", *result["categories"]])
