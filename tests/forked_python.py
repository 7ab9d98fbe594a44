"""A Python that a fork server provides: ``forked_python.py ADDRESS WORDS`` is ``python WORDS``.

It has that process's standard streams, environment and folder, passes signals on to it, and ends
as it ends. Started with ``-I -S`` it imports next to nothing.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from typing import Any


def main() -> None:
    """Ask for the process, wait for it and end as it did."""
    address, *words = sys.argv[1:]
    request = {"words": words, "env": dict(os.environ), "cwd": os.getcwd()}  # noqa: PTH109 - pathlib takes as long as all else here
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [b"\n"], [0, 1, 2])
        connection.sendall(json.dumps(request).encode() + b"\n")
        answers = connection.makefile("r")
        pid = int(answers.readline())

        def pass_on(number: int, _: Any) -> None:
            os.kill(pid, number)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, pass_on)
        status = int(answers.readline())
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


if __name__ == "__main__":
    main()
