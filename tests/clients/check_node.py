"""Clients of Node: the AI SDK, openai and LangChain. Without npm they are skipped."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import MODEL
from weather import CITIES

MODULES = Path(sys.prefix) / "node_modules"
SCRIPTS = Path(__file__).with_name("node")

pytestmark = pytest.mark.skipif(
    not MODULES.exists(), reason="`make clients` has found no npm to install clients of Node with"
)


def run(script: str, base_url: str) -> list[str]:
    """Run a script and return the words that it prints."""
    shutil.copy(SCRIPTS / script, MODULES.parent)  # Node looks for modules beside the script
    done = subprocess.run(
        ["node", MODULES.parent / script, base_url, MODEL],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_ai_sdk(base_url: str) -> None:
    *calls, steps = run("ai_sdk.mjs", base_url)

    assert len(calls) == 4
    assert set(calls) <= set(CITIES)
    assert steps == "2"


def test_openai_node(base_url: str) -> None:
    cities = run("openai.mjs", base_url)

    assert len(cities) == 3
    assert set(cities) <= set(CITIES)


def test_langchain_node(base_url: str) -> None:
    cities = run("langchain.mjs", base_url)

    assert len(cities) == 3
    assert set(cities) <= set(CITIES)
