"""``llamakit serve``: a model on the network and in the browser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamakit.cli.open_model import open_model, tokenizer_for_sampling
from llamakit.cli.options import draft_option, model_options, sampling_options
from llamakit.cli.terminal import note
from llamakit.errors import MissingExtraError
from llamakit.llama.drafters import choose_drafter
from llamakit.llama.sampler_choice import choose_sampling
from llamakit.serve.access import allowed_hosts, check_auth, read_keys

if TYPE_CHECKING:
    from llamakit.plugin_manager.toolkit import Toolkit

SLOTS = 8


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
    run(toolkit, **arguments)


def run(
    toolkit: Toolkit,
    *,
    model: str | None,
    loading: dict[str, Any],
    sampling: dict[str, Any],
    max_new_tokens: int | None,
    prompt_format: str,
    seed: int | None,
    draft: str | None,
    host: str,
    port: int,
    slots: int | None,
    model_name: str | None,
    api_key_file: str | None,
    no_auth: bool,
    hosts: Sequence[str],
    origins: Sequence[str],
    queue: int,
    max_choices: int,
    max_answer: int | None,
    max_body: int,
    timeout: float,
    arrival: float,
    connections: int,
    grace: float,
    json_log: bool,
    log_prompts: bool,
) -> None:
    """Serve a model until SIGTERM or Ctrl-C. Arguments as the command's options.

    Raises:
        UsageError: the extra ``serve`` is not installed, a key is missing, or the address is
            taken.
    """
    host = host.removeprefix("[").removesuffix("]")  # as in a URL
    keys = read_keys(api_key_file)
    check_auth(host, keys, no_auth=no_auth)
    check_extra()
    from llamakit.serve import server
    from llamakit.serve.server_settings import Limits, ServeSettings

    listener = server.listen(host, port)
    words = tokenizer_for_sampling(
        toolkit,
        model,
        loading["tokenizer"],
        sampler=sampling["sampler"],
        processors=sampling["processors"],
    )
    choose_sampling(toolkit=toolkit, tokenizer=words, **sampling)  # refuse before loading
    if draft is not None:
        choose_drafter(draft, toolkit=toolkit)
    loading["max_batch_size"] = slots or loading["max_batch_size"] or SLOTS
    settings = ServeSettings(
        host=host,
        port=port,
        model_name=model_name or _name(model),
        keys=() if no_auth else keys,
        origins=tuple(origins),
        hosts=allowed_hosts(host, hosts),
        grace=grace,
        sampling=sampling,
        prompt_format=prompt_format,
        new_tokens=max_new_tokens,
        seed=seed,
        json_log=json_log,
        log_prompts=log_prompts,
        limits=Limits(
            body=max_body,
            choices=max_choices,
            new_tokens=max_answer,
            seconds=timeout,
            waiting=queue,
            connections=connections,
            arrival=arrival,
        ),
    )
    with open_model(toolkit, model, **loading) as llama:
        llama.prompt_format(prompt_format)  # refuse a wrong one now
        if draft is not None:
            settings = replace(settings, drafter=llama.drafter(draft))
        server.Server(llama, settings, listener).run(lambda url: note(f"serving at {url}"))


def check_extra() -> None:
    """Refuse to go on without the packages of the extra.

    Raises:
        MissingExtraError: one is missing.
    """
    try:
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("llamakit serve", error.name, "serve") from error


def _name(model: str | None) -> str:
    from llamakit import demo

    return (demo.path() if model is None else Path(model)).resolve().name
