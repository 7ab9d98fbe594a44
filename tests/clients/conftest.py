"""A server with the bundled model, and the recording of what clients send it.

``LLAMAKIT_PYTHON`` is the Python that has llamakit: this environment has the clients alone.
``LLAMAKIT_RECORD=1`` writes the requests of each check to tests/data/clients.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from recording import proxy

DATA = Path(__file__).parents[1] / "data" / "clients"
PYTHON = str(Path(os.environ.get("LLAMAKIT_PYTHON", ".venv/bin/python")).absolute())
MODEL = "llama-demo"


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """``llamakit serve``, greedy, with room for the tools that agents describe."""
    words = ["--port", "0", "--max-seq-len", "2048", "--slots", "2", "--temperature", "0"]
    words += ["--max-new-tokens", "300", "--dtype", "float32"]
    with subprocess.Popen(
        [PYTHON, "-m", "llamakit", "serve", *words], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if "serving at " in line:
                    yield line.split("serving at ")[1].strip()
                    break
        finally:
            process.terminate()
            process.stderr.read()


@pytest.fixture
def base_url(
    server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The URL that a client is given."""
    with proxy(server) as (url, noted):
        monkeypatch.setenv("OPENAI_BASE_URL", f"{url}/v1")
        yield f"{url}/v1"
    assert noted, "the client has asked for nothing"
    if os.environ.get("LLAMAKIT_RECORD"):
        name = request.node.name.removeprefix("test_")
        DATA.mkdir(exist_ok=True)
        different = [it for number, it in enumerate(noted) if it not in noted[:number]]
        text = json.dumps(different, indent=1, ensure_ascii=False)
        (DATA / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What some clients read from the environment, and a home of their own."""
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    monkeypatch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")
    monkeypatch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
