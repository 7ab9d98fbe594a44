"""Batches on a cluster: the answers of one process, each once."""

from __future__ import annotations

import json

import pytest
from conftest import write_prompts

MIXED = [
    {"prompt": "Once upon a time", "id": "a", "mine": [1]},
    {"messages": [{"role": "user", "content": "What is the name of the dog?"}], "id": "b"},
    {"prompt": "The cat", "id": "c", "seed": 4},
]


def test_answers_equal_those_of_one_process(generate, cluster, tmp_path):
    write_prompts(tmp_path / "many.jsonl", 40)
    mixed = [*map(json.dumps, MIXED), "", (tmp_path / "many.jsonl").read_text("utf-8")]
    (tmp_path / "prompts.jsonl").write_text("\n".join(mixed), "utf-8")

    said = generate(
        *("--prompts", "prompts.jsonl", "--output", "answers/", "--replicas", "auto"),
        *("--on", f"ray:{cluster.address}", "--logprobs"),
    )
    generate("--prompts", "prompts.jsonl", "--output", "one.jsonl", "--logprobs")

    assert "43 answers, " in said
    assert "tokens/s" in said
    found, expected = generate.answers("answers/answers.jsonl"), generate.answers("one.jsonl")
    for name, answer in expected.items():
        # How many rows a batch has, and how many threads there are, changes the last digits.
        assert found[name].pop("logprobs") == pytest.approx(answer.pop("logprobs"), abs=1e-4)
    assert found == expected


def test_parquet_is_read_and_the_same_command_resumes(generate, cluster, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet

    columns = {key: [line.get(key) for line in MIXED] for line in MIXED for key in line}
    pa.parquet.write_table(pa.table(columns), tmp_path / "prompts.parquet")
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, MIXED)), "utf-8")
    words = ("--output", "ray.jsonl", "--on", f"ray:{cluster.address}")
    generate("--prompts", "prompts.jsonl", "--output", "one.jsonl")
    kept = (tmp_path / "one.jsonl").read_text("utf-8").splitlines(keepends=True)[:2]
    (tmp_path / "ray.jsonl").write_text("".join(kept), "utf-8")

    said = generate("--prompts", "prompts.parquet", *words)
    again = generate("--prompts", "prompts.parquet", *words)

    assert "1 answer, " in said
    assert "has all 3 answers already" in again
    assert generate.answers("ray.jsonl") == generate.answers("one.jsonl")


def test_a_cluster_is_refused_without_its_token(generate, cluster, tmp_path):
    (tmp_path / "prompts.jsonl").write_text('"hello"', "utf-8")
    (tmp_path / "wrong").write_text("0" * 64)
    generate.settings = {**generate.settings, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "wrong")}

    process = generate.start("--prompts", "prompts.jsonl", "--on", f"ray:{cluster.address}")

    said = process.communicate(timeout=300)[1]
    assert process.returncode == 1
    assert said.splitlines()[-1].startswith("llamakit: error: the Ray cluster at ")
    assert "Traceback" not in said
    assert "0" * 64 not in said


def test_a_prompt_that_cannot_be_answered_is_named_before_any_is(generate, cluster, tmp_path):
    (tmp_path / "prompts.jsonl").write_text('"hello"\n' + json.dumps("word " * 3000), "utf-8")

    process = generate.start(
        *("--prompts", "prompts.jsonl", "--output", "ray.jsonl"),
        *("--on", f"ray:{cluster.address}"),
    )

    said = process.communicate(timeout=300)[1]
    assert process.returncode == 1
    assert "prompt 2: the prompt has" in said
    assert not (tmp_path / "ray.jsonl").exists()
