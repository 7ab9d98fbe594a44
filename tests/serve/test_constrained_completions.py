"""A completion that is held to ``yes|no`` is one of the two: it does not begin with a blank."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from server_kit import Running, thread

from llamakit.api import Llama, choose_sampling
from llamakit.plugin_manager.factories import Choice

LLAMA_3 = Path(__file__).parents[1] / "data" / "reference-cases-llama3" / "llama3-gqa-mp1"
YES_OR_NO = {
    "regex": ("regex", {"pattern": "yes|no"}),
    "lark": ("grammar", {"text": 'start: "yes" | "no"'}),
    "gbnf": ("grammar", {"text": 'root ::= "yes" | "no"'}),
}
PROMPTS = ["Is it true? Answer:", "Is it true? ", "Is"]


def completed(server: Running, **body: Any) -> list[dict[str, Any]]:
    """Complete each prompt twice, and return the choices."""
    asked = {"prompt": PROMPTS, "n": 2, "max_tokens": 8, "temperature": 1, "seed": 1, **body}
    answer = server.post("/v1/completions", asked)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["choices"])


def processors(name: str) -> list[dict[str, Any]]:
    chosen, options = YES_OR_NO[name]
    return [{"name": chosen, "options": options}]


@pytest.mark.parametrize("name", YES_OR_NO)
def test_a_completion_is_what_the_grammar_matched(name: str, server: Running) -> None:
    choices = completed(server, processors=processors(name), logprobs=1)

    assert {choice["text"] for choice in choices} <= {"yes", "no"}
    for choice in choices:
        ends = [*choice["logprobs"]["text_offset"][1:], len(choice["text"])]
        assert ends[-1] == len(choice["text"])
        assert ends == sorted(ends)


def test_json_and_what_is_streamed_or_echoed_begin_likewise(server: Running) -> None:
    wanted = {"name": "json-schema", "options": {"schema": '{"const": 12}'}}
    as_json = completed(server, processors=[wanted])
    body = {"prompt": PROMPTS[0], "max_tokens": 8, "seed": 1, "processors": processors("regex")}
    lines = server.post("/v1/completions", {**body, "stream": True}).text.splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    (echoed,) = server.post("/v1/completions", {**body, "echo": True}).json()["choices"]

    assert {choice["text"] for choice in as_json} == {"12"}
    assert "".join(event["choices"][0]["text"] for event in events) in ("yes", "no")
    assert echoed["text"].replace(" ", "").startswith(PROMPTS[0].replace(" ", ""))
    assert echoed["text"].removeprefix(PROMPTS[0]).strip() in ("yes", "no")


def test_a_completion_without_a_grammar_keeps_its_blank(server: Running) -> None:
    choices = completed(server, prompt="Once upon a time there", sampler="greedy", n=1)

    assert choices[0]["text"].startswith(" ")


@pytest.mark.parametrize("name", YES_OR_NO)
def test_an_answer_of_a_llama_3_is_what_the_grammar_matched(name: str) -> None:
    with (
        Llama.open(LLAMA_3, max_batch_size=2, max_seq_len=64, dtype="float32") as llama,
        thread(llama) as running,
    ):
        choices = completed(running, processors=processors(name))

    assert {choice["text"] for choice in choices} <= {"yes", "no"}


def test_neither_does_an_answer_in_python_whose_prompt_keeps_its_space(llama: Llama) -> None:
    sampling = choose_sampling(
        processors=[Choice(*YES_OR_NO["regex"])], temperature=1.0, tokenizer=llama.tokenizer
    )
    prompts = [llama.tokenizer.encode(prompt, bos=True) for prompt in PROMPTS]
    texts = dict.fromkeys(range(len(prompts)), "")
    for chunk in llama.stream(prompts, sampling=sampling, seed=1, keep_space=True):
        texts[chunk.index] += chunk.text

    assert set(texts.values()) <= {"yes", "no"}
