"""The command that serves a model on the network and in the browser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from llamakit import hookimpl
from llamakit.options import draft_option, model_options, sampling_options

if TYPE_CHECKING:
    from llamakit.registry import Registrar
    from llamakit.toolkit import Toolkit


@click.command()
@model_options
@sampling_options
@draft_option
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Where to listen; any address but this machine's own needs a key.",
)
@click.option(
    "--port",
    metavar="N",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="The port; 0 takes any that is free.",
)
@click.option(
    "--slots",
    metavar="N",
    type=click.IntRange(min=1),
    help="How many answers are written at the same time; each has memory for --max-seq-len "
    "tokens. The same as --max-batch-size.  [default: 8]",
)
@click.option("--model-name", metavar="NAME", help="What clients call it.  [default: its folder]")
@click.option(
    "--api-key-file",
    metavar="FILE",
    type=click.Path(),
    help="Ask for a key; the file holds one a line. LLAMAKIT_API_KEY holds a single one.",
)
@click.option("--no-auth", is_flag=True, help="Ask for no key, whatever the address.")
@click.option(
    "--allowed-host",
    "hosts",
    metavar="NAME",
    multiple=True,
    help="A further name that requests may give the server.",
)
@click.option(
    "--cors-origin",
    "origins",
    metavar="URL",
    multiple=True,
    help="Let web pages of this origin ask.  [default: none]",
)
@click.option(
    "--queue",
    metavar="N",
    type=click.IntRange(min=0),
    default=64,
    show_default=True,
    help="How many answers may wait for a slot; further requests are answered 429.",
)
@click.option(
    "--max-choices",
    metavar="N",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="How many answers one request may ask for: prompts times n.",
)
@click.option(
    "--max-answer",
    metavar="N",
    type=click.IntRange(min=1),
    help="How many tokens an answer may have, whatever a request says.  [default: the context]",
)
@click.option(
    "--max-body",
    metavar="BYTES",
    type=click.IntRange(min=1),
    default=1 << 20,
    show_default=True,
    help="How long a request may be.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=600.0,
    show_default=True,
    help="How long an answer may take, waiting included.",
)
@click.option(
    "--arrival",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=20.0,
    show_default=True,
    help="How long a request may take to arrive.",
)
@click.option(
    "--connections",
    metavar="N",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="How many connections may be open.",
)
@click.option(
    "--grace",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="How long SIGTERM and Ctrl-C let answers go on.",
)
@click.option("--json-log", is_flag=True, help="Log one JSON object a request.")
@click.option("--log-prompts", is_flag=True, help="Log what is asked and answered as well.")
@click.pass_obj
def serve(toolkit: Toolkit, /, **arguments: Any) -> None:
    """Serve a model to OpenAI's clients and to a browser.

    Without -m the embedded model answers. The API is at /v1, a page to chat at /. One line a
    request goes to standard error; Ctrl-C ends the server.

    \b
    llamakit serve
    llamakit serve -m llama-2-7b-chat/ --slots 16 --max-seq-len 4096
    LLAMAKIT_API_KEY=… llamakit serve -m llama-2-7b-chat/ --host 0.0.0.0
    """
    from llamakit.serving import run

    run(toolkit, **arguments)


@hookimpl
def register_commands(commands: Registrar[click.Command]) -> None:
    """Offer ``serve``."""
    commands.register("serve", serve)
