"""``llamakit-gguf``, installed, from the shell."""

from __future__ import annotations

import json

import pytest
from plugin_packages import good

from llamakit import demo


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

    (file,) = (entry["name"] for entry in report["files"])
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


def test_the_export_refuses_a_type_that_there_is_not(run, tmp_path):
    words = ("--format", "gguf", "--option", "outtype=q2_k")

    done = run("export", demo.path(), "made", *words)

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "llamakit: error: outtype is 'q2_k'; it has to be one of f32, f16, bf16, q8_0"
    )
    assert list(tmp_path.glob("*made*")) == []
