"""``llamakit-merge``, installed, from the shell."""

from __future__ import annotations

import json

from plugin_packages import generated, good

import llamakit
from llamakit import demo


def test_the_merged_checkpoint_is_one_like_any_other(environment, run):
    data = environment.sources / "llamakit-merge" / "tests" / "data"
    expected = json.loads((data / "expected.json").read_text("utf-8"))

    good(run("merge-lora", demo.path(), data / "linear", "merged", "-n", "4"))

    assert "all good" in good(run("verify", "--deep", "merged"))
    answer = generated(run, "-m", "merged", "--temperature", "0", "Once upon a time")
    tokens = expected["answers"]["linear"]["tokens"]
    text = llamakit.load_tokenizer(demo.path()).decode(tokens)
    assert answer["text"].strip() == text.strip()


def test_a_model_merged_with_itself_in_another_format_is_itself(run, tmp_path):
    good(run("export", demo.path(), "hf", "--format", "hf"))
    weight = {"parameters": {"weight": 0.5}}
    models = [{"model": "hf", **weight}, {"model": str(demo.path()), **weight}]
    values = {"merge_method": "linear", "models": models}
    (tmp_path / "merge.yml").write_text(json.dumps(values), "utf-8")  # which is YAML too

    plan = json.loads(good(run("merge", "merge.yml", "merged", "-n", "2", "--plan", "--json")))
    report = json.loads(good(run("merge", "merge.yml", "merged", "-n", "2", "--json")))

    assert [file["name"] for file in plan["files"]] == [file["name"] for file in report["files"]]
    assert report["merge_method"] == "linear"
    assert "every byte" in good(run("diff", "merged", demo.path()))
