"""Each rule for logits processors can fail, and says what to mend."""

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
    (processor(lambda *_: None), "returns NoneType: return the edited logits"),
    (
        processor(lambda logits, _: logits.argmax(dim=-1)),
        r"returns \(4,\) torch.int64: return \(4, 1600\) torch.float32",
    ),
    (processor(lambda logits, _: logits.double()), "returns .* torch.float64: return"),
    (processor(lambda logits, _: logits.half()), "returns .* torch.float16: return"),
    (processor(lambda logits, _: logits.to("meta")), "returns logits on meta"),
    (processor(lambda logits, _: logits * 0), "makes NaN or infinity"),
    (processor(lambda logits, _: logits - torch.inf), "rules out every id of a row"),
    (processor(lambda logits, _: logits.nan_to_num()), "brings back an id that was ruled out"),
    (
        processor(lambda logits, _: logits + torch.rand(())),
        "own generator",
    ),
    (processor(lambda logits, rows: (rows[0].tokens.append(7), logits)[1]), "changes row.tokens"),
    (remembers_outside_of_the_row, "gives other logits for the same rows"),
    (processor(bans_by_place), "gives row . other logits when its neighbours change"),
    (
        processor(
            lambda logits, _: logits.masked_fill(logits == logits.amax(-1, True), -torch.inf)
        ),
        "rules out every id of a row",
    ),
]


@pytest.mark.parametrize(("factory", "sentence"), PROCESSORS, ids=[it for _, it in PROCESSORS])
def test_a_processor_that_breaks_a_rule_is_told_which(factory, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_logits_processor(factory)


def test_a_processor_that_changes_nothing_is_good():
    check_logits_processor(processor(same))
