"""lm-evaluation-harness, through the adapter and through the server: ``llamakit score`` agrees."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from conftest import MODEL, PYTHON

ROOT = Path(__file__).parents[2]
TASKS = ROOT / "tests" / "data" / "lm-eval"
ADAPTER = ROOT / "examples" / "lm-eval" / "lm_eval_llamakit.py"
Numbers = tuple[list[float], list[list[float]], float]
"""The log-probability of each text and of each choice, and the bits per byte of the texts."""


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A folder with two tasks, where lm-eval runs: their data is named relative to it."""
    return Path(shutil.copytree(TASKS, tmp_path / "tasks"))


def output_of(program: list[Any], folder: Path, **variables: str) -> str:
    done = subprocess.run(
        list(map(str, program)),
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def lm_eval(
    program: list[Any], folder: Path, model: str, arguments: str, **variables: str
) -> Numbers:
    """Run lm-eval on the two tasks."""
    words = ["run", "--model", model, "--model_args", arguments, "--include_path", "."]
    words += ["--tasks", "shard_texts,shard_choices", "--log_samples", "--output_path", "out"]
    output_of([*program, *words], folder, **variables)
    texts, choices = (
        [json.loads(line) for line in file_in(folder, f"samples_{task}_*.jsonl").splitlines()]
        for task in ("shard_texts", "shard_choices")
    )
    results = json.loads(file_in(folder, "results_*.json"))["results"]
    return (
        [float(sample["filtered_resps"][0]) for sample in texts],
        [[float(logprob) for logprob, _greedy in sample["filtered_resps"]] for sample in choices],
        float(results["shard_texts"]["bits_per_byte,none"]),
    )


def file_in(folder: Path, pattern: str) -> str:
    (path,) = folder.glob(f"out/*/{pattern}")
    return path.read_text("utf-8")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Numbers:
    """What ``llamakit score`` says of the same."""
    folder = shutil.copytree(TASKS, tmp_path_factory.mktemp("score") / "tasks")
    documents = [json.loads(line) for line in (folder / "documents.jsonl").open(encoding="utf-8")]
    items: list[dict[str, Any]] = [{"text": document["text"]} for document in documents]
    items += [
        {"context": it["context"], "choices": [f" {choice}" for choice in it["choices"]]}
        for it in documents
    ]
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    words = ["score", "--items", "items.jsonl", "--json", "--dtype", "float32"]
    words += ["--output", "scores.jsonl"]
    summary = json.loads(output_of([PYTHON, "-m", "llamakit", *words], folder))["summary"]
    lines = [json.loads(line) for line in (folder / "scores.jsonl").open(encoding="utf-8")]
    texts, choices = lines[: len(documents)], lines[len(documents) :]
    return (
        [line["logprob"] for line in texts],
        [[choice["logprob"] for choice in line["choices"]] for line in choices],
        summary["text"]["bits_per_byte"],
    )


def assert_equal(found: Numbers, expected: Numbers) -> None:
    assert found[0] == pytest.approx(expected[0], rel=1e-4)
    for logprobs, others in zip(found[1], expected[1], strict=True):
        assert logprobs == pytest.approx(others, rel=1e-4)
    assert found[2] == pytest.approx(expected[2], rel=1e-4)


def test_lm_eval_adapter(tasks: Path, expected: Numbers) -> None:
    model = output_of([PYTHON, "-c", "from llamakit import demo; print(demo.path())"], tasks)
    both = sysconfig.get_path("purelib")  # llamakit's Python, with lm-eval of this environment

    found = lm_eval(
        [PYTHON, ADAPTER],
        tasks,
        "llamakit",
        f"model={model.strip()},dtype=float32",
        PYTHONPATH=both,
    )

    assert_equal(found, expected)


def test_lm_eval_local_completions(base_url: str, tasks: Path, expected: Numbers) -> None:
    choices = tasks / "shard_choices.yaml"  # with its remote tokenizer, lm-eval writes no BOS
    choices.write_text(choices.read_text().replace("{{context}}", "<s>{{context}}"))

    found = lm_eval(
        [sys.executable, "-m", "lm_eval"],
        tasks,
        "local-completions",
        f"model={MODEL},base_url={base_url}/completions,tokenizer_backend=remote",
    )

    assert_equal(found, expected)
