"""A rank without others ends in a sentence.

The whole of it is in ``tests/runtime/test_rank_environment.py`` and ``test_rendezvous.py``.
"""

from __future__ import annotations

import socket
from pathlib import Path


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def test_case_09_a_world_size_alone_names_what_is_missing(meta: Path, run_llamakit) -> None:
    done = run_llamakit("generate", "-m", meta, "hello", env={"WORLD_SIZE": "2"})

    assert done.returncode == 1
    assert "WORLD_SIZE is 2, but RANK is not set" in done.stderr
    assert "Traceback" not in done.stderr


def test_case_09_a_rank_that_nobody_joins_says_whom_it_awaits_and_ends(
    meta: Path, run_llamakit
) -> None:
    port = str(free_port())
    here = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}

    done = run_llamakit(
        *("generate", "-m", meta, "--join-timeout", "1", "hello"),
        env={"RANK": "0", "WORLD_SIZE": "2", **here},
    )

    assert done.returncode == 1
    assert f"rank 0 of 2 waited 1 s for rank 1 at 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr
