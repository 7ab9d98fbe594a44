"""Access rules of the server, read at its start: API keys, addresses and host names."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from llamakit.errors import FileFormatError, UsageError
from llamakit.files.text import as_utf8

SHORTEST_KEY = 8
LARGEST_KEY_FILE = 1 << 20
"""Characters that are read of a file of keys."""
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


def read_keys(file: str | None) -> tuple[str, ...]:
    """Return the API keys of the server: the environment's, else those of a file.

    Raises:
        FileFormatError: the file has no keys or is not text.
        UsageError: a key is so short that it can be guessed.
    """
    from_environment = os.environ.get("LLAMAKIT_API_KEY", "").strip()
    keys = [from_environment] if from_environment else []
    where = "LLAMAKIT_API_KEY"
    if file is not None:
        try:
            with Path(file).open("rb") as stream:  # which may be a pipe's end
                text = as_utf8(stream.read(4 * LARGEST_KEY_FILE + 4)).decode()
        except UnicodeDecodeError as error:
            raise FileFormatError(f"{file} is not UTF-8 text; expected a key a line") from error
        if len(text) > LARGEST_KEY_FILE:
            raise FileFormatError(f"{file} has over {LARGEST_KEY_FILE} characters; expected keys")
        lines = map(str.strip, text.splitlines())
        keys = [line for line in lines if line and not line.startswith("#")]
        where = file
        if not keys:
            raise FileFormatError(f"{file} holds no key; expected one a line")
    for key in keys:
        if len(key) < SHORTEST_KEY or not key.isascii() or any(char.isspace() for char in key):
            raise UsageError(
                f"a key in {where} is too short or holds a space or a letter that is not ASCII; "
                f"a key has {SHORTEST_KEY} characters or more, such as those of "
                "`openssl rand -hex 24`"
            )
    return tuple(dict.fromkeys(keys))


def check_auth(host: str, keys: Sequence[str], *, no_auth: bool) -> None:
    """Refuse to listen to other machines without a key.

    Raises:
        UsageError: the address is not this machine's own and there is no key.
    """
    if keys or no_auth or is_loopback(host):
        return
    raise UsageError(
        f"--host {host} lets other machines connect, and there is no key: set LLAMAKIT_API_KEY or "
        "pass --api-key-file FILE (--no-auth lets anybody in)"
    )


def is_loopback(host: str) -> bool:
    """Return whether an address is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def allowed_hosts(host: str, further: Sequence[str]) -> tuple[str, ...]:
    """Return the host names that requests may use for the server; none means any.

    A server that other machines reach is protected by a key, and its host names are not known here.
    """
    if is_loopback(host):
        own = f"[{host}]" if ":" in host else host
        return tuple(dict.fromkeys((*LOOPBACK_NAMES, own, *further)))
    return tuple(further)
