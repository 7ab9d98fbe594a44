"""The tutorials' packages, taken from their pages, installed with pip and used."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import llamakit

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorial"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)

Shell = Callable[..., "subprocess.CompletedProcess[str]"]


def blocks(page: str, language: str) -> list[str]:
    text = (TUTORIALS / page).read_text("utf-8")
    return [block for found, block in BLOCK.findall(text) if found == language]


def block_with(page: str, language: str, words: str) -> str:
    (found,) = (block for block in blocks(page, language) if words in block)
    return found


def install(page: str, source: str, module: str, place: Path) -> Path:
    """Install a page's package, with this source of its module, and return where to."""
    folder = place / "source"
    folder.mkdir(parents=True)
    (project,) = blocks(page, "toml")
    (folder / "pyproject.toml").write_text(project, "utf-8")
    (folder / module).write_text(source, "utf-8")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    flags = ["--no-build-isolation", "--disable-pip-version-check", "--target"]
    subprocess.run([*pip, *flags, place / "site", folder], check=True, capture_output=True)
    return place / "site"


@pytest.fixture(scope="module")
def average_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = block_with("checkpoint-tool.md", "python", "register_checkpoint_tools")
    place = tmp_path_factory.mktemp("average")
    return install("checkpoint-tool.md", source, "llamakit_average.py", place)


@pytest.fixture
def shell(isolated: dict[str, str], tmp_path: Path) -> Shell:
    """Run a page's commands, or a script, where ``llamakit`` and ``python`` are those of the tests.

    The package is installed already, so lines with ``pip`` are passed over.
    """
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, words in {"llamakit": "-m llamakit", "python": ""}.items():
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
        program.chmod(0o755)

    def run(script: str, package: Path) -> subprocess.CompletedProcess[str]:
        lines = [line for line in script.splitlines() if not line.startswith("pip ")]
        return subprocess.run(
            ["sh", "-e", "-c", "\n".join(lines)],
            cwd=tmp_path,
            env={
                **isolated,
                "PATH": f"{programs}{os.pathsep}{isolated['PATH']}",
                "PYTHONPATH": str(package),
            },
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=300,
            check=False,
        )

    return run


def good(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_the_checkpoint_tutorials_first_program_runs(average_package, shell, tmp_path):
    (tmp_path / "look.py").write_text(blocks("checkpoint-tool.md", "python")[0], "utf-8")

    lines = good(shell("python look.py", average_package)).splitlines()

    assert lines[0].startswith("meta ")
    assert any(line.startswith("layers.0.attention.wo.weight (") for line in lines)
    assert lines[-1].startswith("(4, ")


def test_the_checkpoint_tutorials_commands_do_what_the_page_says(average_package, shell, tmp_path):
    script = "".join(
        block
        for block in blocks("checkpoint-tool.md", "console")
        if "llama-2-7b" not in block  # nobody has these where tests run
    )

    said = good(shell(script, average_package))

    assert "Write the average of the checkpoints A and B at DST." in said
    assert "all good" in said
    assert "the same: " in said
    assert sorted(path.name for path in (tmp_path / "mean").glob("*.pth")) == [
        "consolidated.00.pth",
        "consolidated.01.pth",
    ]
    again = shell("llamakit average mean/ mean/ mean/", average_package)
    assert again.returncode == 2
    assert "exists already" in again.stderr


def test_the_checkpoint_tutorials_last_program_runs(average_package, shell, tmp_path):
    program = block_with("checkpoint-tool.md", "python", "from llamakit_average")
    (tmp_path / "use.py").write_text(program, "utf-8")

    assert good(shell("python use.py", average_package)) == "True\n"
    assert (tmp_path / "same-hf" / "model.safetensors").is_file()


def load(folder: Path) -> list[Mapping[str, object]]:
    """Load every shard with torch, which knows nothing of llamakit."""
    import torch

    return [torch.load(path, weights_only=True) for path in sorted(folder.glob("*.pth"))]


@pytest.fixture
def two_models(reference_cases, tmp_path) -> tuple[Path, Path]:
    """A real checkpoint, and one of other weights that torch has written."""
    import torch

    a, b = reference_cases / "mha-mp8", tmp_path / "b"
    b.mkdir()
    (b / "params.json").write_bytes((a / "params.json").read_bytes())
    for path in sorted(a.glob("*.pth")):
        shard = torch.load(path, weights_only=True)
        other = {name: (3 * value.float()).cos().to(value.dtype) for name, value in shard.items()}
        torch.save(other, b / path.name)
    return a, b


def test_the_checkpoint_tutorials_tool_averages_shard_by_shard(
    average_package, two_models, shell, tmp_path
):
    import torch

    a, b = two_models

    good(shell(f"llamakit average {a} {b} mean -n 8 --weight 0.25", average_package))

    mean = load(tmp_path / "mean")
    assert len(mean) == 8
    for ours, first, second in zip(mean, load(a), load(b), strict=True):
        assert set(ours) == set(first)
        for name, value in ours.items():
            expected = 0.75 * first[name].float() + 0.25 * second[name].float()
            assert torch.equal(value, expected.to(first[name].dtype)), name


def test_the_checkpoint_tutorials_tool_splits_the_average_again(
    average_package, two_models, shell, tmp_path
):
    import numpy as np

    a, b = (llamakit.open_checkpoint(path) for path in two_models)

    good(shell(f"llamakit average {a.path} {b.path} mean -n 2", average_package))

    mean = llamakit.open_checkpoint(tmp_path / "mean")
    assert len(list(mean.path.glob("*.pth"))) == 2
    for name, parameter in a.parameters.items():
        expected = 0.5 * a.read(name).astype("float32") + 0.5 * b.read(name).astype("float32")
        assert np.array_equal(mean.read(name), expected.astype(parameter.dtype)), name


def test_the_checkpoint_tutorials_tool_refuses_two_shapes(
    average_package, reference_cases, shell, tmp_path
):
    a, b = reference_cases / "mha-mp8", reference_cases / "gqa-mp1"

    done = shell(f"llamakit average {a} {b} mean", average_package)

    assert done.returncode == 1
    assert done.stderr.startswith("llamakit: error: ")
    assert "only models of one shape can be averaged" in done.stderr
    assert not (tmp_path / "mean").exists()
