"""Every answer in a file says what made it, and others are not added without being told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from llamakit.cli.main import main

PROMPTS = ("one", "two words")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, reference_cases: Path) -> Path:
    """Return a folder with a model, a finetune of it, and a file of answers of the model."""
    place = tmp_path_factory.mktemp("provenance")
    shutil.copytree(reference_cases / "gqa-mp1", place / "model")
    shutil.copy(reference_cases / "tokenizer.model", place)
    shutil.copytree(place / "model", place / "finetune")
    shard = place / "finetune" / "consolidated.00.pth"
    weights = torch.load(shard, weights_only=True)
    weights["layers.1.attention.wq.weight"] *= 1.01
    torch.save(weights, shard)
    (place / "schema.json").write_text('{"type": "integer"}')
    assert generate(place) == 0
    return place


def generate(place: Path, *options: str, model: str = "model") -> int:
    settings = {"--max-new-tokens": "3", "--seed": "1", "--temperature": "0.5"}
    given = [it for pair in settings.items() for it in pair if pair[0] not in options]
    return main(
        ["generate", "-m", str(place / model), *PROMPTS, "--dtype", "float32"]
        + ["--output", str(place / "answers.jsonl"), *given, *options]
    )


def test_a_line_says_which_model_and_settings_made_it(folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]

    settings = dict(lines[0]["settings"])
    assert settings.pop("weights") != settings.pop("tokenizer")
    assert settings == {
        **{"model": "model", "dtype": "float32", "max_new_tokens": 3, "seed": 1},
        "temperature": 0.5,
    }
    assert lines[1]["settings"] == lines[0]["settings"]


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (["--temperature", "0.7"], "temperature 0.5, not 0.7"),
        (["--seed", "2"], "seed 1, not 2"),
        (["--max-new-tokens", "4"], "max_new_tokens 3, not 4"),
        (["--top-p", "0.5"], "top_p by default, not 0.5"),
        (["--sampler", "greedy", "--temperature", "0"], 'sampler by default, not "greedy"'),
        (["--processor", "top-k:k=3"], 'processors by default, not [{"top-k": {"k": "3"}}]'),
        (["--stop", "."], 'stop by default, not ["."]'),
        (["--quantize", "int8"], 'quantize by default, not "int8"'),
        (["--max-seq-len", "40"], "max_seq_len by default, not 40"),
        (["--prompt-format", "alpaca"], 'prompt_format by default, not "alpaca"'),
        (["--logprobs"], "logprobs by default, not true"),
        (["--echo"], "echo by default, not true"),
    ],
)
def test_other_settings_are_refused_before_the_model_is_loaded(
    folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], difference: str
) -> None:
    before = (folder / "answers.jsonl").read_bytes()

    status = generate(folder, *options)

    said = capsys.readouterr().err
    assert (status, said.count("\n")) == (2, 1)
    assert difference in said
    assert "--mixed to add to it" in said
    assert (folder / "answers.jsonl").read_bytes() == before


def test_other_weights_are_refused_and_another_folder_of_the_same_ones_is_not(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder / "model", folder / "copy")

    assert generate(folder, model="finetune") == 2
    assert "model model, not finetune" in capsys.readouterr().err
    assert generate(folder, "--max-batch-size", "3", model="copy") == 0
    assert "has all 2 answers already" in capsys.readouterr().err


def test_mixed_adds_answers_that_say_that_they_are_others(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "answers.jsonl", tmp_path)
    place = ["--output", str(tmp_path / "answers.jsonl")]

    assert generate(folder, *place, "--temperature", "0", "--mixed", "three") == 0

    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [it["settings"]["temperature"] for it in lines] == [0.5, 0.5, 0.0]


def test_the_content_of_a_file_that_a_setting_names_counts(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        "--output",
        str(tmp_path / "out.jsonl"),
        "--json-schema",
        str(folder / "schema.json"),
    ]
    assert generate(folder, *options) == 0
    assert generate(folder, *options) == 0

    (folder / "schema.json").write_text('{"type": "boolean"}')

    assert generate(folder, *options) == 2
    assert '"schema.json ' in capsys.readouterr().err


def test_a_file_of_an_earlier_version_is_resumed(folder: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    del lines[0]["settings"]
    (tmp_path / "old.jsonl").write_text(json.dumps(lines[0]) + "\n")

    assert generate(folder, "--output", str(tmp_path / "old.jsonl"), "--temperature", "0") == 0

    assert len((tmp_path / "old.jsonl").read_text().splitlines()) == 2
