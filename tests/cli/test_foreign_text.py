"""Names from files reach the terminal on one line, without escapes, and cut."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pth_files import write_pth

from llamakit.cli.main import main
from llamakit.cli.terminal import LONGEST_MESSAGE, grid, json_text, note, rendered

Run = Callable[..., subprocess.CompletedProcess[str]]
HOSTILE = "\x1b]0;gone\x07\x1b[2J\u202eevil\nllamakit: all good "
PARAMS = {"dim": 4, "n_layers": 1, "n_heads": 1, "vocab_size": 2, "norm_eps": 1e-5}


def obeyed(text: str) -> str:
    """Return what of a command's output a terminal would obey, line ends aside."""
    return "".join(
        character for character in text if not (character.isprintable() or character == "\n")
    )


@pytest.fixture(params=["tensor", "params key", "error page", "dtype", "index"])
def hostile_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Make a checkpoint with a hostile name of 100,000 characters somewhere."""
    name, folder = HOSTILE + "a" * 100_000, tmp_path / "model"
    folder.mkdir()
    params = PARAMS | ({name: 1} if request.param == "params key" else {})
    (folder / "params.json").write_text(json.dumps(params))
    write_pth(folder / "consolidated.00.pth", {"norm.weight": np.ones(4, "float16")})
    if request.param == "tensor":
        write_pth(folder / "consolidated.00.pth", {name: np.ones(4, "float16")})
    if request.param == "error page":
        (folder / "consolidated.00.pth").write_text(f"<html><title>{HOSTILE}</title>")
    if request.param in ("dtype", "index"):
        for file in folder.iterdir():
            file.unlink()
        config = {"model_type": "llama", "hidden_size": 4, "num_hidden_layers": 1, "vocab_size": 2}
        config |= {"num_attention_heads": 1, "intermediate_size": 4}
        (folder / "config.json").write_text(json.dumps(config))
    if request.param == "dtype":
        header = json.dumps({name: {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}})
        data = len(header).to_bytes(8, "little") + header.encode() + bytes(3)
        (folder / "model.safetensors").write_bytes(data)
    if request.param == "index":
        index = {"weight_map": {name: name + ".safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("words", [("inspect", "--tensors"), ("verify", "--deep")])
def test_a_hostile_name_is_shown_and_not_obeyed(
    hostile_folder: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    status = main([*words, str(hostile_folder)])

    printed = capsys.readouterr()
    assert status == 1
    assert obeyed(printed.out + printed.err) == ""
    assert len(printed.out + printed.err) < 6000
    assert not any(line.startswith("llamakit: all good") for line in printed.err.splitlines())


def test_a_warning_is_on_one_line_and_json_output_stays_json(
    run_llamakit: Run, tmp_path: Path
) -> None:
    (tmp_path / "params.json").write_text(json.dumps(PARAMS | {"\u202e\x9b": 1}))
    write_pth(tmp_path / "consolidated.00.pth", {"norm.weight": np.ones(4, "float16")})

    done = run_llamakit("inspect", tmp_path, "--json")

    assert obeyed(done.stdout + done.stderr) == ""
    assert "\\u202e" in json.dumps(json.loads(done.stdout)["oddities"])


def test_what_a_message_forgot_to_quote_is_made_printable_where_it_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = grid("name")
    table.add_row(HOSTILE)

    note(f"error: {HOSTILE}" + "a" * 100_000)
    printed = capsys.readouterr().err + rendered(table) + json_text({"a": HOSTILE + "\ud800"})

    assert obeyed(printed) == ""
    assert "\n  llamakit: all good" in printed
    assert len(printed) < LONGEST_MESSAGE + 1000
