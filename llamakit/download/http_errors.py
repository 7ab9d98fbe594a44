"""httpx's errors as sentences, without the address that they may contain."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import httpx

from llamakit.download.redaction import Redactor
from llamakit.download.responses import TransientError
from llamakit.errors import DownloadError
from llamakit.printable import printable

_ERROR_NUMBER = re.compile(r"^\[Errno -?\d+\] ")


@contextlib.contextmanager
def translated(host: str, redactor: Redactor, timeout: float) -> Iterator[None]:
    """Turn httpx's errors into ours, without the address that they may contain."""
    try:
        yield
    except httpx.TimeoutException:
        raise TransientError(f"no byte from {host} for {timeout:g} s") from None
    except httpx.ConnectError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise DownloadError(
                f"the certificate of {host} cannot be verified: is the clock right, and a "
                "proxy between? SSL_CERT_FILE names other authorities"
            ) from None
        if "WRONG_VERSION_NUMBER" in str(error):
            raise DownloadError(f"{host} answers without TLS: is the link http:// ?") from None
        why = printable(_ERROR_NUMBER.sub("", redactor.redacted(str(error))))
        raise TransientError(f"no connection to {host}: {why}") from None
    except httpx.TransportError as error:
        why = printable(_ERROR_NUMBER.sub("", redactor.redacted(str(error))))
        why = why or type(error).__name__
        raise TransientError(f"the connection to {host} broke: {why}") from None
    except (httpx.InvalidURL, httpx.HTTPError, UnicodeError):
        raise DownloadError(f"no request to {host} is possible: the address is malformed") from None
