"""The memory of a server after large requests."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from server_kit import STORY, Running, wait_until

MB = 1 << 20
MARGIN = 40 * MB


def resident_nbytes(pid: int) -> int:
    """Return the memory of a process and of its children that is resident."""
    folder = Path(f"/proc/{pid}")
    found = re.search(r"^VmRSS:\s+(\d+) kB$", (folder / "status").read_text(), re.M)
    assert found
    children = (folder / "task" / str(pid) / "children").read_text().split()
    return int(found[1]) * 1024 + sum(resident_nbytes(int(child)) for child in children)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")
def test_memory_is_given_back_after_large_bodies_and_answers(server: Running) -> None:
    assert server.process is not None
    pid = server.process.pid
    server.post("/v1/completions", {"prompt": STORY, "max_tokens": 1})
    server.post("/v1/completions", {"prompt": "a" * 9000})  # starts the process for large bodies
    before = resident_nbytes(pid)

    with ThreadPoolExecutor(8) as threads:
        for body in (
            {"prompt": [""] * 250_000},
            {"prompt": "a" * (MB - 100)},
            {"prompt": STORY, "max_tokens": 1, "metadata": {"a": "x" * (MB - 100)}},
            {"metadata": {str(number): {} for number in range(80_000)}},
        ):
            list(threads.map(lambda it: server.post("/v1/completions", it), [body] * 8))
        many = {"text": "a b c d 1 2 3 4 " * 60_000}
        list(threads.map(lambda it: server.post("/tokenize", it), [many] * 4))

    wait_until(lambda: resident_nbytes(pid) < before + MARGIN)
