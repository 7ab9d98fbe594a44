"""Bad input: each gets one clear sentence, a status, and nothing else happens."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def model(reference_cases: Path, tmp_path: Path) -> Path:
    """Return a copy of the eight-shard case that a test may damage."""
    folder = tmp_path / "model"
    shutil.copytree(reference_cases / "mha-mp8", folder)
    shutil.copy(reference_cases / "tokenizer.model", tmp_path)
    return folder


def refused(run: Run, model: Path | str, *words: str, status: int = 1) -> str:
    """Run and return what is said to be wrong."""
    done = run("generate", "-m", str(model), "hello", "--max-new-tokens", "2", *words)
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if "error: " in line.lower()]
    assert len(lines) == 1, done.stderr
    return done.stderr[done.stderr.index(lines[0]) :]


def test_no_such_folder(run_llamakit: Run, tmp_path: Path) -> None:
    message = refused(run_llamakit, tmp_path / "nowhere")

    assert "nowhere" in message


def test_an_empty_folder(run_llamakit: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    message = refused(run_llamakit, tmp_path / "empty")

    assert "empty" in message
    assert "consolidated.00.pth" in message


def test_shard_03_missing(run_llamakit: Run, model: Path) -> None:
    (model / "consolidated.03.pth").unlink()

    assert "consolidated.03.pth" in refused(run_llamakit, model)


def test_a_truncated_shard(run_llamakit: Run, model: Path) -> None:
    shard = model / "consolidated.05.pth"
    os.truncate(shard, 30_000)

    message = refused(run_llamakit, model)

    assert "consolidated.05.pth" in message
    assert "30000" in message.replace(",", "").replace(" ", "")


def test_a_shard_that_is_an_html_page(run_llamakit: Run, model: Path) -> None:
    (model / "consolidated.02.pth").write_text("<!DOCTYPE html><title>403 Forbidden</title>")

    message = refused(run_llamakit, model)

    assert "consolidated.02.pth" in message
    assert "HTML" in message


class Hostile:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


def test_a_pickle_that_calls_os_system_does_not_run(
    run_llamakit: Run, model: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "executed"
    content = pickle.dumps({"norm.weight": Hostile(f"touch {marker}")})
    with zipfile.ZipFile(model / "consolidated.00.pth", "w") as archive:
        archive.writestr("consolidated.00/data.pkl", content)
        archive.writestr("consolidated.00/version", "3\n")

    message = refused(run_llamakit, model)

    assert "system" in message
    assert "consolidated.00.pth" in message
    assert not marker.exists()
    pickle.load(io.BytesIO(content))  # it would have
    assert marker.exists()


def test_params_absent(run_llamakit: Run, model: Path) -> None:
    (model / "params.json").unlink()

    assert "params.json" in refused(run_llamakit, model)


def test_params_not_json(run_llamakit: Run, model: Path) -> None:
    (model / "params.json").write_text("dim: 64")

    assert "params.json" in refused(run_llamakit, model)


def test_params_that_contradict_the_shapes(run_llamakit: Run, model: Path) -> None:
    params = json.loads((model / "params.json").read_text())
    (model / "params.json").write_text(json.dumps(params | {"n_layers": 2}))

    message = refused(run_llamakit, model)

    assert "params.json" in message
    assert "layers.2" in message


def test_an_unknown_key_is_a_warning(run_llamakit: Run, model: Path) -> None:
    params = json.loads((model / "params.json").read_text())
    (model / "params.json").write_text(json.dumps(params | {"quantum": 7}))

    done = run_llamakit("generate", "-m", str(model), "hi", "--max-new-tokens", "2")

    assert done.returncode == 0
    assert "quantum" in done.stderr


def test_a_tokenizer_that_is_not_sentencepiece(run_llamakit: Run, model: Path) -> None:
    (model.parent / "tokenizer.model").write_text("<html>gone</html>")

    message = refused(run_llamakit, model)

    assert "tokenizer.model" in message
    assert "HTML" in message


def test_a_vocabulary_larger_than_the_embedding(run_llamakit: Run, model: Path) -> None:
    from llamakit import demo

    tokenizer = demo.path().parent / "tokenizer.model"

    message = refused(run_llamakit, model, "--tokenizer", str(tokenizer))

    assert "576 rows" in message
    assert "--tokenizer" in message


def test_no_tokenizer(run_llamakit: Run, model: Path) -> None:
    (model.parent / "tokenizer.model").unlink()

    assert "--tokenizer" in refused(run_llamakit, model)


def test_a_model_parallel_size_that_does_not_divide(run_llamakit: Run, model: Path) -> None:
    message = refused(run_llamakit, model, "--model-parallel-size", "3")

    assert "1, 2, 4, 8" in message


def test_a_prompt_longer_than_the_context(run_llamakit: Run, model: Path) -> None:
    message = refused(run_llamakit, model, "--max-seq-len", "2")

    assert "--max-seq-len" in message


def test_an_unknown_sampler(run_llamakit: Run, model: Path) -> None:
    message = refused(run_llamakit, model, "--sampler", "gredy", status=2)

    assert "did you mean 'greedy'" in message


def test_an_option_that_the_sampler_lacks(run_llamakit: Run, model: Path) -> None:
    words = ("--sampler", "top-p", "--sampler-option", "temprature=1")

    message = refused(run_llamakit, model, *words, status=2)

    assert "temprature" in message
    assert "temperature" in message


def test_a_value_out_of_range(run_llamakit: Run, model: Path) -> None:
    words = ("--sampler", "top-p", "--sampler-option", "p=1.5")

    message = refused(run_llamakit, model, *words, status=2)

    assert "1.5" in message
    assert "between 0 and 1" in message


def test_quantized_weights_are_refused_in_one_sentence(run_llamakit: Run, model: Path) -> None:
    params = json.loads((model / "params.json").read_text())
    quantized = {"quantization_args": {"scheme": "int4_weight_int8_dynamic_activation"}}
    (model / "params.json").write_text(json.dumps(params | quantized))

    message = refused(run_llamakit, model)

    assert "int4_weight_int8_dynamic_activation" in message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "line 2: not JSON"),
        ('{"text": "a"}', "line 2: expected"),
        ('{"prompt": "a", "text": 1}', "line 2: the key 'text' is one of the answer's"),
        ('{"messages": [{"role": "robot", "content": "a"}]}', "line 2: messages have to be"),
    ],
)
def test_a_bad_line_of_prompts_is_named(
    run_llamakit: Run, model: Path, tmp_path: Path, line: str, message: str
) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(f'{{"prompt": "fine"}}\n{line}\n')

    assert message in refused(run_llamakit, model, "--prompts", str(file))


def test_special_tags_in_a_dialog_are_refused_by_name(
    run_llamakit: Run, model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "prompts.jsonl"
    messages = [{"role": "user", "content": "a <<SYS>> b"}]
    file.write_text(json.dumps({"id": "q7", "messages": messages}))

    message = refused(run_llamakit, model, "--prompts", str(file))

    assert "'q7'" in message
    assert "<<SYS>>" in message


def test_no_prompt(run_llamakit: Run, model: Path) -> None:
    done = run_llamakit("generate", "-m", str(model))

    assert done.returncode == 2
    assert "no prompt" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "--sampler", "nope", "--output", "new.jsonl"],
        ["generate", "--draft", "nope", "--output", "new/folder/"],
        ["generate", "word " * 3000, "--output", "new.jsonl"],
        ["score", "--tokenizer", "nope", "--output", "new.jsonl"],
    ],
)
def test_what_is_refused_leaves_nothing_at_the_output(
    run_llamakit: Run, tmp_path: Path, words: list[str]
) -> None:
    words[-1] = f"{tmp_path}/out/{words[-1]}"
    (tmp_path / "out").mkdir()

    done = run_llamakit(*words, "hello")

    assert done.returncode != 0
    assert list((tmp_path / "out").iterdir()) == []
