"""Each rule for logits processors can fail, and says what to fix."""

from __future__ import annotations

import pytest
import torch

from llamakit.testing import check_logits_processor


def processor(process):
    def factory():
        """Edit."""
        return process

    return factory


def same(logits, rows):
    return logits


def bans_by_place(logits, rows):
    edited = logits.clone()
    for number in range(len(rows)):
        edited[number, number] = -torch.inf
    return edited


def remembers_outside_of_the_row():
    """Edit."""
    calls = []

    def process(logits, rows):
        calls.append(1)
        return logits * len(calls)

    return process


def undocumented():
    return same


def fails(logits, rows):
    raise IndexError("no such row")


PROCESSORS = [
    (undocumented, "has no docstring"),
    (processor(fails), r"fails on logits \(4, 1600\): IndexError: no such row"),
    (processor(lambda *_: None), "returned NoneType; expected .* float32 logits"),
    (
        processor(lambda logits, _: logits.argmax(dim=-1)),
        r"returned Tensor \(4,\) torch.int64; expected \(4, 1600\) float32 logits",
    ),
    (processor(lambda logits, _: logits.double()), "returned .* torch.float64; expected"),
    (processor(lambda logits, _: logits.half()), "returned .* torch.float16; expected"),
    (processor(lambda logits, _: logits.to("meta")), "float32 on meta; expected .* logits on cpu"),
    (processor(lambda logits, _: logits * 0), r"expected logits without NaN and \+inf"),
    (
        processor(lambda logits, _: logits - torch.inf),
        "expected logits that rule out less than every token",
    ),
    (processor(lambda logits, _: logits.nan_to_num()), "expected what was -inf to stay so"),
    (
        processor(lambda logits, _: logits + torch.rand(())),
        "own generator",
    ),
    (processor(lambda logits, rows: (rows[0].tokens.append(7), logits)[1]), "changes row.tokens"),
    (remembers_outside_of_the_row, "gives other results for the same rows"),
    (processor(bans_by_place), "gives row . other results when its neighbours change"),
    (
        processor(
            lambda logits, _: logits.masked_fill(logits == logits.amax(-1, True), -torch.inf)
        ),
        "expected logits that rule out less than every token",
    ),
]


@pytest.mark.parametrize(("factory", "sentence"), PROCESSORS, ids=[it for _, it in PROCESSORS])
def test_a_processor_that_breaks_a_rule_is_named(factory, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_logits_processor(factory)


def test_a_processor_that_changes_nothing_is_good():
    check_logits_processor(processor(same))
