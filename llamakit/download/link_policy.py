"""The policy of a signed link: which addresses it is valid for, and when it expires."""

from __future__ import annotations

import base64
import binascii
import fnmatch
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from llamakit.errors import LinkError, LinkExpiredError
from llamakit.files.json_reader import parse_json


@dataclass(frozen=True)
class Policy:
    """What a link is signed for.

    Args:
        resource: an address with ``*`` and ``?`` as wildcards; "" if the link has none.
        expires: in UTC; None if the link has no time.
    Source: "Creating a signed URL using a custom policy" in Amazon CloudFront's documentation.
    """

    resource: str
    expires: datetime | None

    def check_time(self, now: datetime | None = None) -> None:
        """Check that the link has not expired.

        Raises:
            LinkExpiredError: it has.
        """
        now = now or datetime.now(timezone.utc)
        if self.expires is not None and now >= self.expires:
            raise LinkExpiredError(
                f"the link expired {_ago(now - self.expires)} ago, at {format_utc(self.expires)}. "
                "Request a new one from Meta; what is downloaded is kept."
            )

    def covers(self, address: str) -> bool:
        """Tell whether the signature is valid for an address without its query."""
        if not self.resource:
            return True
        pattern = self.resource.partition("?Policy")[0].replace("[", "[[]")
        return fnmatch.fnmatchcase(address, pattern)


def read_policy(query: str) -> Policy | None:
    """Read the policy of a link's query; None if it has none.

    Raises:
        LinkError: it cannot be decoded: the link was damaged when it was copied.
    """
    values = dict(part.partition("=")[::2] for part in query.split("&"))
    if "Policy" in values:
        return _from_document(_decode(values["Policy"]))
    if "Expires" in values and "Signature" in values:
        return Policy("", _moment(values["Expires"]))
    return None


def format_utc(moment: datetime) -> str:
    """Format a time in UTC, such as ``2026-01-31 12:00 UTC``."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _decode(policy: str) -> Any:
    text = policy.replace("-", "+").replace("_", "=").replace("~", "/")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        return parse_json(data, "the policy")
    except (binascii.Error, ValueError):
        raise LinkError(
            "the link's Policy cannot be decoded: characters were lost or changed. "
            "Copy the whole link again from Meta's email."
        ) from None


def _from_document(document: Any) -> Policy:
    try:
        statement = document["Statement"][0]
        resource = statement["Resource"]
        expires = _moment(statement["Condition"]["DateLessThan"]["AWS:EpochTime"])
    except (KeyError, IndexError, TypeError):
        raise LinkError(
            "the link's Policy has no address (Resource) or no expiry time (DateLessThan). "
            "Copy the whole link again from Meta's email."
        ) from None
    return Policy(str(resource), expires)


def _moment(epoch: object) -> datetime:
    try:
        return datetime.fromtimestamp(int(str(epoch)), timezone.utc)
    except (ValueError, OverflowError, OSError):
        raise LinkError(
            "the expiry time of the link cannot be read. Copy the whole link again."
        ) from None


def _ago(time: timedelta) -> str:
    minutes = int(time.total_seconds()) // 60
    for unit, length in (("day", 24 * 60), ("hour", 60), ("minute", 1)):
        if count := minutes // length:
            return f"{count} {unit}{'s' * (count > 1)}"
    return "less than a minute"
