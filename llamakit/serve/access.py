"""Who may ask the server: keys, addresses, and the names that requests give it."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from llamakit.errors import FileFormatError, UsageError

SHORTEST_KEY = 8
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


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
