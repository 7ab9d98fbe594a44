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
