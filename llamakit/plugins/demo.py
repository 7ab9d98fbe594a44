"""The command that shows the whole way on the embedded checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from llamakit import hookimpl

if TYPE_CHECKING:
    from llamakit.registry import Registrar

STORY = ["generate", "--echo", "--seed", "1", "--max-new-tokens", "60", "Once upon a time"]
QUESTION = "How do I verify a checkpoint?"


@click.command()
def demo() -> None:
    """Show the whole way on the embedded checkpoint.

    Each step is printed as the command that you would type, and run as just that command.
    """
    click.echo("The embedded checkpoint is a small trained model in Meta's layout, cut 8 ways.")
    step("A completion, on one rank", STORY)
    step("The same on two ranks, which this command launches", [*STORY, *TWO_RANKS])
    step("A chat answer", ["chat", "--temperature", "0"], typed=QUESTION)
    click.echo(
        "\nThat was it. Next: llamakit chat, or with weights of your own\n"
        '  llamakit generate -m llama-2-7b/ "I believe the meaning of life is"'
    )


TWO_RANKS = ["--model-parallel-size", "2"]


def step(title: str, arguments: list[str], typed: str | None = None) -> None:
    """Print a command, then run it as just that.

    Args:
        typed: what its standard input is.
    Raises:
        click.exceptions.Exit: it failed, with its status; it has said why itself.
    """
    import shlex
    import subprocess
    import sys

    command = shlex.join(["llamakit", *arguments])
    if typed is not None:
        command = f"echo {shlex.quote(typed)} | {command}"
    click.secho(f"\n# {title}", fg="cyan")
    click.secho(f"$ {command}", bold=True)
    done = subprocess.run(
        [sys.executable, "-m", "llamakit", *arguments],
        input="" if typed is None else f"{typed}\n",
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        raise click.exceptions.Exit(done.returncode)


@hookimpl
def register_commands(commands: Registrar[click.Command]) -> None:
    """Offer ``demo``."""
    commands.register("demo", demo)
