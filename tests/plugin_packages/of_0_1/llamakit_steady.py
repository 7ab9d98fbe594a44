"""A plugin as it was written for llamakit 0.1, with what its documentation said to import."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import llamakit
from llamakit import LlamakitError, hookimpl
from llamakit.errors import DialogError, OptionError
from llamakit.protocols import Dialog, LogitsProcessor, PromptFormat, Row, Sampler, Tokenizer

if TYPE_CHECKING:
    import torch
    from llamakit.registry import Registrar

    from llamakit.protocols import CatalogueEntry, Checkpoint, LogitsProcessorFactory


def steady(share: float = 0.5) -> Sampler:
    """Draw from the tokens that are nearly as likely as the likeliest.

    Args:
        share: how likely a token is at least, as a share of the likeliest.
    """
    if not 0 < share <= 1:
        raise ValueError(f"expected a number above 0 and at most 1, got {share}")

    def sample(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:  # (B, V) -> (B,)
        from llamakit.sampling import draw_ids, keep_some

        nothing = logits.new_full(logits.shape, float("-inf"))
        likely = logits.softmax(-1) >= share * logits.softmax(-1).amax(-1, keepdim=True)
        return draw_ids(keep_some(logits.where(likely, nothing), logits).softmax(-1), rows)

    return sample


def unrepeated(penalty: float = 0.1) -> LogitsProcessor:
    """Lower the logits of tokens by how often they occur.

    Args:
        penalty: what each occurrence costs.
    """

    def process(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
        from llamakit.sampling import count_ids

        return logits - penalty * count_ids(logits, rows, prompt=False)

    return process


class Plain:
    """Contents one after another."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.stop_tokens = (tokenizer.eos_id,)

    def encode(self, dialog: Dialog) -> list[int]:
        if not dialog:
            raise DialogError("a dialog has at least one message")
        return self._tokenizer.encode("\n".join(it["content"] for it in dialog), bos=True)


def plain(tokenizer: Tokenizer) -> PromptFormat:
    """Write the contents of a dialog one below another."""
    return Plain(tokenizer)


def export_names(
    checkpoint: Checkpoint, destination: Path, options: dict[str, Any]
) -> dict[str, Any]:
    """Write the names of all parameters into a file."""
    unknown = sorted(set(options) - {"progress"})
    if unknown:
        raise OptionError(f"names has no option {unknown[0]!r}")
    destination.mkdir()
    text = "".join(f"{name}\n" for name in checkpoint.parameters)
    (destination / "names.txt").write_text(text, "utf-8")
    return {"files": [{"name": "names.txt", "nbytes": len(text)}]}


def repeat_last(length: int = 2):
    """Propose the last token again.

    Args:
        length: how many times.
    """
    return lambda tokens: list(tokens[-1:]) * length


@click.command("steady-names")
@click.argument("folder", type=click.Path())
@click.pass_obj
def steady_names(toolkit, folder: str) -> None:
    """Print how many parameters a checkpoint has."""
    checkpoint = llamakit.open_checkpoint(folder)
    if not checkpoint.parameters:
        raise LlamakitError("no parameters")
    click.echo(len(checkpoint.parameters))


MODEL: CatalogueEntry = {"folder": "steady-1b", "shards": 1, "family": "Steady"}


@hookimpl
def register_samplers(samplers: Registrar) -> None:
    samplers.register("steady", steady, help="draw from the likeliest tokens")


@hookimpl
def register_logits_processors(processors: Registrar[LogitsProcessorFactory]) -> None:
    processors.register("unrepeated", unrepeated, help="lower tokens that occur")


@hookimpl
def register_prompt_formats(formats: Registrar) -> None:
    formats.register("plain", plain, help="contents one below another")


@hookimpl
def register_exporters(exporters: Registrar) -> None:
    exporters.register("names", export_names, help="the names of the parameters")


@hookimpl
def register_drafters(drafters: Registrar) -> None:
    drafters.register("repeat-last", repeat_last, help="the last token again")


@hookimpl
def register_models(models: Registrar) -> None:
    models.register("steady-1b", MODEL, help="a model")


@hookimpl
def register_checkpoint_tools(tools: Registrar) -> None:
    tools.register("steady-names", steady_names, help="how many parameters there are")
