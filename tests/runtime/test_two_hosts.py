"""torchrun over two hosts, one rank each: two network namespaces simulate them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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


def on_two_hosts(*command: str, prepare: str = "") -> subprocess.CompletedProcess[str]:
    """Run torchrun on both; ``prepare`` is for the shell, before."""
    torchrun = [sys.executable, "-m", "torch.distributed.run"]
    rendezvous = ["--nnodes", "2", "--node-rank", "NODE", "--nproc-per-node", "1"]
    address = ["--master-addr", "10.0.7.1", "--master-port", "29500"]
    words = f"{prepare} {shlex.join([*torchrun, *rendezvous, *address, *command])}"
    return subprocess.run(
        [*NAMESPACES, "sh", str(SCRIPTS / "two_hosts.sh"), words],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.soak
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


@pytest.mark.soak
@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        ("export GLOO_SOCKET_IFNAME=lo;", "rank 0 on host .* would be looked for at 127.0.0.1"),
        (
            "[ NODE = 1 ] && export GLOO_SOCKET_IFNAME=lo;",
            "rank 1 on host .* would be looked for at 127.0.0.1",
        ),
        (
            "if [ NODE = 1 ]; then set -e; ip link add far type veth peer name near; "
            "ip address add 10.9.9.9/32 dev far; ip link set near up; ip link set far up; "
            "export GLOO_SOCKET_IFNAME=far; fi;",
            r"rank 0 on host .* cannot connect to rank 1 on host .* at 10.9.9.9 \(.*reach",
        ),
        ("[ NODE = 1 ] && export GLOO_SOCKET_IFNAME=eth7;", "GLOO_SOCKET_IFNAME is 'eth7'"),
    ],
)
def test_a_host_that_the_others_cannot_reach_is_named_before_weights_are_read(
    prepare: str, message: str, reference_cases: Path
) -> None:
    words = ["generate", "hello", "-m", str(reference_cases / "mha-mp8"), "--join-timeout", "30"]

    done = on_two_hosts("-m", "llamakit", *words, prepare=prepare)

    assert done.returncode != 0
    assert re.search(message, done.stderr), done.stderr


@pytest.mark.soak
@pytest.mark.parametrize(("name", "row"), [("norm.weight", 0), ("output.weight", -2)])
def test_other_weights_at_the_same_path_are_refused(
    name: str, row: int, reference_cases: Path, tmp_path: Path
) -> None:
    shutil.copytree(reference_cases / "mha-mp8", tmp_path / "0")
    shutil.copytree(reference_cases / "mha-mp8", tmp_path / "1")
    shard = tmp_path / "1" / "consolidated.00.pth"
    parameters = torch.load(shard, weights_only=True)
    parameters[name][row] += 1
    torch.save(parameters, shard)
    (tmp_path / "model").mkdir()
    shutil.copy(reference_cases / "tokenizer.model", tmp_path)
    see_own = f"mount --bind {tmp_path}/NODE {tmp_path}/model"

    done = on_two_hosts(
        *("-m", "llamakit", "generate", "hello", "-m", str(tmp_path / "model")),
        prepare=f"unshare --mount sh -c '{see_own} && exec \"$@\"' sh",
    )

    assert done.returncode != 0
    assert "the weights of" in done.stderr, done.stderr
    assert "are others for rank 1 on host" in done.stderr
