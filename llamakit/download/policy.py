"""What a signed link says of itself: which addresses it covers, and when it ends."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import json
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from llamakit.errors import LinkEndedError, LinkError


@dataclass(frozen=True)
class Policy:
    """What a signature covers.

    Args:
        resource: an address with ``*`` and ``?`` as wildcards; "" if the link does not say.
        ends: when, in UTC; None if the link does not say.
    Source: "Creating a signed URL using a custom policy" in Amazon CloudFront's documentation.
    """

    resource: str
    ends: datetime | None

    def check_time(self, now: datetime | None = None) -> None:
        """Refuse a link that has ended.

        Raises:
            LinkEndedError: it has.
        """
        now = now or datetime.now(timezone.utc)
        if self.ends is not None and now >= self.ends:
            raise LinkEndedError(
                f"the link ended {_ago(now - self.ends)} ago, at {spell(self.ends)}. "
                "Request a new one from Meta; what is downloaded already is kept."
            )

    def covers(self, address: str) -> bool:
        """Tell whether the signature is good for an address, its query left out."""
        if not self.resource:
            return True
        pattern = self.resource.partition("?Policy")[0].replace("[", "[[]")
        return fnmatch.fnmatchcase(address, pattern)


def read_policy(query: str) -> Policy | None:
    """Read the policy of a link's query; None if it has none.

    Raises:
        LinkError: it cannot be read: the link was damaged on its way.
    """
    values = dict(part.partition("=")[::2] for part in query.split("&"))
    if "Policy" in values:
        return _from_document(_decode(values["Policy"]))
    if "Expires" in values and "Signature" in values:
        return Policy("", _moment(values["Expires"]))
    return None


def spell(moment: datetime) -> str:
    """Write a time for people, in UTC."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _decode(policy: str) -> Any:
    text = policy.replace("-", "+").replace("_", "=").replace("~", "/")
    try:
        return json.loads(base64.b64decode(text + "=" * (-len(text) % 4), validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise LinkError(
            "the link's Policy cannot be read: characters were lost or changed on its way here. "
            "Copy the whole link again from Meta's email."
        ) from None


def _from_document(document: Any) -> Policy:
    try:
        statement = document["Statement"][0]
        resource = statement["Resource"]
        ends = _moment(statement["Condition"]["DateLessThan"]["AWS:EpochTime"])
    except (KeyError, IndexError, TypeError):
        raise LinkError(
            "the link's Policy lacks what it covers (Resource) or when it ends (DateLessThan). "
            "Copy the whole link again from Meta's email."
        ) from None
    return Policy(str(resource), ends)


def _moment(epoch: object) -> datetime:
    try:
        return datetime.fromtimestamp(int(str(epoch)), timezone.utc)
    except (ValueError, OverflowError, OSError):
        raise LinkError(
            "the time at which the link ends cannot be read. Copy the whole link again."
        ) from None


def _ago(time: timedelta) -> str:
    minutes = int(time.total_seconds()) // 60
    for unit, length in (("day", 24 * 60), ("hour", 60), ("minute", 1)):
        if count := minutes // length:
            return f"{count} {unit}{'s' * (count > 1)}"
    return "less than a minute"
