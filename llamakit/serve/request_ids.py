"""IDs of requests: in the header ``x-request-id`` and in the log."""

from __future__ import annotations

import re
import secrets

REQUEST_ID_HEADER = "x-request-id"

_SAFE = re.compile(r"[A-Za-z0-9_.:/+=@-]{1,128}")
"""What neither a header nor a line of a log could be broken with."""


def new_request_id() -> str:
    """Return an ID that no other request has."""
    return f"req_{secrets.token_hex(16)}"


def request_id(given: str | None) -> str:
    """Return the ID that a client has given if that is safe to repeat, else a new one."""
    return given if given is not None and _SAFE.fullmatch(given) else new_request_id()
