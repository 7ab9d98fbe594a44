"""torchrun over two hosts, one rank each: two network namespaces simulate them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
NAMESPACES = ["unshare", "--user", "--map-root-user", "--net", "--mount"]
PROBE = (
    "mount -t tmpfs none /run && mkdir /run/netns && ip netns add probe && ip netns exec probe true"
    " && ip link add one type veth peer name two netns probe"
)


def missing() -> str:
    """Say why there can be no two hosts here, or nothing."""
    for program in ("unshare", "ip"):
        if shutil.which(program) is None:
            return f"there is no program {program} here"
    probe = subprocess.run(
        [*NAMESPACES, "sh", "-c", PROBE], capture_output=True, text=True, check=False
    )
    return "" if probe.returncode == 0 else f"no namespaces here: {probe.stderr.strip()}"


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    if why := missing():
        pytest.skip(why)


def on_two_hosts(*command: str) -> subprocess.CompletedProcess[str]:
    torchrun = [sys.executable, "-m", "torch.distributed.run"]
    rendezvous = ["--nnodes", "2", "--node-rank", "NODE", "--nproc-per-node", "1"]
    address = ["--master-addr", "10.0.7.1", "--master-port", "29500"]
    words = shlex.join([*torchrun, *rendezvous, *address, *command])
    return subprocess.run(
        [*NAMESPACES, "sh", str(SCRIPTS / "two_hosts.sh"), words],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_a_script_on_two_hosts_gives_what_the_reference_gave(
    reference_cases: Path, tmp_path: Path
) -> None:
    expected = json.loads((reference_cases / "mha-mp8.expected.json").read_text())
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps(expected["prompt_tokens"]))
    out = tmp_path / "answer"

    done = on_two_hosts(
        str(SCRIPTS / "answer.py"), str(reference_cases / "mha-mp8"), str(prompts), str(out)
    )

    assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        result = json.loads((tmp_path / f"answer.{rank}").read_text())
        assert result["size"] == 2
        assert result["tokens"] == expected["greedy_batch"]["tokens"]


def test_a_command_on_two_hosts_answers_on_the_first(reference_cases: Path, tmp_path: Path) -> None:
    words = ["generate", "hello", "-m", str(reference_cases / "mha-mp8"), "--temperature", "0"]
    settings = ["--dtype", "float32", "--max-new-tokens", "8"]

    done = on_two_hosts("-m", "llamakit", *words, *settings)

    alone = subprocess.run(
        [sys.executable, "-m", "llamakit", *words, *settings],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == alone.stdout
    assert done.stdout.strip()
