"""``--on ray`` alone: a cluster of one's own, which nobody else can reach."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path

LOOPBACK = {
    "0100007F",  # 127.0.0.1
    "0000000000000000FFFF00000100007F",  # the same, for sockets of IPv6
    "00000000000000000000000001000000",  # ::1
}
BATCH_LINE = {
    "custom_id": "o",
    "method": "POST",
    "url": "/v1/completions",
    "body": {"prompt": "The sun", "max_tokens": 3, "logit_bias": {"5": 2}, "top_p": 0.5},
}


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and they in turn."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, queue = [], [pid]
    while queue:
        queue += [child for child, parent in parents.items() if parent == queue[0]]
        found.append(queue.pop(0))
    return found[1:]


def listening(pids: list[int]) -> list[str]:
    """Return the local addresses, in hexadecimal, that processes listen at."""
    sockets = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                sockets.add(str(link.readlink()))
            except OSError:
                continue
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return [
        it[1].partition(":")[0] for it in lines if it[3] == "0A" and f"socket:[{it[9]}]" in sockets
    ]


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_it_answers_lines_of_openais_on_loopback_with_a_token_that_nobody_sees(generate, tmp_path):
    (tmp_path / "prompts.jsonl").write_text(json.dumps(BATCH_LINE), "utf-8")
    generate.settings = {
        name: value for name, value in generate.settings.items() if not name.startswith("RAY_")
    }
    generate("--prompts", "prompts.jsonl", "--output", "one.jsonl")

    process = generate.start("--prompts", "prompts.jsonl", "--output", "ray.jsonl", "--on", "ray")
    started: list[int] = []
    while process.poll() is None and not any(
        b"ReplicaActor" in read(Path(f"/proc/{pid}/cmdline")) for pid in started
    ):
        time.sleep(0.05)
        started = descendants(process.pid)
    addresses = listening(started)
    environments = b"\0".join(read(Path(f"/proc/{pid}/environ")) for pid in started)
    (where,) = {it for it in environments.split(b"\0") if it.startswith(b"RAY_AUTH_TOKEN_PATH=")}
    path = Path(where.partition(b"=")[2].decode())
    token, mode = path.read_bytes(), path.parent.stat().st_mode
    commands = b"".join(read(Path(f"/proc/{pid}/cmdline")) for pid in started)
    said = process.communicate(timeout=300)[1]

    assert process.returncode == 0, said
    assert addresses
    assert set(addresses) <= LOOPBACK
    assert len(token) == 64
    assert token not in commands + environments + said.encode()
    assert b"RAY_AUTH_MODE=token" in environments.split(b"\0")
    assert b"RAY_USAGE_STATS_ENABLED=0" in environments.split(b"\0")
    assert stat.S_IMODE(mode) == 0o700
    assert not path.exists()
    texts = [
        json.loads((tmp_path / name).read_text("utf-8"))["response"]["body"]["choices"]
        for name in ("ray.jsonl", "one.jsonl")
    ]
    assert texts[0] == texts[1]
