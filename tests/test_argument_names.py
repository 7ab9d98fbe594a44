"""Errors name the arguments of Python to Python, and flags to who has typed a command."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

import llamakit
from llamakit import api
from llamakit.api import Llama
from llamakit.argument_names import as_arguments
from llamakit.cli.main import main
from llamakit.errors import LlamakitError

PACKAGE = Path(llamakit.__file__).parent
COMMANDS_ONLY = {"--prompts", "--include", "--no-auth", "--api-key-file", "--host", "--port"}
COMMANDS_ONLY |= {"--allowed-host", "--upgrade", "--help", "--no-such-option", "--format"}
COMMANDS_ONLY |= {"--json", "--items", "--key", "--strip-prefix", "--nproc_per_node"}
COMMANDS_ONLY |= {"--tensors", "--for", "--plan", "--model-id", "--rm"}
COMMANDS_ONLY |= {"--on", "--part", "--replicas"}
"""Of the server, of commands that the Python API has no part of, and of other programs."""


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("pass --force to replace it", "pass force=True to replace it"),
        ("raise --max-seq-len", "raise max_seq_len"),
        ("pass it with --tokenizer FILE", "pass it with tokenizer=FILE"),
        ("Use --model-parallel-size 2 or fewer", "Use model_parallel_size=2 or fewer"),
        (
            "name one with --prompt-format jinja:file=FILE",
            'name one with prompt_format("jinja", file=FILE)',
        ),
        ("pass --base or --instruct", "pass instruct=False or instruct=True"),
        ("pass it with --url-file FILE, or", "pass it with link=FILE, or"),
        (
            "pip install --upgrade x; --nproc_per_node 2",
            "pip install --upgrade x; --nproc_per_node 2",
        ),
        ("a folder called my--force or --forced", "a folder called my--force or --forced"),
    ],
)
def test_flags_become_arguments(message: str, expected: str) -> None:
    assert as_arguments(message) == expected


def test_every_flag_in_the_messages_of_the_library_has_an_argument() -> None:
    functions = [
        getattr(api, name) for name in api.__all__ if inspect.isfunction(getattr(api, name))
    ]
    functions += [Llama.open, Llama.stream, Llama.stream_chat]
    known = {name for it in functions for name in inspect.signature(it).parameters}
    known |= {"instruct", "max_shard_size"}  # options of the exporter hf
    known |= {field.name for field in dataclasses.fields(api.Edits)}
    files = [it for it in PACKAGE.rglob("*.py") if not {"cli", "testing"} & {*it.parts}]
    flags = {
        flag for it in files for flag in re.findall(r'"[^"\n]*?(--[a-z][a-z_-]+)', it.read_text())
    }

    arguments = {as_arguments(flag).partition("=")[0] for flag in flags - COMMANDS_ONLY}

    assert arguments - known == set()


def test_the_same_error_is_told_to_both(
    reference_cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(reference_cases / "gqa-mp1")
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(LlamakitError, match="or pass force=True to replace it"):
        api.reshard(source, tmp_path, 1)

    assert main(["reshard", source, str(tmp_path), "-n", "1"]) == 2
    assert "or pass --force to replace it" in capsys.readouterr().err
