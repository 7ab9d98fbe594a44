"""What ``llamakit serve`` does: from the words of the command to a server that answers."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamakit.console import note, open_model, tokenizer_for_sampling
from llamakit.drafters import choose_drafter
from llamakit.errors import FileFormatError, MissingExtraError, UsageError
from llamakit.sampling import choose_sampling

if TYPE_CHECKING:
    from llamakit.toolkit import Toolkit

SLOTS = 8
SHORTEST_KEY = 8
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


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
    from llamakit.serve.settings import Limits, ServeSettings

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


def read_keys(file: str | None) -> tuple[str, ...]:
    """Return the keys that open the server: the environment's, else those of a file.

    Raises:
        FileFormatError: a line is no key, or there is none.
        UsageError: a key is so short that it can be guessed.
    """
    from_environment = os.environ.get("LLAMAKIT_API_KEY", "").strip()
    keys = [from_environment] if from_environment else []
    where = "LLAMAKIT_API_KEY"
    if file is not None:
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise FileFormatError(f"{file} is not UTF-8 text; expected a key a line") from error
        keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        where = file
        if not keys:
            raise FileFormatError(f"{file} holds no key; expected one a line")
    for key in keys:
        if len(key) < SHORTEST_KEY or not key.isascii() or any(it.isspace() for it in key):
            raise UsageError(
                f"a key in {where} is too short or holds a space or a letter that is not ASCII; "
                f"a key has {SHORTEST_KEY} characters or more, such as those of "
                "`openssl rand -hex 24`"
            )
    return tuple(dict.fromkeys(keys))


def check_auth(host: str, keys: Sequence[str], *, no_auth: bool) -> None:
    """Refuse to let others in without a key.

    Raises:
        UsageError: the address is not this machine's own and there is no key.
    """
    if keys or no_auth or is_loopback(host):
        return
    raise UsageError(
        f"--host {host} lets other machines ask, and there is no key: set LLAMAKIT_API_KEY or "
        "pass --api-key-file FILE (--no-auth lets anybody in)"
    )


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def allowed_hosts(host: str, further: Sequence[str]) -> tuple[str, ...]:
    """Return the names that requests may give the server; none means any.

    Another address than this machine's own is behind a key, and has names that nobody here knows.
    """
    if is_loopback(host):
        own = f"[{host}]" if ":" in host else host
        return tuple(dict.fromkeys((*LOOPBACK_NAMES, own, *further)))
    return tuple(further)


def _name(model: str | None) -> str:
    from llamakit import demo

    return (demo.path() if model is None else Path(model)).resolve().name
