"""The documentation is fresh, complete, true of the code, and asks no other host for anything."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pluggy
import pytest

from llamakit import hookspecs, protocols
from llamakit.cli.main import build_cli
from llamakit.plugin_manager.plugin_loader import load_command
from llamakit.plugin_manager.toolkit import load_toolkit

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GENERATED = [page for page in sorted(DOCS.rglob("*.md")) if "[[[cog" in page.read_text("utf-8")]
FETCHED = re.compile(r"<(?:link|script|img|iframe|source)\b[^>]*?(?:href|src)=[\"']?(https?:)?//")


def hooks() -> list[str]:
    manager = pluggy.PluginManager("llamakit")
    manager.add_hookspecs(hookspecs)
    return sorted(vars(manager.hook))


def section(heading: str) -> str:
    """Return what the page of hooks says of one."""
    page = (DOCS / "reference/hooks.md").read_text("utf-8")
    return page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_generated_pages_are_fresh():
    checked = subprocess.run(
        [sys.executable, "-m", "cogapp", "-I", "docs", "--check", *map(str, GENERATED)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert GENERATED
    assert checked.returncode == 0, (
        f"{checked.stdout}{checked.stderr}\n`make fix` writes them again"
    )


def test_examples_in_help_keep_their_lines():
    """Click wants a backspace before them; in a raw docstring that is two characters instead."""
    cli = build_cli(load_toolkit(disabled="all"))

    toolkit = cli.toolkit
    helps = [
        load_command(entry).help or "" for entry in (*toolkit.commands, *toolkit.checkpoint_tools)
    ]

    assert [text for text in helps if "\\b" in text] == []


def test_the_site_builds_strictly_and_asks_no_other_host(tmp_path):
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert built.returncode == 0, built.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        assert not FETCHED.search(page.read_text("utf-8")), page
    for style in tmp_path.rglob("*.css"):
        assert not re.search(r"url\([\"']?https?:|@import", style.read_text("utf-8")), style


@pytest.mark.parametrize("hook", hooks())
def test_every_hook_is_documented(hook):
    said = section(hook)

    (argument,) = inspect.signature(getattr(hookspecs, hook)).parameters
    assert f"{hook}({argument}: " in said
    assert f"*Args*:\n\n- `{argument}`: " in said
    assert "*Returns*: " in said
    assert "- Called " in said
    assert "- On an exception: " in said
    assert "- Asked for by: " in said
    assert re.search(r"^- Since \d+\.\d+\.$", said, re.MULTILINE)


OFFERED = {
    "register_samplers": "samplers",
    "register_logits_processors": "processors",
    "register_prompt_formats": "prompt_formats",
    "register_checkpoint_tools": "checkpoint_tools",
    "register_exporters": "exporters",
    "register_engines": "engines",
    "register_models": "models",
    "register_drafters": "drafters",
    "register_observers": "observers",
    "register_runners": "runners",
    "register_kernels": "kernels",
    "register_commands": "commands",
    "open_checkpoint": "open_checkpoint",
    "load_tokenizer": "load_tokenizer",
}
"""What of the toolkit is asked for what a hook brings."""


def is_used(hook: str) -> bool:
    """Tell whether a built-in plugin implements a hook, and something asks for what it brings."""
    toolkit = load_toolkit(disabled="all")
    implementations = getattr(toolkit._manager.hook, hook).get_hookimpls()
    name = OFFERED[hook]
    asked = re.compile(rf"toolkit(?:\(\))?\.{name}\b|registry=\"{name}\"")
    paths = [path for path in (ROOT / "llamakit").rglob("*.py") if path.parent.name != "testing"]
    return bool(implementations) and any(asked.search(path.read_text("utf-8")) for path in paths)


@pytest.mark.parametrize("hook", hooks())
def test_every_hook_is_used(hook):
    assert is_used(hook)


def test_every_promise_about_a_row_is_about_something_that_there_is():
    page = (DOCS / "reference/plugin-stability.md").read_text("utf-8")
    (line,) = re.findall(r"^- \*`Row`\*: (.*)\.$", page, re.MULTILINE)

    promised = set(re.findall(r"`(\w+)`", line))

    names = {name for name in dir(protocols.Row) if not name.startswith("_")}
    assert promised == names | set(protocols.Row.__annotations__)


def test_every_environment_variable_is_documented():
    page = (DOCS / "reference/environment.md").read_text("utf-8")
    code = "".join(path.read_text("utf-8") for path in (ROOT / "llamakit").rglob("*.py"))
    read = re.findall(r"environ(?:\.get\(|\[)\"([A-Z_]+)\"|envvar=\"([A-Z_]+)\"", code)
    read += re.findall(r"(?<=\")(LLAMAKIT_[A-Z_]+)(?=\")()", code)

    names = {name for pair in read for name in pair if name}

    assert "LLAMAKIT_MODEL" in names
    assert {name for name in names if f"`{name}`" not in page} == set()


def test_every_dependency_says_why():
    page = (DOCS / "explanation/dependencies.md").read_text("utf-8")
    project = (ROOT / "pyproject.toml").read_text("utf-8").partition("[tool.")[0]
    names = set(re.findall(r'^    "([a-z-]+)[><=]', project, re.MULTILINE))

    rows = " ".join(line.split("|")[1] for line in page.splitlines() if line.startswith("| "))

    assert "torch" in names
    assert {name for name in names if name not in re.split(r"[ ,]+", rows)} == set()


def test_every_dependency_is_pinned():
    pinned = {
        line.partition("==")[0]
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if "==" in line
    }
    project = (ROOT / "pyproject.toml").read_text("utf-8").partition("[tool.")[0]

    names = set(re.findall(r'^    "([a-z-]+)[><=]', project, re.MULTILINE))

    assert names <= pinned


def test_every_module_has_its_place_in_the_drawing():
    page = (DOCS / "explanation/architecture.md").read_text("utf-8")

    for path in (ROOT / "llamakit").iterdir():
        if path.suffix == ".py" or (path / "__init__.py").exists():
            name = path.name if path.suffix else f"{path.name}/"
            assert name in page or path.stem == "_distribution", name


def test_no_files_import_one_another_in_a_circle_not_even_for_annotations():
    graph = grimp.build_graph("llamakit", cache_dir=None)

    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}

    TopologicalSorter(imports).prepare()  # raises CycleError, which names the circle


def test_every_file_that_the_architecture_page_names_exists():
    page = (DOCS / "explanation/architecture.md").read_text("utf-8")

    named = re.findall(r"`((?:\w+/)+(?:\w+\.py)?)`", page)

    assert len(named) > 15
    for name in named:
        places = (ROOT / name, ROOT / "llamakit" / name, ROOT / "llamakit" / "plugins" / name)
        assert name == "plugins/KIND/" or any(place.exists() for place in places), name


def test_every_module_that_a_package_describes_is_in_it():
    for package in ("checkpoint", "convert", "download", "examine", "runtime", "cli/chat"):
        file = ROOT / "llamakit" / package / "__init__.py"
        described = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
        modules = {path.stem for path in file.parent.iterdir()}

        assert set(re.findall(r"``([a-z_0-9]+)``", described)) <= modules, file
