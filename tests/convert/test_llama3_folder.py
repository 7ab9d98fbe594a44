"""Exported checkpoints of Llama 3 and 4, judged by transformers against the reference's answers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before the import below, which reads it

import pytest
import transformers
from lazy_torch import torch

from llamakit.api import export, import_checkpoint, open_checkpoint

CASES = ["llama3-gqa-mp1", "llama31-mp8", "llama4-moe-mp2"]
CASE = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module", params=CASES)
def case(
    request: pytest.FixtureRequest,
    reference_cases_llama3: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> CASE:
    """An exported case, and what the reference answered."""
    folder = tmp_path_factory.mktemp(request.param) / "hf"
    export(reference_cases_llama3 / request.param, folder, instruct=True, max_shard_size="500KB")
    answers = (reference_cases_llama3 / f"{request.param}.expected.json").read_text()
    return folder, json.loads(answers)


def test_transformers_gives_the_answers_of_the_reference(case: CASE) -> None:
    folder, expected = case
    text = expected["long_prompt"]["tokens"]

    dtype = torch.float32  # first: skips where there is no torch
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)

    with torch.no_grad():
        logits = model(torch.tensor([text])).logits[0, -1].tolist()
        for prompt, answer in zip(expected["prompt_tokens"], expected["greedy"], strict=True):
            tokens = [*prompt, *answer["tokens"]]
            scores = model(torch.tensor([tokens])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            assert scores.argmax(-1).tolist() == answer["tokens"]
            assert scores.max(-1).values.tolist() == pytest.approx(answer["logprobs"], abs=1e-4)
    assert logits == pytest.approx(expected["long_prompt"]["last_logits"], abs=1e-4)
    generation = model.generation_config
    assert generation.bos_token_id == expected["prompt_tokens"][0][0]
    assert generation.eos_token_id == [1025, 1032, 1033]


def test_auto_tokenizer_gives_the_tokens_of_the_reference(case: CASE) -> None:
    folder, expected = case

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    prompts = zip(expected["prompts"], expected["prompt_tokens"], strict=True)
    for prompt, tokens in prompts:
        assert "<|" in prompt or tokenizer(prompt)["input_ids"] == tokens
    dialogs = expected.get("dialogs", [])  # the case of Llama 4 has none
    for dialog, tokens in zip(dialogs, expected.get("dialog_tokens", []), strict=True):
        if "<|" in json.dumps(dialog):
            continue
        rendered = tokenizer.apply_chat_template(dialog, add_generation_prompt=True)
        assert rendered["input_ids"] == tokens


def test_there_and_back_gives_the_same_tokenizer_and_weights(
    case: CASE, reference_cases_llama3: Path, tmp_path: Path, tensor_bytes: Any
) -> None:
    folder, _ = case
    if folder.parent.name.startswith("llama4"):
        pytest.skip("a Llama 4 is not imported from Hugging Face's format")
    source = next(it for it in CASES if it in str(folder))

    import_checkpoint(folder, tmp_path / "back")

    model = (reference_cases_llama3 / "tokenizer.model").read_bytes()
    assert (tmp_path / "back" / "tokenizer.model").read_bytes() == model
    ours, theirs = open_checkpoint(tmp_path / "back"), reference_cases_llama3 / source
    assert tensor_bytes(ours) == tensor_bytes(open_checkpoint(theirs))
