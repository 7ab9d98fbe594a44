"""The command that shows the whole way on the embedded checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pathlib import Path


STORY = ("--echo", "--temperature", "0", "--max-new-tokens", "60", "Once upon a time")
QUESTION = "How do I verify a checkpoint?"


@click.command()
def demo() -> None:
    """Show the whole way on the embedded checkpoint.

    Each step is printed as the command that you would type, and run as just that command, in a
    temporary folder.
    """
    import tempfile
    from pathlib import Path

    from llamakit import demo
    from llamakit.demo.server import served

    model = demo.NAME
    with (
        tempfile.TemporaryDirectory(prefix="llamakit-demo-") as name,
        served(demo.path().parent) as link,
    ):
        folder = Path(name)
        title = "The embedded checkpoint, from a server on this machine"
        step(folder, title, "download", "demo", link=link)
        step(folder, "What it is", "inspect", model)
        step(folder, "Are all its files as they should be?", "verify", model)
        title = "A completion of its 8 shards, on one rank"
        story = step(folder, title, "generate", "-m", model, *STORY)
        step(folder, "The same model as 2 shards", "reshard", model, "two", "-n", "2")
        ranks = ("-m", "two", "--model-parallel-size", "2")
        two = step(folder, "Their completion, on two ranks", "generate", *ranks, *STORY)
        step(folder, "The same model in Hugging Face's form", "export", model, "hf")
        hf = step(folder, "Its completion", "generate", "-m", "hf", *STORY)
        if not story == two == hf:
            raise click.ClickException("the three completions differ: please report this")
        click.echo("\nAll three answer alike.")
        step(folder, "A chat answer", "chat", "-m", model, "--temperature", "0", typed=QUESTION)
    click.echo(
        "\nThat was it. Next: llamakit chat, or with weights of your own\n"
        '  llamakit generate -m llama-2-7b/ "I believe the meaning of life is"'
    )


def step(
    folder: Path, title: str, *words: str, typed: str | None = None, link: str | None = None
) -> str:
    """Print a command, run it as just that, and print its answer.

    Args:
        folder: where it runs.
        typed: what its standard input is.
        link: what LLAMAKIT_URL is.
    Returns:
        Its standard output.
    Raises:
        click.exceptions.Exit: it failed, with its status; it has said why itself.
    """
    import os
    import shlex
    import subprocess
    import sys

    command = shlex.join(["llamakit", *words])
    if typed is not None:
        command = f"echo {shlex.quote(typed)} | {command}"
    if link is not None:
        command = f"LLAMAKIT_URL={shlex.quote(link)} {command}"
    click.secho(f"\n# {title}", fg="cyan")
    click.secho(f"$ {command}", bold=True)
    done = subprocess.run(
        [sys.executable, "-m", "llamakit", *words],
        cwd=folder,
        env=os.environ if link is None else {**os.environ, "LLAMAKIT_URL": link},
        input="" if typed is None else f"{typed}\n",
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=False,
    )
    click.echo(done.stdout, nl=False)
    if done.returncode:
        raise click.exceptions.Exit(done.returncode)
    return done.stdout
