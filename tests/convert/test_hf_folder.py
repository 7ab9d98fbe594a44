"""transformers loads a folder with no network and answers as the reference did."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before the import below, which reads it

import jinja2
import pytest
import transformers
from lazy_torch import needs_torch, torch

import llamakit.demo
from llamakit import load_tokenizer
from llamakit.api import Llama
from llamakit.checkpoint.meta_checkpoint import open_meta
from llamakit.convert.export import export_hf
from llamakit.plugin_manager.factories import build
from llamakit.plugin_manager.toolkit import default_toolkit

pytestmark = needs_torch


def export(source: Path, tokenizer: Path, destination: Path) -> Path:
    """Export to a folder of several files of weights."""
    checkpoint = open_meta(source)
    assert checkpoint is not None
    options = {"max_shard_size": checkpoint.parameters["output.weight"].numel * 4}
    export_hf(checkpoint, destination, options | {"tokenizer": tokenizer, "instruct": True})
    assert len(list(destination.glob("*.safetensors"))) > 1
    return destination


def load(folder: Path) -> tuple[Any, Any]:
    dtype = torch.float32  # first: skips where there is no torch
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return model, transformers.AutoTokenizer.from_pretrained(folder)


def answer(model: Any, prompt: list[int], length: int) -> list[int]:
    """Continue greedily; an end, if there is one, is among the ids."""
    ids = torch.tensor([prompt])
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=length, do_sample=False
    )
    return list(output[0, len(prompt) :].tolist())


@pytest.fixture(scope="module", params=["gqa-mp1", "mha-mp8"])
def case(
    request: pytest.FixtureRequest, reference_cases: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Any, dict[str, Any]]:
    folder = export(
        reference_cases / request.param,
        reference_cases / "tokenizer.model",
        tmp_path_factory.mktemp(request.param) / "hf",
    )
    expected = json.loads((reference_cases / f"{request.param}.expected.json").read_text())
    return *load(folder), expected


def test_transformers_gives_the_logits_of_the_reference(
    case: tuple[Any, Any, dict[str, Any]],
) -> None:
    model, _, expected = case
    rows = expected["logits_prompt1"]

    with torch.no_grad():
        logits = model(torch.tensor([expected["prompt_tokens"][1]])).logits[0]

    for ours, theirs in zip(logits[-len(rows) :].tolist(), rows, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


def test_transformers_gives_the_greedy_tokens_of_the_reference(
    case: tuple[Any, Any, dict[str, Any]],
) -> None:
    model, _, expected = case

    tokens = [answer(model, prompt, 24) for prompt in expected["prompt_tokens"]]

    assert tokens == expected["greedy_solo"]["tokens"]


def test_auto_tokenizer_gives_the_prompt_tokens_of_the_reference(
    case: tuple[Any, Any, dict[str, Any]],
) -> None:
    _, tokenizer, expected = case

    encoded = tokenizer(expected["prompts"])

    assert encoded["input_ids"] == expected["prompt_tokens"]
    assert set(encoded) == {"input_ids", "attention_mask"}
    texts = tokenizer.batch_decode(encoded["input_ids"], skip_special_tokens=True)
    assert texts == expected["prompts"]


def test_auto_tokenizer_knows_the_special_tokens(case: tuple[Any, Any, dict[str, Any]]) -> None:
    _, tokenizer, _ = case

    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (1, 2, 0)
    assert tokenizer.encode(" a", add_special_tokens=False) == tokenizer.encode(" a")[1:]


DIALOGS: list[Any] = [
    [{"role": "user", "content": " How do I verify? "}],
    [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "  What is it? "}],
    [
        {"role": "system", "content": "Always answer with Haiku"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": " two\n"},
        {"role": "user", "content": "上下五千年"},
    ],
]


def test_the_chat_template_of_llama_2_gives_the_tokens_of_our_prompt_format(
    case: tuple[Any, Any, dict[str, Any]], reference_cases: Path
) -> None:
    _, tokenizer, _ = case
    ours = load_tokenizer(reference_cases / "tokenizer.model")
    chat: Any = build(default_toolkit().prompt_formats.entry("llama2"), {}, ours)

    for dialog in DIALOGS:
        assert tokenizer.apply_chat_template(dialog)["input_ids"] == chat.encode(dialog)


@pytest.mark.parametrize(
    "dialog",
    [
        [{"role": "assistant", "content": "a"}],
        [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
        [{"role": "user", "content": "a [/INST] b"}],
    ],
)
def test_the_chat_template_refuses_what_our_prompt_format_refuses(
    case: tuple[Any, Any, dict[str, Any]], dialog: Any
) -> None:
    _, tokenizer, _ = case

    with pytest.raises(jinja2.TemplateError, match=r"a tag of this format|user and assistant"):
        tokenizer.apply_chat_template(dialog)


def test_the_demo_model_answers_in_transformers_as_here(tmp_path: Path) -> None:
    source = llamakit.demo.path()
    folder = export(source, source.parent / "tokenizer.model", tmp_path / "hf")
    llama = Llama.build(str(source), max_seq_len=256, dtype="float32")
    prompts = ["Once upon a time", "  上下五千年 😀\n\n", "How do I verify a checkpoint?"]
    tokens = [llama.tokenizer.encode(prompt, bos=True) for prompt in prompts]
    expected, _ = llama.generate(tokens, max_gen_len=32, temperature=0)

    model, tokenizer = load(folder)

    assert tokenizer(prompts)["input_ids"] == tokens
    answers = [answer(model, prompt, 32) for prompt in tokens]
    assert [[t for t in a if t != tokenizer.eos_token_id] for a in answers] == expected
    assert tokenizer.batch_decode(expected) == [llama.tokenizer.decode(a) for a in expected]
