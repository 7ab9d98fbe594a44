"""The engine: rows that come and go and never change one another's answers."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from llamakit.api import Llama, choose_sampling
from llamakit.errors import NonFiniteError, PromptError, PromptTooLongError
from llamakit.protocols import Row
from llamakit.runtime.executor import Executor
from llamakit.runtime.group import Group
from llamakit.runtime.model import Batch
from llamakit.runtime.sampling_pipeline import Sampling
from llamakit.runtime.scheduler import Event, Request, Scheduler


@pytest.fixture(scope="module")
def llama(reference_cases: Path) -> Llama:
    return Llama.build(str(reference_cases / "gqa-mp1"), max_seq_len=128, dtype="float32")


class Counting(Executor):
    """An executor that writes down the size of every batch."""

    def __init__(self, llama: Llama) -> None:
        super().__init__(llama._executor.model, Group())
        self.rows: list[int] = []

    def forward(self, cache: int, batch: Batch) -> torch.Tensor:
        self.rows.append(len(batch.tokens))
        return super().forward(cache, batch)


def request(tokens: list[int], new: int, *, seed: int = 1, temperature: float = 0.0) -> Request:
    sampling = choose_sampling(temperature=temperature)
    return Request(tokens, len(tokens) + new, sampling, seed, logprobs=True)


def collect(generator: Scheduler, count: int) -> list[list[int]]:
    answers: list[list[int]] = [[] for _ in range(count)]
    for event in generator.run():
        if event.token is not None:
            answers[event.index].append(event.token)
    generator.close()
    return answers


PROMPTS = [[1, 351, 371], [1, 340, 386, 489, 338, 279], [1, 262], [1, 473, 556, 557, 559]]


def test_a_sampled_row_gives_in_a_batch_what_it_gives_alone(llama: Llama) -> None:
    alone = [
        llama.generate([prompt], max_gen_len=12, temperature=0.9, seed=7)[0][0]
        for prompt in PROMPTS
    ]

    together, _ = llama.generate(PROMPTS, max_gen_len=12, temperature=0.9, seed=7)

    assert together == alone


def test_the_same_prompt_twice_gets_two_answers(llama: Llama) -> None:
    answers, _ = llama.generate([PROMPTS[0]] * 2, max_gen_len=12, temperature=1.0, seed=7)

    assert answers[0] != answers[1]


def test_calls_without_a_seed_differ_and_builds_with_the_same_seed_agree(
    reference_cases: Path,
) -> None:
    path = str(reference_cases / "gqa-mp1")
    first, second = (Llama.build(path, max_seq_len=64, seed=5, dtype="float32") for _ in "ab")

    one, _ = first.generate([PROMPTS[0]], max_gen_len=12, temperature=1.0)
    two, _ = first.generate([PROMPTS[0]], max_gen_len=12, temperature=1.0)
    again, _ = second.generate([PROMPTS[0]], max_gen_len=12, temperature=1.0)

    assert one != two
    assert one == again


def test_a_row_that_ended_is_not_computed_any_more(llama: Llama) -> None:
    executor = Counting(llama)
    generator = Scheduler(executor, slots=3, length=64)
    for tokens, new in zip(PROMPTS, (2, 6, 4), strict=False):
        generator.submit(request(tokens, new))

    answers = collect(generator, 3)

    assert [len(answer) for answer in answers] == [2, 6, 4]
    # three prompts at once, then all three rows, then two without the first, then one
    assert executor.rows == [3, 3, 2, 2, 1, 1]


def test_a_waiting_request_takes_a_free_slot_at_once(llama: Llama) -> None:
    executor = Counting(llama)
    generator = Scheduler(executor, slots=2, length=64)
    for tokens, new in zip(PROMPTS, (2, 5, 3, 3), strict=True):
        generator.submit(request(tokens, new))

    answers = collect(generator, 4)

    alone = [llama.generate([prompt], 5, temperature=0)[0][0] for prompt in PROMPTS]
    assert answers == [answer[:new] for answer, new in zip(alone, (2, 5, 3, 3), strict=True)]
    assert max(executor.rows) == 2


def test_a_cancelled_row_frees_its_slot_and_the_others_continue(llama: Llama) -> None:
    generator = Scheduler(Executor(llama._executor.model, Group()), slots=2, length=64)
    for tokens in PROMPTS[:3]:
        generator.submit(request(tokens, 6))
    seen: dict[int, list[int]] = {0: [], 1: [], 2: []}

    for event in generator.run():
        assert event.token is not None
        seen[event.index].append(event.token)
        if event.index == 0 and len(seen[0]) == 2:
            generator.cancel(0)

    alone = [llama.generate([prompt], 6, temperature=0)[0][0] for prompt in PROMPTS[:3]]
    assert seen == {0: alone[0][:2], 1: alone[1], 2: alone[2]}


def test_stop_tokens_end_an_answer_and_are_not_part_of_it(llama: Llama) -> None:
    (full,), _ = llama.generate([PROMPTS[0]], max_gen_len=8, temperature=0)

    events = list(
        llama.events([PROMPTS[0]], choose_sampling(temperature=0), seeds=[1], stop_tokens=[full[3]])
    )

    assert [event.token for event in events] == [*full[:3], None]
    assert events[-1] == Event(0, None, None, "stop")


def test_samplers_see_which_tokens_end_each_row(llama: Llama) -> None:
    seen: list[set[int]] = []

    def spy(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
        seen.append(set(rows[0].stop_tokens))
        return logits.argmax(-1)

    list(llama.events([PROMPTS[0]], Sampling(spy), seeds=[1], max_new_tokens=1, stop_tokens=[5, 6]))
    list(llama.events([PROMPTS[0]], Sampling(spy), seeds=[1], max_new_tokens=1))

    assert seen == [{5, 6}, {llama.tokenizer.eos_id}]


def test_a_stop_string_ends_an_answer_even_across_tokens(llama: Llama) -> None:
    (full,), _ = llama.generate([PROMPTS[0]], max_gen_len=20, temperature=0)
    text = llama.tokenizer.decode(full)
    stop = text[5:9]

    chunks = list(llama.stream([PROMPTS[0]], temperature=0, max_new_tokens=20, stop=[stop]))

    assert "".join(chunk.text for chunk in chunks) == text[: text.index(stop)]
    assert chunks[-1].finish == "stop"


def test_the_answer_is_clipped_to_the_context(llama: Llama) -> None:
    prompt = [1, *[262] * 120]

    (answer,), _ = llama.generate([prompt], max_gen_len=50, temperature=0)

    assert len(answer) == 128 - 121


def test_a_prompt_that_fills_the_context_is_an_error_that_names_it(llama: Llama) -> None:
    with pytest.raises(PromptTooLongError, match=r"prompt 2 of 2 has 128 tokens .* holds 128"):
        llama.generate([PROMPTS[0], [1, *[262] * 127]], max_gen_len=5)


def test_an_empty_prompt_is_an_error(llama: Llama) -> None:
    with pytest.raises(PromptError, match="no tokens"):
        llama.generate([[]], max_gen_len=5)


def test_the_cache_is_as_large_as_what_is_asked(
    reference_cases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama = Llama.build(str(reference_cases / "gqa-mp1"), max_seq_len=128, dtype="float32")
    model = llama._executor.model
    opened: list[tuple[int, int]] = []
    allocate = model.new_cache
    monkeypatch.setattr(
        model,
        "new_cache",
        lambda slots, length: opened.append((slots, length)) or allocate(slots, length),
    )

    llama.generate(PROMPTS[:2], max_gen_len=5, temperature=0)
    llama.generate(PROMPTS[:1], max_gen_len=5, temperature=0)
    llama.generate(PROMPTS[:1], max_gen_len=20, temperature=0)

    assert opened == [(2, 11), (1, 23)]


def test_a_nonfinite_logit_names_the_step_the_layer_and_the_dtype(
    reference_cases: Path, tmp_path: Path
) -> None:
    shutil.copytree(reference_cases / "gqa-mp1", tmp_path / "model")
    shard = tmp_path / "model" / "consolidated.00.pth"
    weights = torch.load(shard, weights_only=True)
    weights["layers.1.feed_forward.w2.weight"][0, 0] = float("inf")
    torch.save(weights, shard)
    llama = Llama.build(
        str(tmp_path / "model"), str(reference_cases / "tokenizer.model"), 64, dtype="float32"
    )

    with pytest.raises(NonFiniteError, match=r"step 1: it first appears in layer 1, .* float32"):
        llama.generate([PROMPTS[0]], max_gen_len=5)
