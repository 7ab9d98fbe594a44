"""Llama Guard: the probability of "unsafe", and the categories that an answer names."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from guard_checkpoint import LLAMA_3, write_guard

from llamakit import Llama
from llamakit.api import choose_sampling, moderate
from llamakit.errors import DialogError, PromptTooLongError, UnsupportedModelError
from llamakit.llama.moderation import categories_of, verdict
from llamakit.runtime.requests import Request

DIALOGS: Any = [
    [{"role": "user", "content": "How do I bake bread?"}],
    [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Go away"}],
]


NO_GUARD = "is no Llama Guard: it answered '"


@pytest.fixture(scope="module")
def safe_guard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers "safe" to whatever it is asked."""
    return write_guard(tmp_path_factory.mktemp("models") / "safe", "safe")


@pytest.fixture(scope="module")
def llama(safe_guard: Path) -> Iterator[Llama]:
    with Llama.open(safe_guard, dtype="float32", max_seq_len=2048, max_batch_size=2) as llama:
        yield llama


def test_a_guards_word_decides_and_its_categories_are_named(tmp_path: Path, llama: Llama) -> None:
    with Llama.open(write_guard(tmp_path / "guard", "unsafe\nS1"), max_seq_len=2048) as guard:
        (unsafe,) = moderate(guard, DIALOGS[:1])
    (safe,) = moderate(llama, DIALOGS[:1])

    assert (unsafe.text, unsafe.categories) == ("unsafe\nS1", ("S1",))
    assert (safe.text, safe.categories) == ("safe", ())
    assert safe.score < 0.1
    assert unsafe.score > 0.9


def test_a_llama_3_that_says_neither_word_is_refused() -> None:
    with (
        Llama.open(LLAMA_3, max_seq_len=2048) as llama,
        pytest.raises(UnsupportedModelError, match=NO_GUARD),
    ):
        moderate(llama, DIALOGS)


@pytest.mark.parametrize("answer", ["", "safety first", "Once upon", "un", "not unsafe"])
def test_an_answer_that_begins_with_neither_word_is_refused(llama: Llama, answer: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"{NO_GUARD}{answer}' where 'safe' or"):
        verdict(llama.tokenizer, llama.tokenizer.encode(answer), [-1.0] * 5)


def test_the_command_refuses_a_llama_3_that_says_neither_word(
    run_llamakit: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = run_llamakit("moderate", "-m", LLAMA_3, "Hello")

    assert (done.returncode, done.stdout) == (1, "")
    assert f"error: this model {NO_GUARD}" in done.stderr


def test_the_score_is_the_probability_of_unsafe_as_the_first_word(llama: Llama) -> None:
    verdicts = moderate(llama, DIALOGS)

    guard = llama.prompt_format("llama-guard")
    expected = [probability(llama, guard.encode(dialog), "unsafe") for dialog in DIALOGS]
    assert [verdict.score for verdict in verdicts] == pytest.approx(expected, rel=1e-3)


def probability(llama: Llama, tokens: list[int], word: str) -> float:
    """Multiply the probabilities of a word's tokens, read from those of the whole vocabulary."""
    greedy = choose_sampling(temperature=0, toolkit=llama.toolkit, tokenizer=llama.tokenizer)
    logprob = 0.0
    for token in llama.tokenizer.encode(word):
        request = Request(tokens, len(tokens) + 1, greedy, 0, logprobs=True, top=1280)
        engine = llama.engine()
        (event, *_) = engine.submit(request)
        engine.close()
        logprob += dict(event.top)[token]
        tokens = [*tokens, token]
    return math.exp(logprob)


@pytest.mark.parametrize(
    ("text", "categories"),
    [
        ("safe", ()),
        ("\n\nunsafe\nS1,S10", ("S1", "S10")),
        ("unsafe\nS2, S14\n", ("S2", "S14")),
        ("unsafe", ()),
        ("safe\nS1", ()),
    ],
)
def test_the_categories_are_those_below_unsafe(text: str, categories: tuple[str, ...]) -> None:
    assert categories_of(text) == categories


def test_a_message_of_another_role_is_refused(llama: Llama) -> None:
    with pytest.raises(DialogError, match="message 1 has the role 'system'"):
        moderate(llama, [[{"role": "system", "content": "Be kind."}]])


def test_more_dialogs_than_the_batch_size_are_judged_in_their_order(llama: Llama) -> None:
    three = [*DIALOGS, DIALOGS[0]]

    verdicts = moderate(llama, three)

    assert [it.score for it in verdicts] == pytest.approx(
        [moderate(llama, [dialog])[0].score for dialog in three], rel=1e-3
    )


def test_a_dialog_that_is_too_long_is_named_by_its_number_among_all(llama: Llama) -> None:
    too_long: Any = [{"role": "user", "content": "a " * 4000}]

    with pytest.raises(PromptTooLongError, match="prompt 3 of 3 has"):
        moderate(llama, [*DIALOGS, too_long])


def test_the_command_judges_strings_and_dialogs(
    run_llamakit: Callable[..., subprocess.CompletedProcess[str]], safe_guard: Path, tmp_path: Path
) -> None:
    lines = [{"id": "a", "prompt": "Hello"}, {"id": "b", "messages": DIALOGS[1]}]
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, lines)))

    shared = ("moderate", "-m", safe_guard, "--dtype", "float32", "--prompts", "lines.jsonl", "Hi")
    as_json = run_llamakit(*shared, "--json", "--threshold", "0")
    plain = run_llamakit(*shared)

    assert as_json.returncode == plain.returncode == 0, as_json.stderr + plain.stderr
    verdicts = [json.loads(line) for line in as_json.stdout.splitlines()]
    assert [verdict.get("id") for verdict in verdicts] == [None, "a", "b"]
    assert all(verdict["flagged"] and 0 <= verdict["score"] <= 1 for verdict in verdicts)
    assert [line.split()[:2] for line in plain.stdout.splitlines()] == [
        ["safe", f"{verdict['score']:.4f}"] for verdict in verdicts
    ]


def test_a_lines_own_keys_are_with_its_verdict(
    run_llamakit: Callable[..., subprocess.CompletedProcess[str]], safe_guard: Path, tmp_path: Path
) -> None:
    line = {"id": 1, "prompt": "Hello", "index": 3, "seed": 4, "source": "x"}
    (tmp_path / "lines.jsonl").write_text(json.dumps(line))

    done = run_llamakit("moderate", "-m", safe_guard, "--prompts", "lines.jsonl", "--json")

    assert done.returncode == 0, done.stderr
    verdict = json.loads(done.stdout)
    assert set(verdict) == {
        "id",
        "index",
        "seed",
        "source",
        "flagged",
        "score",
        "categories",
        "text",
    }
    assert (verdict["index"], verdict["seed"], verdict["source"]) == (3, 4, "x")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ({"prompt": "Hello", "score": 1}, "the key 'score' is one of the answer's"),
        ({"body": {"prompt": "a"}, "flagged": True}, "the key 'flagged' is one of the answer's"),
        ({"body": {"prompt": "a", "max_tokens": 5}}, "'max_tokens', which moderate does not read"),
        ({"body": {"messages": [], "tools": []}}, "'tools', which moderate does not read"),
    ],
)
def test_what_a_line_would_lose_is_refused_by_name(
    run_llamakit: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    line: dict[str, Any],
    sentence: str,
) -> None:
    (tmp_path / "lines.jsonl").write_text(json.dumps(line))

    done = run_llamakit("moderate", "--prompts", "lines.jsonl", "--json")

    assert (done.returncode, done.stdout) == (1, "")
    assert sentence in done.stderr
