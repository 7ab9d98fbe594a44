"""``llamakit demo``: runs the main commands on the bundled demo model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pathlib import Path


STORY = ("--echo", "--temperature", "0", "--max-new-tokens", "60", "Once upon a time")
QUESTION = "How do I verify a checkpoint?"


@click.command()
def demo() -> None:
    """Run the main commands on the bundled demo model, from download to chat.

    Each step is printed as the command that you would type, and run as that command, in a
    temporary folder.
    """
    import tempfile
    from pathlib import Path

    from llamakit import demo
    from llamakit.demo.download_server import served

    model = demo.NAME
    with (
        tempfile.TemporaryDirectory(prefix="llamakit-demo-") as name,
        served(demo.path().parent) as link,
    ):
        folder = Path(name)
        title = "Download the bundled demo model from a server on this machine"
        step(folder, title, "download", "demo", link=link)
        step(folder, "Inspect it", "inspect", model)
        step(folder, "Verify its files", "verify", model)
        title = "Complete a prompt with its 8 shards, on one rank"
        story = step(folder, title, "generate", "-m", model, *STORY)
        step(folder, "Reshard it to 2 shards", "reshard", model, "two", "-n", "2")
        ranks = ("-m", "two", "--model-parallel-size", "2")
        two = step(folder, "Complete the prompt on two ranks", "generate", *ranks, *STORY)
        step(folder, "Export it to Hugging Face's format", "export", model, "hf")
        hf = step(
            folder, "Complete the prompt with the exported model", "generate", "-m", "hf", *STORY
        )
        if not story == two == hf:
            raise click.ClickException("the three completions differ: please report this")
        click.echo("\nThe three completions are the same.")
        step(
            folder,
            "Ask a question in a chat",
            "chat",
            "-m",
            model,
            "--temperature",
            "0",
            typed=QUESTION,
        )
    click.echo(
        "\nDone. Next: llamakit chat, or with your own weights\n"
        '  llamakit generate -m llama-2-7b/ "I believe the meaning of life is"'
    )


def step(
    folder: Path, title: str, *arguments: str, typed: str | None = None, link: str | None = None
) -> str:
    """Print a command, run it, and print its output.

    Args:
        folder: where it runs.
        arguments: after ``llamakit``.
        typed: its standard input.
        link: the value of LLAMAKIT_URL.
    Returns:
        Its standard output.
    Raises:
        click.exceptions.Exit: it failed, with its status; it has printed why itself.
    """
    import os
    import shlex
    import subprocess
    import sys

    command = shlex.join(["llamakit", *arguments])
    if typed is not None:
        command = f"echo {shlex.quote(typed)} | {command}"
    if link is not None:
        command = f"LLAMAKIT_URL={shlex.quote(link)} {command}"
    click.secho(f"\n# {title}", fg="cyan")
    click.secho(f"$ {command}", bold=True)
    encoding: str = getattr(sys.stdout, "encoding", None) or "utf-8"  # in which it is printed again
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(
        [sys.executable, "-m", "llamakit", *arguments],
        cwd=folder,
        env=environment if link is None else {**environment, "LLAMAKIT_URL": link},
        input="" if typed is None else f"{typed}\n",
        stdout=subprocess.PIPE,
        encoding=encoding,
        check=False,
    )
    click.echo(done.stdout, nl=False)
    if done.returncode:
        raise click.exceptions.Exit(done.returncode)
    return done.stdout
