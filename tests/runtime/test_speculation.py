"""Drafts: the same answer in fewer steps, whatever drafts and whatever chooses."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_kit import answers, collect, counting, random_tokens, request

from llamakit import demo
from llamakit.api import Llama, choose_sampling
from llamakit.errors import OptionError, UnknownNameError
from llamakit.llama.drafter_choice import choose_drafter
from llamakit.protocols import Drafter, Row
from llamakit.runtime.sampling_pipeline import Sampling
from llamakit.runtime.scheduler import Scheduler


@pytest.fixture(scope="module")
def llama(reference_cases: Path) -> Llama:
    return Llama.build(str(reference_cases / "gqa-mp1"), max_seq_len=256, dtype="float32")


class Oracle:
    """Drafts what is going to be written, and now and then something else."""

    def __init__(self, texts: Sequence[Sequence[int]], most: int, wrong: float = 0.0) -> None:
        self.texts, self.most, self.wrong = texts, most, wrong
        self.chance = random.Random(1)

    def __call__(self, tokens: Sequence[int]) -> list[int]:
        for text in self.texts:
            if list(text[: len(tokens)]) == list(tokens):
                ahead = list(text[len(tokens) : len(tokens) + self.chance.randint(0, self.most)])
                return [400 if self.chance.random() < self.wrong else token for token in ahead]
        return []


def noisy(tokens: Sequence[int]) -> list[int]:
    """Draft anything, tokens that no model has among them."""
    chance = random.Random(sum(tokens))
    return [chance.choice([7, 300, 400, 10**6]) for _ in range(chance.randint(0, 9))]


class CountingProcessor:
    """A processor that remembers: it forbids each token that it has seen the row choose."""

    def __call__(self, logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
        logits = logits.clone()
        for number, row in enumerate(rows):
            seen = row.state.setdefault("lengths", [])
            assert not seen or len(row.tokens) == seen[-1] + 1, "a position twice, or left out"
            seen.append(len(row.tokens))
            logits[number, row.tokens[row.prompt_length :]] = -30.0
        return logits


def samplings() -> list[Any]:
    forbidding = Sampling(choose_sampling(sampler="draw").sampler, (CountingProcessor(),))
    return [
        choose_sampling(temperature=0),
        choose_sampling(temperature=0.9, top_p=0.95),
        choose_sampling(sampler="draw"),
        forbidding,
    ]


PROMPTS = [random_tokens(5, 1), random_tokens(40, 2), random_tokens(17, 3)]


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("kind", ["oracle", "half wrong", "noisy"])
def test_the_answers_are_the_same_with_drafts_and_without(
    llama: Llama, number: int, kind: str
) -> None:
    sampling = samplings()[number]
    executor = counting(llama)
    news = (25, 12, 40)
    plain = [
        request(tokens, new, sampling=sampling, seed=5)
        for tokens, new in zip(PROMPTS, news, strict=True)
    ]
    expected = answers(executor, plain)
    texts = [[*tokens, *text] for tokens, text in zip(PROMPTS, expected[0], strict=True)]
    drafters: dict[str, Drafter] = {
        "oracle": Oracle(texts, 6),
        "half wrong": Oracle(texts, 6, wrong=0.5),
        "noisy": noisy,
    }
    drafted = [
        request(tokens, new, sampling=sampling, seed=5, drafter=drafters[kind])
        for tokens, new in zip(PROMPTS, news, strict=True)
    ]

    found = answers(executor, drafted)

    assert found[0] == expected[0]
    for row, row_expected in zip(found[1], expected[1], strict=True):
        assert row == pytest.approx(row_expected, abs=1e-4)


def test_right_drafts_save_steps_and_are_counted(llama: Llama) -> None:
    executor = counting(llama)
    (expected,), _ = answers(executor, [request(PROMPTS[0], 30)])
    steps = len(executor.batches)
    executor.batches.clear()
    right = request(PROMPTS[0], 30, drafter=Oracle([[*PROMPTS[0], *expected]], 8))

    events = list(Scheduler(executor, 1, 64).run([right]))

    assert [event.token for event in events] == expected
    assert steps == 30
    assert len(executor.batches) < 12
    assert events[-1].drafted == events[-1].accepted > 15


def test_wrong_drafts_are_counted_and_forgotten(llama: Llama) -> None:
    executor = counting(llama)
    wrong = request(PROMPTS[0], 10, drafter=lambda _: [499, 499])

    events = list(Scheduler(executor, 1, 64).run([wrong]))

    assert len(events) == 10
    assert (events[-1].drafted, events[-1].accepted) == (
        2 + 7,
        0,
    )  # the first is as long as it comes, the next one token


def test_rows_with_and_without_a_drafter_share_a_batch(llama: Llama) -> None:
    executor = counting(llama)
    plain = [request(tokens, 20, temperature=0.8) for tokens in PROMPTS]
    expected = answers(executor, plain)
    texts = [[*tokens, *text] for tokens, text in zip(PROMPTS, expected[0], strict=True)]
    mixed = [plain[0], request(PROMPTS[1], 20, temperature=0.8, drafter=Oracle(texts, 5)), plain[2]]

    found = answers(executor, mixed)

    assert found[0] == expected[0]


def test_a_stop_id_inside_a_draft_ends_the_answer(llama: Llama) -> None:
    (text,), _ = llama.generate([PROMPTS[0]], 20, temperature=0)
    stop = next(token for token in text[4:] if text.index(token) >= 4)
    drafter = Oracle([[*PROMPTS[0], *text]], 9)

    events = list(
        llama.events(
            [PROMPTS[0]],
            choose_sampling(temperature=0),
            seeds=[1],
            stop_tokens=[stop],
            draft=drafter,
        )
    )

    assert [event.token for event in events] == [*text[: text.index(stop)], None]
    assert events[-1].finish == "stop"


def test_a_stop_string_inside_a_draft_ends_the_answer(llama: Llama) -> None:
    (tokens,), _ = llama.generate([PROMPTS[0]], 20, temperature=0)
    text = llama.tokenizer.decode(tokens)
    settings: dict[str, Any] = {"temperature": 0, "max_new_tokens": 20, "stop": [text[5:9]]}
    drafter = Oracle([[*PROMPTS[0], *tokens]], 9)

    plain = list(llama.stream([PROMPTS[0]], **settings))
    drafted = list(llama.stream([PROMPTS[0]], draft=drafter, **settings))

    assert [chunk.text for chunk in drafted] == [chunk.text for chunk in plain]
    assert drafted[-1].finish == "stop"


def test_drafts_never_outgrow_the_context(llama: Llama) -> None:
    (text,), _ = llama.generate([random_tokens(200)], temperature=0)
    drafter = Oracle([[*random_tokens(200), *text]], 60)

    (chunks,) = [
        list(llama.stream([random_tokens(200)], temperature=0, draft=drafter, stop_tokens=()))
    ]

    assert len(chunks) == 56
    assert chunks[-1].finish == "length"


def test_prompt_lookup_finds_what_followed_before() -> None:
    draft = choose_drafter("prompt-lookup:ngram=3,max=4")

    assert list(draft([1, 5, 6, 7, 8, 9, 5, 6])) == [7, 8, 9, 5]
    assert list(draft([1, 5, 6, 7, 2, 5, 6, 8, 3, 5, 6])) == [8, 3, 5, 6]  # the latest
    assert list(draft([1, 4, 5, 6, 7, 2, 5, 6, 8, 4, 5, 6])) == [7, 2, 5, 6]  # the longest
    assert list(draft([1, 2, 3, 4])) == []
    assert list(draft([1])) == []


def test_the_draft_model_itself_is_always_right(llama: Llama, reference_cases: Path) -> None:
    executor = counting(llama)
    folder = str(reference_cases / "gqa-mp1")
    drafter = llama.drafter(folder, max=4, confidence=0.0, dtype="float32")
    expected = answers(executor, [request(tokens, 20) for tokens in PROMPTS])
    asked = [request(tokens, 20, drafter=drafter) for tokens in PROMPTS]
    executor.batches.clear()

    events = list(Scheduler(executor, 3, 64).run(asked))

    assert collect(events, 3)[0] == expected[0]
    assert all(event.accepted == event.drafted for event in events if event.finish)
    assert len(executor.batches) < 10  # four or five tokens a step


def test_an_unsure_draft_model_drafts_nothing(llama: Llama, reference_cases: Path) -> None:
    drafter = llama.drafter(str(reference_cases / "gqa-mp1"), confidence=1.0, dtype="float32")

    assert drafter(PROMPTS[0]) == []


def test_a_draft_model_leaves_long_strings_alone(llama: Llama, reference_cases: Path) -> None:
    drafter = llama.drafter(str(reference_cases / "gqa-mp1"), confidence=0.0)

    assert drafter([1] * 5000) == []


def test_a_draft_model_with_other_tokens_is_refused(llama: Llama) -> None:
    with pytest.raises(OptionError, match="has other tokens than"):
        llama.drafter(str(demo.path()))


def test_a_wrong_name_says_which_there_are(llama: Llama) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'prompt-lookup'"):
        llama.drafter("promt-lookup")


@pytest.mark.parametrize(
    "words", ["prompt-lookup:least=5", "prompt-lookup:max=0", "draft-model", "draft-model:max=0"]
)
def test_wrong_options_are_refused(llama: Llama, words: str) -> None:
    with pytest.raises(OptionError):
        llama.drafter(words)
