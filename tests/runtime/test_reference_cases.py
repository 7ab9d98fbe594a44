"""What the reference implementation answered, answered again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamakit.api import Llama
from llamakit.errors import SpecialTagError
from llamakit.llama.llama import UNSAFE_ERROR

CASES = ("gqa-mp1", "mha-mp8")


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, reference_cases: Path) -> tuple[Llama, dict[str, Any]]:
    name = request.param
    expected = json.loads((reference_cases / f"{name}.expected.json").read_text())
    llama = Llama.build(str(reference_cases / name), max_seq_len=256, dtype="float32")
    return llama, expected


def test_prompt_tokens_are_equal(case: tuple[Llama, dict[str, Any]]) -> None:
    llama, expected = case

    tokens = [llama.tokenizer.encode(prompt, bos=True) for prompt in expected["prompts"]]

    assert tokens == expected["prompt_tokens"]


@pytest.mark.parametrize("max_batch_size", [1, 2, 5])
def test_greedy_tokens_and_logprobs_are_equal_at_every_batch_size(
    case: tuple[Llama, dict[str, Any]], max_batch_size: int
) -> None:
    llama, expected = case
    llama.max_batch_size = max_batch_size

    tokens, logprobs = llama.generate(
        expected["prompt_tokens"], max_gen_len=24, temperature=0, logprobs=True
    )

    for answer in (expected["greedy_solo"], expected["greedy_batch"]):
        assert tokens == answer["tokens"]
        assert logprobs is not None
        for ours, theirs in zip(logprobs, answer["logprobs"], strict=True):
            assert ours == pytest.approx(theirs, abs=1e-4)


def test_echo_gives_the_prompt_and_its_logprobs(case: tuple[Llama, dict[str, Any]]) -> None:
    llama, expected = case

    tokens, logprobs = llama.generate(
        expected["prompt_tokens"][:1], max_gen_len=8, temperature=0, logprobs=True, echo=True
    )

    assert tokens == expected["echo"]["tokens"]
    assert logprobs is not None
    assert logprobs[0] == pytest.approx(expected["echo"]["logprobs"][0], abs=1e-4)


def test_logits_are_equal(case: tuple[Llama, dict[str, Any]]) -> None:
    from llamakit.runtime.model import Batch

    llama, expected = case
    rows = expected["logits_prompt1"]
    prompt = tuple(expected["prompt_tokens"][1])
    model = llama._executor.model

    logits = model(Batch((prompt,), (0,), every_position=True), model.new_cache(1, len(prompt)))

    for ours, theirs in zip(logits[0, -len(rows) :].tolist(), rows, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


def test_dialog_tokens_are_equal_and_a_tag_is_refused(
    case: tuple[Llama, dict[str, Any]],
) -> None:
    llama, expected = case
    prompt_format = llama.prompt_format()

    for dialog, tokens in zip(expected["dialogs"][:4], expected["dialog_tokens"], strict=False):
        assert prompt_format.encode(dialog) == tokens
    with pytest.raises(SpecialTagError, match=r"message 4 \(user\) holds \[INST\]"):
        prompt_format.encode(expected["dialogs"][4])


def test_text_and_chat_answers_are_equal(case: tuple[Llama, dict[str, Any]]) -> None:
    llama, expected = case

    texts = llama.text_completion(expected["prompts"], temperature=0, max_gen_len=8)
    chats = llama.chat_completion(expected["dialogs"], temperature=0, max_gen_len=8)

    assert [text["generation"] for text in texts] == expected["text"]
    assert chats == expected["chat"]


def test_a_dialog_with_a_tag_is_not_computed_and_leaks_nothing(
    case: tuple[Llama, dict[str, Any]],
) -> None:
    llama, expected = case

    answers = llama.chat_completion([expected["dialogs"][4]], temperature=0, logprobs=True)

    content = {"role": "assistant", "content": UNSAFE_ERROR}
    assert answers == [{"generation": content, "tokens": [], "logprobs": []}]
