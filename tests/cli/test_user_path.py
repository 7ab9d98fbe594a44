"""A ``~`` that no shell has expanded is the home folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import click
import pytest

from llamakit.cli.user_path import UserPath


def test_the_model_in_the_variable_may_be_below_the_home_folder(
    run_llamakit, isolated, reference_cases: Path
) -> None:
    home = Path(isolated["HOME"])
    shutil.copytree(reference_cases / "gqa-mp1", home / "models" / "small")
    shutil.copy(reference_cases / "tokenizer.model", home / "models")

    done = run_llamakit(
        *("generate", "--max-gen-len", "1", "--temperature", "0", "hello"),
        env={"LLAMAKIT_MODEL": "~/models/small"},
    )

    assert done.returncode == 0, done.stderr


def test_a_model_that_is_not_there_names_the_variable(run_llamakit, isolated) -> None:
    done = run_llamakit("generate", "hello", env={"LLAMAKIT_MODEL": "~/nowhere"})

    assert f"LLAMAKIT_MODEL: no such folder: {isolated['HOME']}/nowhere" in done.stderr


def test_a_folder_that_is_called_so_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "~x").mkdir()
    monkeypatch.chdir(tmp_path)

    assert UserPath().convert("~x", None, click.Context(click.Command("x"))) == "~x"
