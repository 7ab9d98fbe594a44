"""The packages that are tested here, and what all of their tests do."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples" / "plugins").iterdir())
BRIDGES = sorted((ROOT / "packages").iterdir())
TOKENS = 16


def good(done):
    """Return what a command that has to go well wrote."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def generated(run, *words):
    """Return what ``generate`` answers, computed in float32."""
    options = ("--dtype", "float32", "--max-new-tokens", str(TOKENS), "--json")
    return json.loads(good(run("generate", *options, *words)))
