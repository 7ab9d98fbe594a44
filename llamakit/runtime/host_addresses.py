"""Checks that ranks on several hosts can reach each other, before weights are read.

gloo would wait for its whole timeout, and then name no host.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llamakit.errors import ParallelError
from llamakit.files import system_calls
from llamakit.printable import printable
from llamakit.runtime.store_values import read_values

GLOO, NCCL = "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"
_SIOCGIFADDR = 0x8915
_PATIENCE = 5.0
"""Seconds for one connection."""


@dataclass(frozen=True)
class RankAddress:
    """Where a rank is.

    Args:
        host: equal for ranks that share a network stack.
        address: where gloo has others connect to it; "" where that is not known.
        port: of a listener there that only shows that it can be reached; 0 without one.
    """

    host: str
    address: str
    port: int = 0


def this_host() -> str:
    """Return what tells this host's network from others': two containers may share a kernel."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
        return f"{boot} {os.stat('/proc/self/ns/net').st_ino}"  # noqa: PTH116 - no file of ours
    except OSError:
        return socket.gethostname()


def gloo_address() -> str:
    """Return the address that gloo tells the other ranks; "" if that cannot be known here.

    Raises:
        ParallelError: a variable names an interface that this host does not have.
    Source: ``ProcessGroupGloo::createDefaultDevice`` of torch.
    """
    known = [name for _, name in socket.if_nameindex()]
    for variable in (GLOO, NCCL):
        _check_interface(variable, known)
    if names := os.environ.get(GLOO):
        return _address_of(names.split(",")[0])
    try:
        for *_, place in socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM):
            return str(place[0])
    except OSError:
        pass
    return "127.0.0.1"  # as gloo does for a name that nobody resolves


def check_addresses(rank: int, store: Any, hosts: Sequence[str], own: RankAddress) -> None:
    """Check that every host can reach every other one.

    Args:
        store: what all ranks share.
        hosts: the name of each rank's host.
        own: where this rank is, without a port.
    Raises:
        ParallelError: one cannot be reached by another; every rank raises the same.
    """
    found = _gather("place", rank, store, len(hosts), asdict(own), _is_place)
    places = [RankAddress(**it) for it in found]
    firsts = [next(at for at, it in enumerate(places) if it.host == place.host) for place in places]
    if len(set(firsts)) == 1:
        return
    for at, place in enumerate(places):
        if place.address and ipaddress.ip_address(place.address.split("%")[0]).is_loopback:
            raise ParallelError(
                f"rank {at} on host {printable(hosts[at], 64)} would be looked for at "
                f"{place.address}, which leads every host to itself: set {GLOO} there to the "
                "interface of the network that the hosts share"
            )
    failures = _connect_all(rank, store, places, sorted(set(firsts)))
    for at, failure in enumerate(failures):
        if failure:
            to, reason = failure
            raise ParallelError(
                f"rank {at} on host {printable(hosts[at], 64)} cannot connect to rank {to} on "
                f"host {printable(hosts[to], 64)} at {places[to].address} "
                f"({printable(reason, 80)}): is that the network that the hosts share, without a "
                f"firewall? {GLOO} names its interface"
            )


def _connect_all(
    rank: int, store: Any, places: Sequence[RankAddress], firsts: Sequence[int]
) -> list[Any]:
    """Have the first rank of each host connect to those of the others; return what failed."""
    with socket.socket(_family(places[rank].address)) as listener:
        port, failure = 0, None
        if rank in firsts and places[rank].address:
            listener.bind((places[rank].address, 0))
            listener.listen()
            port = listener.getsockname()[1]
        ports = _gather("port", rank, store, len(places), port, _is_port)
        for other in firsts if rank in firsts else ():
            if other == rank or not ports[other] or failure:
                continue
            try:
                place = (places[other].address, ports[other])
                socket.create_connection(place, timeout=_PATIENCE).close()
            except OSError as error:
                failure = [other, error.strerror or str(error)]
        return _gather(
            "reached", rank, store, len(places), failure, lambda it: _is_failure(it, len(places))
        )


def _gather(
    name: str, rank: int, store: Any, size: int, value: Any, fits: Callable[[Any], bool]
) -> list[Any]:
    keys = [f"{name} {it}" for it in range(size)]
    store.set(keys[rank], json.dumps(value))
    store.wait(keys)
    return read_values(store, keys, fits)


def _is_place(value: Any) -> bool:
    match value:
        case {"host": str(), "address": str(address), "port": 0, **others} if not others:
            return not address or _is_address(address)
    return False


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.split("%", maxsplit=1)[0])
    except ValueError:
        return False
    return True


def _is_port(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 16


def _is_failure(value: Any, size: int) -> bool:
    """Whether a rank has reached all others, or says which it has not and why."""
    match value:
        case None:
            return True
        case [int(to), str()]:
            return type(to) is int and 0 <= to < size
    return False


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _check_interface(variable: str, known: Sequence[str]) -> None:
    """Check that a variable names an interface of this host; nccl takes beginnings of names too."""
    text = os.environ.get(variable, "")
    if not text or text.startswith("^"):
        return
    names = [name.split(":")[0] for name in text.removeprefix("=").split(",")]
    whole = variable == GLOO or text.startswith("=")
    if not any(it == name if whole else it.startswith(name) for name in names for it in known):
        raise ParallelError(
            f"{variable} is {text!r:.60}, and this host ({socket.gethostname()}) has no such "
            f"network interface: it has {', '.join(known)}"
        )


def _address_of(interface: str) -> str:
    """Return the IPv4 address of an interface; "" if it has none, or the system does not say."""
    if system_calls.fcntl is None or not re.fullmatch(r"[\w.@:-]{1,15}", interface):
        return ""
    request = struct.pack("256s", interface.encode())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            reply = system_calls.fcntl.ioctl(any_socket.fileno(), _SIOCGIFADDR, request)
        except OSError:
            return ""
    return socket.inet_ntoa(reply[20:24])
