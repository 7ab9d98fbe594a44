"""What holds for every registered sampler and processor, those of tomorrow included."""

from __future__ import annotations

import inspect
import random
import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rows_kit import GONE, TOKENIZER, TOOLKIT, FakeRow
from torch.utils._python_dispatch import TorchDispatchMode

from llamakit.llama.sampler_choice import choose_sampling
from llamakit.plugin_manager.factories import options_of
from llamakit.plugin_manager.registry import Entry, Registry
from llamakit.runtime.sampling_pipeline import Sampling, sample

V = TOKENIZER.vocab_size
BUSY = {
    "dry": "allowed-length=1",
    "logit-bias": "bias=35:3,36:-inf,2:1",
    "min-length": "length=5",
    "mirostat": "tau=2,eta=0.5",
    "no-repeat-ngram": "n=2",
    "repetition-penalty": "penalty=3,last=6",
    "frequency-penalty": "penalty=1.5,last=7",
    "presence-penalty": "penalty=2,prompt=yes",
    "xtc": "threshold=0.05,probability=0.7",
    "top-k": "k=3",
    "top-n-sigma": "n=2",
    "typical": "mass=0.5",
}
"""Options with which there is more to do than with the defaults."""


def choices(registry: Registry[Any]) -> list[str]:
    """List every registered name, with the options that make it busy."""
    return [
        f"{entry.name}:{BUSY[entry.name]}" if entry.name in BUSY else entry.name
        for entry in registry
    ]


CONSTRAINTS = ("json-schema", "regex", "grammar")
"""They refuse a history that does not fit: ``tests/formats/test_grammar.py`` has theirs."""
SAMPLERS = choices(TOOLKIT.samplers)
PROCESSORS = [it for it in choices(TOOLKIT.processors) if it not in CONSTRAINTS]
CHAINS = [
    ["no-repeat-ngram:n=2", "no-repeat-ngram:n=3", "frequency-penalty", "presence-penalty"],
    ["repetition-penalty", "dry", "top-k:k=20", "min-p", "temperature:value=1.2", "xtc"],
]
EVERYTHING = [
    *(pytest.param(name, [], id=name) for name in SAMPLERS),
    *(pytest.param("draw", [name], id=f"draw after {name}") for name in PROCESSORS),
    *(pytest.param("draw", chain, id="+".join(chain)) for chain in CHAINS),
    pytest.param("mirostat", ["xtc", "dry"], id="mirostat after xtc and dry"),
]


def build(sampler: str, processors: Sequence[str]) -> Sampling:
    name, _, options = sampler.partition(":")
    return choose_sampling(
        sampler=name,
        sampler_options=[pair for pair in options.split(",") if pair],
        processors=processors,
        toolkit=TOOLKIT,
        tokenizer=TOKENIZER,
    )


def model() -> torch.Tensor:
    """Return the logits after each token: some from 34 to 45 are likely, and 2 is the end."""
    generator = torch.Generator().manual_seed(8)
    table = torch.randn(V, V, generator=generator) - 6
    table[:, 34:46] += 6 + 2 * torch.randn(V, 12, generator=generator)
    table[:, 2] = 1.0
    return table


MODEL = model()
PROMPTS = [[1, 40], [1, 35, 36, 35], [1, 45, 45, 45, 45, 44], [1, 41], [1, 39, 38, 37, 39, 38]]


def play(
    sampling: Sampling, which: Sequence[int], *, slots: int = 9, steps: int = 19
) -> dict[int, list[int]]:
    """Write answers of different lengths: as rows end, others take their slots."""
    waiting, active = list(which), {}
    answers: dict[int, list[int]] = {}
    while waiting or active:
        while waiting and len(active) < slots:
            number = waiting.pop(0)
            prompt = PROMPTS[number]
            generator = torch.Generator().manual_seed(100 + number)
            active[number] = FakeRow(generator, list(prompt), len(prompt))
        rows = list(active.values())
        logits = MODEL[[row.tokens[-1] for row in rows]]
        tokens = sample(logits, rows, [sampling] * len(rows)).tolist()
        for (number, row), token in zip(list(active.items()), tokens, strict=True):
            row.tokens.append(token)
            answer = row.tokens[row.prompt_length :]
            if token in row.stop_tokens or len(answer) == steps - 3 * number:
                answers[number] = answer
                del active[number]
    return answers


@pytest.mark.parametrize(("sampler", "processors"), EVERYTHING)
def test_a_rows_answer_does_not_depend_on_the_batch_around_it(
    sampler: str, processors: list[str]
) -> None:
    alone = {n: play(build(sampler, processors), [n])[n] for n in range(5)}
    shuffled = random.Random(3).sample(range(5), 5)
    sampling = build(sampler, processors)

    for which in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], shuffled):
        assert play(sampling, which) == alone
        assert play(sampling, which, slots=2) == alone  # joining and leaving
    assert max(map(len, alone.values())) > 4


@pytest.mark.parametrize(("sampler", "processors"), EVERYTHING)
def test_rows_of_other_requests_in_the_batch_change_nothing(
    sampler: str, processors: list[str]
) -> None:
    mine, others = build(sampler, processors), build("draw", ["xtc"])

    def write(numbers: Sequence[int]) -> list[int]:
        rows = [
            FakeRow(torch.Generator().manual_seed(number), list(PROMPTS[number]), 2)
            for number in numbers
        ]
        samplings = [mine if number == 1 else others for number in numbers]
        for _ in range(10):
            logits = MODEL[[row.tokens[-1] for row in rows]]
            for row, token in zip(rows, sample(logits, rows, samplings).tolist(), strict=True):
                row.tokens.append(token)
        return rows[numbers.index(1)].tokens

    assert write([1]) == write([0, 1, 2]) == write([3, 1])


@pytest.mark.parametrize(("sampler", "processors"), EVERYTHING)
def test_the_same_seed_gives_the_same_answer(sampler: str, processors: list[str]) -> None:
    sampling = build(sampler, processors)

    assert play(sampling, [1, 2]) == play(sampling, [1, 2])


@st.composite
def steps(draw: st.DrawFn) -> tuple[torch.Tensor, list[FakeRow]]:
    """A step of some rows, with few tokens left: those that were there before, or the end."""
    count = draw(st.integers(1, 3))
    some = st.integers(30, 45) | st.just(2)
    rows, logits = [], torch.full((count, V), GONE)
    for number in range(count):
        tokens = draw(st.lists(some, min_size=1, max_size=12))
        row = FakeRow(torch.Generator().manual_seed(number), tokens, draw(st.integers(0, 1)))
        rows.append(row)
        left = draw(st.lists(st.sampled_from(tokens) | some, min_size=1, max_size=4))
        for token in left:
            logits[number, token] = draw(
                st.floats(-60, 60, width=32) | st.sampled_from([0.0, 3.0, -1e4, 1e4])
            )
    if draw(st.booleans()):
        logits = logits.masked_fill(logits == GONE, -3.0)
    return logits, rows


@pytest.mark.parametrize("choice", PROCESSORS)
@settings(max_examples=40)
@given(step=steps())
def test_a_processor_leaves_an_id_and_brings_none_back(
    choice: str, step: tuple[torch.Tensor, list[FakeRow]]
) -> None:
    logits, rows = step
    before, histories = logits.clone(), [list(row.tokens) for row in rows]
    (process,) = build("greedy", [choice]).processors

    made = process(logits, rows)

    assert made.shape == logits.shape
    assert made.dtype == torch.float32
    assert not bool(made.isnan().any())
    assert not bool((made == torch.inf).any())
    assert bool((made > GONE).any(-1).all())
    assert bool((made[before == GONE] == GONE).all())
    assert torch.equal(logits, before)  # what it was passed is not its own
    assert [row.tokens for row in rows] == histories


@pytest.mark.parametrize(
    "choice", ["logit-bias:bias=40:-inf,41:1", "no-repeat-ngram:n=1", "min-length:length=9"]
)
def test_where_all_that_is_left_is_forbidden_the_row_stays_and_others_do_not(choice: str) -> None:
    (process,) = build("greedy", [choice]).processors
    rows = [FakeRow(torch.Generator(), [1, 40, 50], 1, frozenset({40})) for _ in range(2)]
    logits = torch.full((2, V), GONE)
    logits[0, 40] = logits[1, 40] = logits[1, 41] = 3.0

    made = process(logits, rows)

    assert torch.equal(made[0], logits[0])
    assert made[1].isfinite().nonzero().tolist() == [[41]]


@pytest.mark.parametrize("choice", SAMPLERS)
@settings(max_examples=40)
@given(step=steps())
def test_a_sampler_picks_an_id_that_is_left(
    choice: str, step: tuple[torch.Tensor, list[FakeRow]]
) -> None:
    logits, rows = step

    ids = build(choice, []).sampler(logits, rows)

    assert ids.shape == (len(rows),)
    assert ids.dtype == torch.int64
    assert bool(logits.gather(-1, ids[:, None]).isfinite().all())


@pytest.mark.parametrize("choice", [it.partition(":")[0] for it in PROCESSORS])
def test_with_no_options_a_vocabulary_of_equals_goes_through(choice: str) -> None:
    (process,) = build("greedy", [choice]).processors
    rows = [FakeRow(torch.Generator().manual_seed(1), [1, 40, 41, 40], 2)]

    made = process(torch.zeros(1, V), rows)

    assert bool(made.isfinite().any())
    assert not bool(made.isnan().any())


class Waits(TorchDispatchMode):
    """Write down what makes a program wait for a CUDA device."""

    WAITING = (
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "lift_fresh",
        "bincount",
        "unique",
    )

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(name in str(func) for name in self.WAITING):
            self.found.append(str(func))
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("choice", [*SAMPLERS, *PROCESSORS])
def test_after_the_first_step_nothing_waits_for_the_device(choice: str) -> None:
    # dry and no-repeat-ngram send tokens over when there is something to forbid: not here
    if choice in SAMPLERS:
        step = build(choice, []).sampler
    else:
        (step,) = build("greedy", [choice]).processors
    rows = [FakeRow(torch.Generator().manual_seed(n), [n, 40 + n], 2) for n in range(3)]
    step(torch.zeros(3, V), rows)
    for number, row in enumerate(rows):
        row.tokens.append(60 + number)
    waits, logits = Waits(), torch.zeros(3, V)

    with waits:
        step(logits, rows)

    assert waits.found == []


@pytest.mark.parametrize("entry", [*TOOLKIT.samplers, *TOOLKIT.processors], ids=str)
def test_each_says_in_a_line_what_it_does_and_where_it_is_from(entry: Entry) -> None:
    docstring = inspect.getdoc(entry.value) or ""

    assert entry.help
    assert "\n" not in entry.help
    assert re.search(r"^Source: \S", docstring, re.MULTILINE)
    for option in options_of(entry.value):
        assert option.help
        assert option.can_be_typed


def test_waiting_is_noticed() -> None:
    waits, values = Waits(), torch.ones(2)

    with waits:
        values[0].item()
        values[values > 0]
        torch.tensor([1, 2])

    assert len(waits.found) >= 2


def test_nothing_of_one_answer_is_left_for_the_next() -> None:
    for sampler, processors in (("mirostat", []), ("draw", CHAINS[0]), ("draw", CHAINS[1])):
        sampling = build(sampler, processors)

        first = play(sampling, [2])
        play(sampling, [0, 3])

        assert play(sampling, [2]) == first
