"""The connection to a Ray cluster, or a cluster of one's own on this machine's loopback.

Ray's processes run what its members send them. So a cluster of our own listens on loopback alone,
asks for a token that only this user can read, has no dashboard and tells nobody that it is there.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llamakit.errors import LlamakitError, UsageError

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_ON_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""With 0 Ray takes 127.0.0.1 for its address, as it does on macOS; without it, any address."""
_OBJECT_STORE_NBYTES = 512 << 20


def connect(address: str) -> Any:
    """Connect to a cluster, unless that is done, and return the module ``ray``.

    Args:
        address: ``HOST:PORT`` of the cluster's head, ``auto``, or nothing: then it is started here.
    Raises:
        LlamakitError: there is no cluster, or it does not take our token.
        UsageError: it is an address of another kind.
    """
    _check(address)
    _set_environment(address)
    import ray

    if ray.is_initialized():
        return ray
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with ray_errors(f"the Ray cluster at {address}" if address else "Ray"):
        if address:
            ray.init(address=address, **quiet)
        else:
            own: dict[str, Any] = {"include_dashboard": False}
            own |= {"object_store_memory": _OBJECT_STORE_NBYTES, "_temp_dir": _own_folder(ray)}
            ray.init(address="local", **own, **quiet)  # whatever RAY_ADDRESS says
    return ray


@contextlib.contextmanager
def ray_errors(what: str, *, says: bool = True, advice: str = "") -> Iterator[None]:
    """Make one sentence of what Ray raises.

    Args:
        what: failed, such as ``the Ray cluster``.
        says: repeat what Ray says, which may hold the address of a file.
        advice: the end of the message.
    Raises:
        LlamakitError: Ray has raised something.
    """
    from ray.exceptions import RayError

    try:
        yield
    except LlamakitError:
        raise
    except (RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = f": {lines[-1][:300]}" if lines and says else ""
        raise LlamakitError(f"{what}: {type(error).__name__}{said}{advice}") from error


def _check(address: str) -> None:
    host, colon, port = address.rpartition(":")
    if address in ("", "auto") or (colon and host and port.isdecimal() and "/" not in host):
        return
    raise UsageError(
        f"--on ray:{address:.60}: expected the HOST:PORT of the cluster's head, such as "
        "ray:10.0.0.5:6379, or ray:auto on one of its machines, or ray alone"
    )


def _set_environment(address: str) -> None:
    """Set what Ray reads when it is imported, unless the user has set it."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "ERROR")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if not address or address.rpartition(":")[0] in LOOPBACK:
        os.environ.setdefault(_ON_LOOPBACK, "0")


def _own_folder(ray: Any) -> str:
    """Make a folder for this user alone, with the token and the files of a cluster of our own.

    It is removed when this process ends, after the cluster.
    """
    # A TMPDIR may be too long for the names of the sockets in it.
    place = "/tmp" if Path("/tmp").is_dir() else None  # noqa: S108 - mkdtemp makes it safe
    folder = Path(tempfile.mkdtemp(prefix="llamakit-ray-", dir=place))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(ray.shutdown)  # is called first
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
        token = folder / "token"
        token.touch(0o600)
        token.write_text(secrets.token_hex(32), "ascii")
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
    return str(folder / "ray")  # Ray lets everybody write into this one; nobody gets there
