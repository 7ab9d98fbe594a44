"""What a request learns of probabilities: the model's, what the sampler saw, and the prompt's."""

from __future__ import annotations

import math
from typing import Any

import pytest
from server_kit import QUESTION, STORY, Running, thread
from test_errors import CHAT, COMPLETIONS, refused

from llamakit.api import Llama
from llamakit.plugin_manager.registry import Entry, Source


def content(running: Running, **body: Any) -> list[dict[str, Any]]:
    """Return what a chat's answer says of each of its tokens."""
    asked = {"messages": QUESTION, "max_tokens": 8, "seed": 3, "logprobs": True, **body}
    asked = {"top_logprobs": 20, "sampler_logprobs": True, **asked}
    answer = running.post(CHAT, asked)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["choices"][0]["logprobs"]["content"]
    return found


def mass(alternatives: list[dict[str, Any]]) -> float:
    return sum(math.exp(it["logprob"]) for it in alternatives)


def test_what_processors_take_away_is_not_there_for_the_sampler(server: Running) -> None:
    for entry in content(server, sampler="draw", processors=["top-k:k=3", "temperature:value=5"]):
        model, sampler = entry["top_logprobs"], entry["sampler"]["top_logprobs"]

        assert len(model) == 20
        assert [it["token"] for it in sampler] == [it["token"] for it in model[:3]]
        assert mass(sampler) == pytest.approx(1, abs=1e-4)
        assert entry["token"] in [it["token"] for it in sampler]
        first, second = (it["logprob"] for it in model[:2])
        falls = sampler[0]["logprob"] - sampler[1]["logprob"]
        assert falls == pytest.approx((first - second) / 5, abs=1e-3)


def test_temperature_and_top_p_are_seen_in_what_the_sampler_drew_from(server: Running) -> None:
    for entry in content(server, temperature=2.0, top_p=0.5):
        model, sampler = entry["top_logprobs"], entry["sampler"]["top_logprobs"]

        assert len(sampler) < 20
        assert mass(sampler) == pytest.approx(1, abs=1e-4)
        drawn = next(it["logprob"] for it in sampler if it["token"] == entry["token"])
        assert entry["sampler"]["logprob"] == pytest.approx(drawn)
        if len(sampler) > 1:
            falls = sampler[0]["logprob"] - sampler[1]["logprob"]
            expected = (model[0]["logprob"] - model[1]["logprob"]) / 2.0
            assert falls == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    "how",
    [
        {"sampler": "greedy"},
        {"sampler": "mirostat", "sampler_options": {"tau": 2.0}},
        {"sampler": "draw", "processors": ["min-p:p=0.2"]},
        {"temperature": 0, "frequency_penalty": 1.5},
        {"response_format": {"type": "json_object"}},
    ],
    ids=str,
)
def test_looking_changes_no_answer_and_the_chosen_id_is_one_that_was_left(
    server: Running, how: dict[str, Any]
) -> None:
    content(server, **how)  # now both find the prompt's keys and values in the cache: same sums
    looked = content(server, **how)
    plain = content(server, sampler_logprobs=False, **how)

    assert [it["token"] for it in looked] == [it["token"] for it in plain]
    assert [it["logprob"] for it in looked] == pytest.approx([it["logprob"] for it in plain])
    assert not any("sampler" in it for it in plain)
    for entry in looked:
        sampler = entry["sampler"]
        assert -20 < sampler["logprob"] <= 1e-6
        assert all(math.isfinite(it["logprob"]) for it in sampler["top_logprobs"])


def test_completions_tell_it_in_lists_streamed_or_not(server: Running) -> None:
    body = {
        "prompt": STORY,
        "max_tokens": 6,
        "seed": 1,
        "logprobs": 4,
        "sampler_logprobs": True,
        "sampler": "draw",
        "processors": ["top-k:k=2"],
    }

    found = server.post(COMPLETIONS, body).json()["choices"][0]["logprobs"]
    streamed = [
        event.choices[0].logprobs.model_dump()
        for event in server.openai().completions.create(
            model="llama-demo",
            prompt=STORY,
            max_tokens=6,
            seed=1,
            logprobs=4,
            stream=True,
            extra_body={name: body[name] for name in ("sampler_logprobs", "sampler", "processors")},
        )
        if event.choices[0].logprobs
    ]

    assert len(found["sampler_token_logprobs"]) == len(found["tokens"]) == 6
    for token, top in zip(found["tokens"], found["sampler_top_logprobs"], strict=True):
        assert token in top
        assert len(top) == 2
        assert sum(map(math.exp, top.values())) == pytest.approx(1, abs=1e-4)
    logprobs = [it for event in streamed for it in event["sampler_token_logprobs"]]
    assert logprobs == pytest.approx(found["sampler_token_logprobs"], abs=1e-4)


def test_several_requests_look_at_the_same_time_or_not(server: Running) -> None:
    from concurrent.futures import ThreadPoolExecutor

    ways: list[dict[str, Any]] = [
        {"sampler": "draw", "processors": ["top-k:k=3"]},
        {"sampler": "draw", "processors": ["top-k:k=5"], "sampler_logprobs": False},
        {"temperature": 0.8},
        {"temperature": 0.8, "top_logprobs": 0},
    ]
    alone = [content(server, **way) for way in ways]
    with ThreadPoolExecutor(4) as threads:
        crowd = list(threads.map(lambda way: content(server, **way), ways))

    for one, other in zip(alone, crowd, strict=True):
        assert [it["token"] for it in one] == [it["token"] for it in other]
        for mine, its in zip(one, other, strict=True):
            assert ("sampler" in mine) == ("sampler" in its)
            if "sampler" in mine:
                logprob = its["sampler"]["logprob"]
                assert mine["sampler"]["logprob"] == pytest.approx(logprob, abs=1e-4)


def test_what_the_sampler_saw_needs_logprobs(server: Running) -> None:
    error = refused(server.post(CHAT, {"messages": QUESTION, "sampler_logprobs": True}), 400)

    assert error["message"] == "sampler_logprobs needs logprobs"
    assert error["param"] == "sampler_logprobs"


def test_a_third_party_sampler_may_tell_what_it_draws_from(llama: Llama) -> None:
    class Second:
        def __call__(self, logits: Any, rows: Any) -> Any:
            return self.drawn_from(logits, rows).argmax(-1)

        def drawn_from(self, logits: Any, _rows: Any) -> Any:
            return logits.scatter(-1, logits.argmax(-1, keepdim=True), -math.inf)

    source = Source("second-best", "llamakit-second-best", "1", builtin=False)
    llama.toolkit.samplers.add(Entry("sampler", "second-best", Second, "", source))
    with thread(llama) as running:
        found = content(running, sampler="second-best", max_tokens=4, top_logprobs=3)

    for entry in found:
        likeliest, second = (it["token"] for it in entry["top_logprobs"][:2])
        assert entry["token"] == second
        assert entry["sampler"]["top_logprobs"][0]["token"] == second
        assert likeliest not in [it["token"] for it in entry["sampler"]["top_logprobs"]]


def test_a_prompt_that_fills_the_context_is_scored(server: Running) -> None:
    context = server.get("/v1/llamakit/options").json()["context"]
    body = {"max_tokens": 0, "echo": True, "logprobs": 0}

    full = server.post("/v1/completions", {**body, "prompt": [5] * context})
    longer = server.post("/v1/completions", {**body, "prompt": [5] * (context + 1)})

    (choice,) = full.json()["choices"]
    assert len(choice["logprobs"]["token_logprobs"]) == context
    assert choice["finish_reason"] == "length"
    assert longer.json()["error"]["code"] == "context_length_exceeded"


def test_a_prompts_tokens_have_the_alternatives_that_the_model_gives_there(
    server: Running, llama: Llama
) -> None:
    prompt = llama.tokenizer.encode(STORY, bos=True)
    body = {"prompt": prompt, "max_tokens": 0, "echo": True, "logprobs": 3}

    found = server.post(COMPLETIONS, body).json()["choices"][0]["logprobs"]

    assert found["top_logprobs"][0] is None
    for position in range(1, len(prompt)):
        before = {"prompt": prompt[:position], "max_tokens": 1, "logprobs": 3, "temperature": 0}
        expected = server.post(COMPLETIONS, before).json()["choices"][0]["logprobs"]
        assert found["top_logprobs"][position] == pytest.approx(
            expected["top_logprobs"][0], abs=1e-4
        )
