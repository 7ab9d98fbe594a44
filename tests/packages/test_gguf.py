"""``llamakit-gguf``, installed, from the shell."""

from __future__ import annotations

import json
import subprocess

import pytest
from plugin_packages import generated, good

import llamakit
from llamakit import demo

PROMPT = "Once upon a time"
THERE_AND_BACK = """
import json, sys
from pathlib import Path
import llamakit
differing = {}
for number, source in enumerate(map(Path, json.loads(sys.argv[1]))):
    stored = llamakit.open_checkpoint(source).parameters["output.weight"].dtype
    for outtype in ("f32", "own"):
        options = {} if outtype == "own" else {"outtype": outtype}
        made, back = Path(f"{number}-{outtype}"), Path(f"{number}-{outtype}-back")
        llamakit.export(source, made, "gguf", **options)
        (file,) = made.glob("*.gguf")
        llamakit.reshard(file, back, 2, dtype=stored if options else None)
        report = llamakit.diff(source, back)
        wrong = [] if report.same else ["weights"]
        tokenizers = (it / "tokenizer.model" for it in (source.parent, back))
        wrong += ["tokenizer"] if len({it.read_bytes() for it in tokenizers}) > 1 else []
        differing[f"{source} {outtype}"] = wrong
print(json.dumps(differing))
"""


@pytest.mark.parametrize("name", ["gqa-mp1", "mha-mp8"])
@pytest.mark.parametrize("outtype", ["f32", "f16"])
def test_transformers_answers_from_the_gguf_file_as_the_reference_did(
    run, reference_cases, tmp_path, name, outtype
):
    import torch
    from transformers import AutoModelForCausalLM

    expected = json.loads((reference_cases / f"{name}.expected.json").read_text("utf-8"))
    words = ("--format", "gguf", "--option", f"outtype={outtype}")

    report = json.loads(good(run("export", reference_cases / name, "made", *words, "--json")))

    (file,) = (it["name"] for it in report["files"] if it["name"].endswith(".gguf"))
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path / "made", gguf_file=file, dtype=torch.float32
    )
    for prompt, tokens in zip(
        expected["prompt_tokens"], expected["greedy_solo"]["tokens"], strict=True
    ):
        made = model.generate(
            torch.tensor([prompt]), max_new_tokens=len(tokens), max_length=None, do_sample=False
        )
        assert made[0, len(prompt) :].tolist() == tokens


def test_there_and_back_is_the_same_checkpoint_and_tokenizer(
    environment, isolated, reference_cases, reference_cases_llama3, tmp_path
):
    folders = {reference_cases: ("gqa-mp1", "mha-mp8")}
    folders[reference_cases_llama3] = ("llama3-gqa-mp1", "llama31-mp8")
    sources = [str(folder / name) for folder, names in folders.items() for name in names]

    done = subprocess.run(
        [environment.python, "-c", THERE_AND_BACK, json.dumps(sources)],
        env=isolated,
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )

    differing = {f"{source} {outtype}": [] for source in sources for outtype in ("f32", "own")}
    assert json.loads(good(done)) == differing


def test_the_engine_answers_from_a_gguf_file_as_from_metas(run, reference_cases_llama3, tmp_path):
    source = reference_cases_llama3 / "llama31-mp8"
    good(run("export", source, "made", "--format", "gguf"))
    (file,) = (tmp_path / "made").glob("*.gguf")

    answers = [
        generated(run, "-m", model, "--temperature", "0", "--model-parallel-size", size, PROMPT)
        for model, size in ((source, "1"), (file, "1"))
    ]

    assert answers[0]["tokens"] == answers[1]["tokens"]


def test_llama_4_is_refused_by_name(run, reference_cases_llama3, tmp_path):
    done = run("export", reference_cases_llama3 / "llama4-moe-mp2", "made", "--format", "gguf")

    assert done.returncode == 1
    assert "is a Llama 4, a mixture of experts" in done.stderr
    assert list(tmp_path.glob("*made*")) == []


def test_a_gguf_file_is_inspected_compared_exported_and_planned(run, reference_cases, tmp_path):
    source = reference_cases / "gqa-mp1"
    words = ("--format", "gguf", "--option", "outtype=q8_0", "--instruct")
    good(run("export", source, "made", *words))
    (file,) = (tmp_path / "made").glob("*.gguf")

    inspected = json.loads(good(run("inspect", file, "--json")))
    plan = json.loads(good(run("reshard", file, "back", "-n", "2", "--plan", "--json")))
    good(run("export", file, "hf"))
    good(run("export", file, "again", "--format", "gguf", "--option", "outtype=f16"))

    assert inspected["good"]
    assert inspected["tokenizer"]["path"] == str(file)
    assert inspected["form"] == "gguf"
    assert not (tmp_path / "back").exists()
    assert "tokenizer.model" in {entry["name"] for entry in plan["files"]}
    good(run("diff", file, "hf"))
    history = good(run("inspect", "--history", "hf"))
    assert "1. export --format gguf" in history
    assert "2. export --format hf" in history
    (again,) = (tmp_path / "again").glob("*.gguf")
    tokenizers = [llamakit.load_tokenizer(it) for it in (source, tmp_path / "hf")]
    assert len({tuple(it.encode(PROMPT)) for it in tokenizers}) == 1
    done = run("inspect", tmp_path / "again")
    assert f"holds {again.name}: give one of them" in done.stderr


def test_a_dialog_is_encoded_by_the_chat_template_of_the_file(run, reference_cases, tmp_path):
    good(run("export", reference_cases / "gqa-mp1", "made", "--format", "gguf", "--instruct"))
    (file,) = (tmp_path / "made").glob("*.gguf")
    (tmp_path / "dialog.jsonl").write_text('{"messages": [{"role": "user", "content": "Hi"}]}')
    words = ("-m", file, "--temperature", "0", "--prompts", "dialog.jsonl", "--prompt-format")

    answers = [generated(run, *words, name) for name in ("jinja", "llama2")]

    first, second = ((it["prompt_tokens"], it["tokens"]) for it in answers)
    assert first == second


def test_the_export_refuses_a_type_that_there_is_not(run, tmp_path):
    words = ("--format", "gguf", "--option", "outtype=q2_k")

    done = run("export", demo.path(), "made", *words)

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "llamakit: error: outtype is 'q2_k'; it has to be one of f32, f16, bf16, q8_0, q4_0"
    )
    assert list(tmp_path.glob("*made*")) == []
