"""A cluster of several nodes on this machine's loopback, and jobs that run on it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TOKENS = 6


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Set what Ray reads: one token for the nodes and the drivers, loopback, no statistics."""
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text(secrets.token_hex(32))
    made = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.items():
            patch.setenv(name, value)
        yield {**os.environ}


@pytest.fixture(scope="session")
def cluster(settings: dict[str, str]) -> Iterator[Any]:
    """Start a head without CPUs, and two nodes with one each."""
    from ray.cluster_utils import Cluster

    assert os.environ["RAY_AUTH_TOKEN_PATH"] == settings["RAY_AUTH_TOKEN_PATH"]
    small = {"object_store_memory": 128 << 20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    for _ in range(2):
        made.add_node(num_cpus=1, object_store_memory=128 << 20)
    yield made
    made.shutdown()


class Generate:
    """Runs ``llamakit generate`` as users do, in a process of its own."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.folder, self.settings = folder, settings

    def start(self, *words: str, stderr: int | None = None) -> subprocess.Popen[str]:
        common = ("--dtype", "float32", "--max-new-tokens", str(TOKENS), "--seed", "3")
        return subprocess.Popen(
            [sys.executable, "-m", "llamakit", "generate", *common, *words],
            cwd=self.folder,
            env=self.settings,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE if stderr is None else stderr,
            text=True,
        )

    def __call__(self, *words: str, timeout: float = 300) -> str:
        process = self.start(*words)
        said = process.communicate(timeout=timeout)[1]
        assert process.returncode == 0, said
        assert "Traceback" not in said
        return said

    def answers(self, file: str) -> dict[str, dict[str, object]]:
        """Return the answers in a file by their ids, each of which is there once."""
        lines = [json.loads(it) for it in (self.folder / file).read_text("utf-8").splitlines()]
        found = {line["id"]: line for line in lines}
        assert len(found) == len(lines)
        return found


@pytest.fixture
def generate(tmp_path, settings) -> Generate:
    return Generate(tmp_path, settings)


def write_prompts(path: Path, count: int) -> None:
    """Write prompts whose answers are drawn, so that each depends on its seed."""
    lines = (json.dumps({"prompt": f"Once {it}", "id": f"p{it}"}) for it in range(count))
    path.write_text("\n".join(lines) + "\n", "utf-8")
