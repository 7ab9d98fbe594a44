"""Built-in and example plugins import what the stability page lists, and nothing else of ours."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference/plugin-stability.md"


def imports_of(file: Path) -> set[str]:
    """Return what a file imports of llamakit, as ``module`` or ``module.name``."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.partition(".")[0] == "llamakit"}


def listed() -> set[str]:
    """Return what the page says that a plugin may import: ``module``: ``name``, ``name``."""
    section = PAGE.read_text("utf-8").partition("## What a plugin may import")[2]
    table = section.partition("\n## ")[0]
    found = {"llamakit"}
    for line in table.splitlines():
        if line.startswith("| `"):
            module, *names = re.findall(r"`([\w.]+)`", line)
            found |= {f"{module}.{name}" for name in names}
    return found


def test_plugins_import_exactly_what_the_stability_page_lists():
    files = [
        *(ROOT / "llamakit/plugins").rglob("*.py"),
        *(ROOT / "examples/plugins").rglob("*.py"),
        *(ROOT / "packages").rglob("*.py"),
    ]

    imported = set().union(*map(imports_of, files))

    of_their_own = {name for name in imported if name.startswith("llamakit.plugins.")}
    assert imported - of_their_own == listed()


def test_a_plugin_imports_no_other_part_of_the_built_in_ones():
    for file in (ROOT / "llamakit/plugins").rglob("*.py"):
        package = ".".join(file.relative_to(ROOT).parent.parts)
        others = {name for name in imports_of(file) if name.startswith("llamakit.plugins.")}
        assert all(name.startswith(f"{package}.") for name in others), file


def test_what_the_page_lists_is_there():
    for name in listed() - {"llamakit"}:
        module, _, attribute = name.rpartition(".")
        assert getattr(import_module(module), attribute) is not None
