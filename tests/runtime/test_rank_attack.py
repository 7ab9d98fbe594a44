"""Another user of the machine gets nothing from launched ranks, and no host can reach them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
ATTACK, COUNT = SCRIPTS / "attack_ranks.py", SCRIPTS / "count_listeners.sh"
VICTIM, ATTACKER = 54321, 54322

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

RANKS = """
import json, sys
from llamakit import Llama

path, prompts = sys.argv[1], json.loads(sys.argv[2])
with Llama.build(path, max_seq_len=256, model_parallel_size=2, dtype="float32") as llama:
    for _ in range(2):
        print(json.dumps(llama.generate(prompts, max_gen_len=24, temperature=0)[0]))
"""

OPEN_TO_ALL = """
import socket
with socket.create_server(("127.0.0.1", 0)) as server:
    server.accept()[0].recv(1)
"""

AS_VICTIM = [
    *("setpriv", "--reuid", str(VICTIM), "--regid", str(VICTIM), "--clear-groups"),
    # Python itself may be where only root can read it
    *("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"),
]


@pytest.fixture(scope="module")
def two_users() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can start processes of two users")
    if shutil.which("setpriv") is None:
        pytest.skip("there is no program setpriv here")
    probe = subprocess.run([*AS_VICTIM, sys.executable, "-c", ""], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip(f"no process of another user: {probe.stderr.decode().strip()}")


def start(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd="/",
        env={**os.environ, "HOME": "/nonexistent", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_victim(program: str, *arguments: str) -> subprocess.Popen[str]:
    return start(*AS_VICTIM, sys.executable, "-c", program, *arguments)


@pytest.fixture
def attack(two_users: None) -> Iterator[subprocess.Popen[str]]:
    """An attacker that waits for the victim's processes."""
    attacker = start(sys.executable, str(ATTACK), str(VICTIM), str(ATTACKER))
    assert attacker.stdout is not None
    assert attacker.stdout.readline() == "ready\n"
    yield attacker
    attacker.kill()


def outcome(process: subprocess.Popen[str]) -> str:
    out, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    return out


def test_another_user_gets_into_no_rank(
    attack: subprocess.Popen[str], reference_cases: Path
) -> None:
    expected = json.loads((reference_cases / "mha-mp8.expected.json").read_text())
    prompts = json.dumps(expected["prompt_tokens"])

    victim = start_victim(RANKS, str(reference_cases / "mha-mp8"), prompts)
    answers = [json.loads(line) for line in outcome(victim).splitlines()]

    seen = json.loads(outcome(attack))
    workers = [words for words in seen["seen"] if "llamakit.llama.worker" in words]
    assert seen["entered"] == []
    assert len(workers) == 1
    assert "mha-mp8" not in workers[0]  # what is shown to everybody names no model
    assert answers == [expected["greedy_batch"]["tokens"]] * 2


def test_the_attack_enters_what_is_open(attack: subprocess.Popen[str]) -> None:
    outcome(start_victim(OPEN_TO_ALL))

    (way,) = json.loads(outcome(attack))["entered"]
    assert way.startswith("connected to ('127.0.0.1', ")


ON_THE_NETWORK = """
import pathlib, socket, sys, time
with socket.create_server((socket.gethostname(), 0)):
    while "0107000A" not in pathlib.Path(sys.argv[1]).read_text():
        time.sleep(0.02)
"""


def listeners_by_address(folder: Path, program: str, *arguments: str) -> Counter[str]:
    """Run a program on a host whose name is 10.0.7.1; count its listeners, by address."""
    listeners = folder / "listeners"
    namespaces = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--uts"]
    done = subprocess.run(
        [*namespaces, "sh", COUNT, listeners, sys.executable, "-c", program, *arguments],
        cwd="/",
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    rows = {line.split()[1]: line.split()[3] for line in listeners.read_text().splitlines()}
    bound = [bytes.fromhex(it.partition(":")[0]) for it, state in rows.items() if state == "0A"]
    return Counter(
        socket.inet_ntoa(it[::-1]) if len(it) == 4 else f"IPv6 {it.hex()}" for it in bound
    )


@pytest.fixture
def namespaces(tmp_path: Path) -> None:
    for program in ("unshare", "ip"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no program {program} here")
    try:
        counted = listeners_by_address(tmp_path, ON_THE_NETWORK, str(tmp_path / "listeners"))
    except AssertionError as error:
        pytest.skip(f"no namespaces here: {error}")
    assert counted == {"10.0.7.1": 1}  # it finds what is there
    (tmp_path / "listeners").unlink()


@pytest.mark.usefixtures("namespaces")
def test_on_a_host_with_a_network_ranks_listen_nowhere(
    reference_cases: Path, tmp_path: Path
) -> None:
    counted = listeners_by_address(tmp_path, RANKS, str(reference_cases / "mha-mp8"), "[[1, 300]]")

    assert counted == {}
