"""What third-party samplers and processors return is looked at, value by value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from rows_kit import rows

from llamakit.errors import PluginError
from llamakit.llama.sampler_choice import choose_sampling
from llamakit.plugin_manager.registry import Entry, Source
from llamakit.plugin_manager.toolkit import load_toolkit
from llamakit.runtime.sampling_pipeline import Sampling

NOTHING = float("-inf")
LOGITS = torch.tensor([[2.0, NOTHING, 0.0], [1.0, 3.0, NOTHING]])

Work = Callable[[torch.Tensor, Any], torch.Tensor]


def third_party(kind: str, work: Work) -> Sampling:
    """Choose tokens with a third-party plugin's sampler or processor."""
    toolkit = load_toolkit(disabled="all")
    source = Source("odd", "llamakit-odd", "1", builtin=False)
    registry: Any = toolkit.samplers if kind == "sampler" else toolkit.processors
    registry.add(Entry(kind, "odd", lambda: work, "", source))
    if kind == "sampler":
        return choose_sampling(sampler="odd", toolkit=toolkit)
    return choose_sampling(sampler="greedy", processors=["odd"], toolkit=toolkit)


def ruin_in_place(logits: torch.Tensor, _: Any) -> torch.Tensor:
    return logits.fill_(float("nan"))


def rule_one_row_out(logits: torch.Tensor, _: Any) -> torch.Tensor:
    return logits.where(torch.tensor([[True], [False]]), NOTHING)


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (lambda logits, _: logits * float("nan"), "logits without NaN and +inf"),
        (ruin_in_place, "logits without NaN and +inf"),
        (lambda logits, _: logits / 0, "logits without NaN and +inf"),
        (rule_one_row_out, "logits that rule out less than every token"),
        (
            lambda logits, _: logits.nan_to_num(),
            "what was -inf to stay so: a processor before it ruled the token out",
        ),
    ],
)
def test_a_processor_whose_values_are_of_no_use_is_named(work: Work, expected: str) -> None:
    with pytest.raises(PluginError) as caught:
        third_party("processor", work)(LOGITS.clone(), rows(2))

    assert str(caught.value) == (
        "the processor odd of the plugin 'odd' (llamakit-odd 1) returned Tensor (2, 3) "
        f"torch.float32; expected {expected}: tell its author"
    )


def test_a_sampler_that_picks_what_is_ruled_out_is_named() -> None:
    sampling = third_party("sampler", lambda *_: torch.tensor([0, 2]))

    with pytest.raises(PluginError, match=r"sampler odd of the plugin .* that are not ruled out"):
        sampling(LOGITS, rows(2))


def test_a_third_party_plugin_that_writes_to_its_arguments_hurts_nobody_else() -> None:
    def sampler(logits: torch.Tensor, rows: Any) -> torch.Tensor:
        rows.clear()
        return logits.zero_().argmax(dim=-1)

    logits, batch = LOGITS.clone(), rows(2)

    ids = third_party("sampler", sampler)(logits, batch)

    assert ids.tolist() == [0, 0]
    assert torch.equal(logits, LOGITS)
    assert len(batch) == 2


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("sampler", "a function sample(logits, rows)"),
        ("processor", "a function process(logits, rows)"),
    ],
)
def test_a_factory_that_returns_nothing_is_named_before_a_model_is_loaded(
    kind: str, expected: str
) -> None:
    nothing: Any = None

    with pytest.raises(PluginError) as caught:
        third_party(kind, nothing)

    assert str(caught.value) == (
        f"the {kind} odd of the plugin 'odd' (llamakit-odd 1) cannot be used: its factory returned "
        f"NoneType; expected {expected}: tell its author"
    )


def test_a_third_party_plugin_is_not_blamed_for_what_it_was_given() -> None:
    nothing_left = torch.full((2, 3), NOTHING)

    ids = third_party("sampler", lambda *_: torch.tensor([0, 2]))(nothing_left, rows(2))
    third_party("processor", lambda logits, _: logits)(nothing_left, rows(2))
    third_party("processor", lambda logits, _: logits)(nothing_left * 0, rows(2))

    assert ids.tolist() == [0, 2]


def test_a_third_party_plugin_that_does_as_it_should_is_left_alone() -> None:
    picked = third_party("sampler", lambda *_: torch.tensor([2, 0]))(LOGITS, rows(2))
    edited = third_party("processor", lambda logits, _: -logits.abs())(LOGITS, rows(2))

    assert picked.tolist() == [2, 0]
    assert edited.tolist() == [2, 0]
