"""The page of JSON output knows every key that the checkpoint tools print."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "json-output.md"


def section(command: str) -> str:
    text = PAGE.read_text("utf-8")
    found = re.search(
        rf"^## [^\n]*\b{command} --json\b.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL
    )
    assert found, command
    return found[0]


def keys(value: object) -> Iterator[str]:
    """Yield the keys of objects and of those in lists; what a key's object holds is its own."""
    if isinstance(value, dict):
        yield from value
        value = [it for it in value.values() if isinstance(it, list)]
    if isinstance(value, list):
        for item in value:
            yield from keys(item)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("verify", ["A", "--deep"]),
        ("inspect", ["A", "--tensors"]),
        ("diff", ["A", "A"]),
        ("reshard", ["A", "made", "-n", "2"]),
        ("reshard", ["A", "made", "-n", "2", "--plan"]),
        ("export", ["A", "made"]),
        ("import", ["A", "made", "-n", "4"]),
        ("plugins new NAME", ["nth"]),
        ("doctor", []),
    ],
)
def test_every_key_is_documented(command, words, run_llamakit, reference_cases):
    checkpoint = reference_cases / "mha-mp8"
    words = [checkpoint if word == "A" else word for word in words]

    done = run_llamakit(*command.removesuffix(" NAME").split(), *words, "--json")

    assert done.returncode == 0, done.stderr
    found = set(keys(json.loads(done.stdout)))
    assert found
    assert {key for key in found if f"`{key}`" not in section(command)} == set()
