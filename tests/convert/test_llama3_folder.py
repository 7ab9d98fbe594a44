"""Exported checkpoints of Llama 3 and 4, judged by transformers against the reference's answers."""

from __future__ import annotations

import json
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before the import below, which reads it

import pytest
import transformers
from lazy_torch import torch

from llamakit.api import export


@pytest.mark.parametrize("case", ["llama3-gqa-mp1", "llama31-mp8", "llama4-moe-mp2"])
def test_transformers_gives_the_answers_of_the_reference(
    case: str, reference_cases_llama3: Path, tmp_path: Path
) -> None:
    expected = json.loads((reference_cases_llama3 / f"{case}.expected.json").read_text())
    text = expected["long_prompt"]["tokens"]

    export(reference_cases_llama3 / case, tmp_path / "hf", max_shard_size="500KB")

    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)
    generation = model.generation_config
    assert generation.bos_token_id == expected["prompt_tokens"][0][0]
    assert generation.eos_token_id == [1025, 1032, 1033]
    with torch.no_grad():
        logits = model(torch.tensor([text])).logits[0, -1].tolist()
        for prompt, answer in zip(expected["prompt_tokens"], expected["greedy"], strict=True):
            tokens = [*prompt, *answer["tokens"]]
            scores = model(torch.tensor([tokens])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            assert scores.argmax(-1).tolist() == answer["tokens"]
            assert scores.max(-1).values.tolist() == pytest.approx(answer["logprobs"], abs=1e-4)
    assert logits == pytest.approx(expected["long_prompt"]["last_logits"], abs=1e-4)
