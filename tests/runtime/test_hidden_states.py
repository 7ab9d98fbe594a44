"""Observers: hidden states of every layer, and the output layer on them, on any number of ranks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before the import below, which reads it

import pytest
import torch
import transformers
from engine_kit import counting, random_tokens, request

from llamakit.api import Llama, export
from llamakit.errors import OptionError, UsageError
from llamakit.llama.chunks import observed_of
from llamakit.protocols import FINAL_STATES, HiddenStates, Row
from llamakit.runtime.hidden_states import RowStates
from llamakit.runtime.rank_messages import decode, encode
from llamakit.runtime.scheduler import Event, Scheduler

NEW = 4


class Recorder:
    """Keeps all hidden states of all layers, and the logits of each."""

    def layers(self, count: int) -> Sequence[int]:
        self.named = [*range(count + 1), FINAL_STATES]
        return self.named

    def __call__(self, row: Row, states: HiddenStates, /) -> None:
        assert states.tokens == tuple(row.tokens[states.start :])[: len(states.tokens)]
        passes = row.state.setdefault(self, [])
        assert states.start == sum(len(it[0]) for it in passes)
        hidden = torch.stack([states.hidden(it) for it in self.named], 1)  # (T, L, dim)
        passes.append((hidden, torch.stack([states.logits(it) for it in self.named], 1)))

    def result(self, row: Row, /) -> Any:
        return [torch.cat(it).tolist() for it in zip(*row.state[self], strict=True)]


class Failing(Recorder):
    """Fails at a position."""

    def __init__(self, at: int) -> None:
        self._at = at

    def __call__(self, _row: Row, states: HiddenStates, /) -> None:
        if states.start >= self._at:
            raise RuntimeError("it fails")


def observed(llama: Llama, prompts: Sequence[Sequence[int]], **settings: Any) -> list[Any]:
    """Return the hidden states and the logits of each prompt and its greedy answer."""
    settings = {"max_new_tokens": NEW, "stop_tokens": (), "temperature": 0, **settings}
    results: dict[int, Any] = {}
    for chunk in llama.stream(prompts, observers=[Recorder()], **settings):
        if chunk.finish:
            results[chunk.index] = [torch.tensor(it) for it in chunk.observed[0]]
    return [results[index] for index in range(len(prompts))]


@pytest.fixture(scope="module")
def llama(reference_cases: Path) -> Iterator[Llama]:
    case = reference_cases / "mha-mp8"
    with Llama.open(case, dtype="float32", max_seq_len=64, max_batch_size=3) as llama:
        yield llama


PROMPTS = [random_tokens(count, seed=count) for count in (9, 3, 6)]


def test_they_are_those_of_transformers_and_the_lens_is_its_norm_and_head(
    llama: Llama, reference_cases: Path, tmp_path: Path
) -> None:
    export(reference_cases / "mha-mp8", tmp_path / "hf", tokenizer=llama.tokenizer.path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)
    count = llama.checkpoint.params.n_layers
    answers = llama.generate(PROMPTS, NEW, temperature=0, stop_token=-1)[0]

    for prompt, answer, (hidden, logits) in zip(
        PROMPTS, answers, observed(llama, PROMPTS), strict=True
    ):
        with torch.no_grad():
            tokens = torch.tensor([[*prompt, *answer[:-1]]])  # nothing reads the last one
            expected = model(tokens, output_hidden_states=True)
            lens = [model.lm_head(model.model.norm(it[0])) for it in expected.hidden_states[:-1]]
        # transformers' last hidden states are those after the norm
        close(hidden[:, [*range(count), count + 1]], torch.stack(expected.hidden_states)[:, 0])
        close(logits[:, :count], torch.stack(lens))
        close(logits[:, [count]], expected.logits)
        assert torch.equal(logits[:, count], logits[:, count + 1])


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Compare ``(T, L, …)`` with ``(L, T, …)``."""
    torch.testing.assert_close(found.transpose(0, 1), expected, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.soak)])
def test_every_number_of_ranks_finds_the_same(
    llama: Llama, reference_cases: Path, ranks: int
) -> None:
    case = reference_cases / "mha-mp8"
    with Llama.open(case, dtype="float32", max_batch_size=3, model_parallel_size=ranks) as several:
        found = observed(several, PROMPTS)

    for one, other in zip(found, observed(llama, PROMPTS), strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=2e-4)


def test_a_long_prompt_in_chunks_beside_others_is_observed_as_alone(llama: Llama) -> None:
    prompts = [random_tokens(30, seed=1), *PROMPTS]
    scheduler = Scheduler(counting(llama), slots=3, length=64, chunk=8)
    requests = [request(prompt, 1, observers=llama.observers([Recorder()])) for prompt in prompts]

    together = {event.index: event.observed[0] for event in scheduler.run(requests)}

    for index, prompt in enumerate(prompts):
        (alone,) = observed(llama, [prompt], max_new_tokens=1)
        found = [torch.tensor(it) for it in together[index]]
        torch.testing.assert_close(found, alone, atol=2e-4, rtol=2e-4)
        assert len(found[0]) == len(prompt)


def test_an_answer_is_the_same_and_what_drafts_is_refused(llama: Llama) -> None:
    settings: Any = {"max_new_tokens": 8, "seed": 3, "temperature": 0.8}

    plain = [chunk.token for chunk in llama.stream(PROMPTS[:1], **settings)]
    seen = [chunk.token for chunk in llama.stream(PROMPTS[:1], observers=["embedding"], **settings)]

    assert seen == plain
    with pytest.raises(UsageError, match="a drafter and observers: choose one"):
        list(llama.stream(PROMPTS[:1], draft="prompt-lookup", observers=["embedding"]))


def test_a_row_with_observers_drafts_nothing(llama: Llama) -> None:
    scheduler = Scheduler(counting(llama), slots=1, length=64)
    observers = llama.observers([Recorder()])
    settings: Any = {"observers": observers, "drafter": lambda _: [5, 6]}

    events = list(scheduler.run([request(PROMPTS[0], 6, **settings)]))

    assert events[-1].drafted == 0
    assert len(events[-1].observed[0][0]) == len(PROMPTS[0]) + 5


def test_an_answer_that_a_stop_string_ends_has_results_too(llama: Llama) -> None:
    settings: Any = {"max_new_tokens": 20, "temperature": 0, "stop_tokens": ()}
    text = "".join(chunk.text for chunk in llama.stream(PROMPTS[:1], **settings))
    stop = text.strip()[3:6]

    chunks = list(llama.stream(PROMPTS[:1], observers=[Recorder()], stop=[stop], **settings))

    assert [chunk.finish for chunk in chunks].count("stop") == 1
    assert chunks[-1].finish == "stop"
    hidden, _ = chunks[-1].observed[0]
    assert len(hidden) == len(PROMPTS[0]) + len(chunks) - 1


@pytest.mark.parametrize("at", [0, len(PROMPTS[0]) + 1])
def test_an_observer_that_fails_ends_its_own_row_alone(llama: Llama, at: int) -> None:
    scheduler = Scheduler(counting(llama), slots=2, length=64)
    failing = request(PROMPTS[0], 6, observers=llama.observers([Failing(at)]))

    for one in (failing, request(PROMPTS[1], 6)):
        scheduler.submit(one)
    events = [event for _ in range(8) for event in scheduler.step()]

    by_row = [[event for event in events if event.index == index] for index in (0, 1)]
    assert (by_row[0][-1].finish, str(by_row[0][-1].error)) == ("failed", "it fails")
    assert [event.finish for event in by_row[1]] == [*[None] * 5, "length"]


def test_nothing_is_kept_after_a_pass_and_nothing_done_without_observers(llama: Llama) -> None:
    executor = counting(llama)
    scheduler = Scheduler(executor, slots=1, length=64)

    scheduler.submit(request(PROMPTS[0], 3, observers=llama.observers([Recorder()])))
    while not scheduler.idle:
        scheduler.step()
        assert executor._states == {}
    assert executor.batches == []  # of passes that nobody observes
    list(scheduler.run([request(PROMPTS[0], 3)]))

    assert len(executor.batches) == 3


def test_a_pass_keeps_no_other_layers_than_are_read(llama: Llama) -> None:
    executor = counting(llama)
    kept = []

    class Peeker(Recorder):
        def layers(self, _count: int) -> Sequence[int]:
            return [1]

        def __call__(self, row: Row, _states: HiddenStates, /) -> None:
            row.state[self] = []
            kept.append({layer: it.shape for layer, it in executor._states.items()})

    list(llama.stream(PROMPTS[:2], observers=[Peeker()], max_new_tokens=1))

    dim = llama.checkpoint.params.dim
    assert kept == [{1: (2, len(PROMPTS[0]), dim)}] * 2


def test_results_that_travel_between_ranks_arrive_as_they_were() -> None:
    event = Event(0, None, finish="length", observed=({"a": [[1, 2.5], None, "x"]}, 3))

    _, arrived = decode(encode(("item", event)))

    assert observed_of(arrived) == event.observed


def test_states_are_read_within_their_call_and_of_named_layers_only(llama: Llama) -> None:
    kept: list[HiddenStates] = []

    class Keeper(Recorder):
        def layers(self, count: int) -> Sequence[int]:
            return [count]

        def __call__(self, _row: Row, states: HiddenStates, /) -> None:
            kept.append(states)
            states.hidden(0)

    with pytest.raises(ValueError, match="the layer 0 is not one of those that layers"):
        list(llama.stream(PROMPTS[:1], observers=[Keeper()], max_new_tokens=1))
    with pytest.raises(RuntimeError, match="within the call"):
        kept[0].logits(FINAL_STATES)
    assert isinstance(kept[0], RowStates)


def test_a_layer_that_the_model_lacks_is_refused_before_anything_is_computed(llama: Llama) -> None:
    with pytest.raises(OptionError, match="layer is 99, and the model has 3 layers"):
        llama.observers(["embedding:layer=99"])
    with pytest.raises(UsageError, match="the observer embedding is named twice"):
        llama.observers(["embedding", "embedding:pooling=last"])
    with pytest.raises(UsageError, match="observers is a list, not a string"):
        llama.observers("embedding")
