"""Each rule for samplers can fail, and says what to fix."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from llamakit.sampling import draw_ids
from llamakit.testing import check_sampler


def sampler(sample):
    """Make a factory of one function."""

    def factory():
        """Pick."""
        return sample

    return factory


def greedy(logits, rows):
    return logits.argmax(dim=-1)


def fails(logits, rows):
    raise IndexError("no such row")


def fails_later(logits, rows):
    if len(rows[0].tokens) - rows[0].prompt_length >= 2:
        raise KeyError("the third")
    return greedy(logits, rows)


def strays_later(logits, rows):
    return greedy(logits, rows) + (len(rows[0].tokens) - rows[0].prompt_length) * 1600


def leaves(logits, rows):
    raise SystemExit(3)


def clears_the_rows(logits, rows):
    rows.clear()
    return greedy(logits, rows)


def draws_globally(logits, rows):
    return torch.multinomial(logits.softmax(dim=-1), 1)[:, 0]


def rolls_pythons_dice(logits, rows):
    return logits.topk(2).indices[:, random.randrange(2)]


def rolls_numpys_dice(logits, rows):
    return logits.topk(2).indices[:, np.random.randint(2)]


def sets_the_dtype(logits, rows):
    torch.set_default_dtype(torch.float64)
    return greedy(logits, rows)


def sets_the_threads(logits, rows):
    torch.set_num_threads(torch.get_num_threads() + 1)
    return greedy(logits, rows)


def sets_the_environment(logits, rows):
    os.environ["LLAMAKIT_SAMPLED"] = "1"
    return greedy(logits, rows)


def changes_the_folder(logits, rows):
    os.chdir("/")
    return greedy(logits, rows)


def prints(logits, rows):
    print("sampling")
    return greedy(logits, rows)


def appends(logits, rows):
    for row in rows:
        row.tokens.append(7)
    return greedy(logits, rows)


def dies_where_one_id_is_left(logits, rows):
    assert logits.isfinite().sum(dim=-1).min() > 1
    return greedy(logits, rows)


def rotates_by_place(logits, rows):
    ids = logits.topk(4).indices
    return torch.stack([ids[number, number] for number in range(len(rows))])


def draws_from_the_first_row(logits, rows):
    return draw_ids(logits.softmax(dim=-1), [rows[0]] * len(rows))


def remembers_outside_of_the_row():
    """Pick."""
    calls = []

    def sample(logits, rows):
        calls.append(1)
        return logits.topk(2).indices[:, len(calls) % 2]

    return sample


def has_no_docstring():
    return greedy


def has_an_option_without_a_type(top=2):
    """Pick."""
    return greedy


def has_a_parameter_without_a_default(top: int):
    """Pick."""
    return greedy


def has_an_option_without_a_help(top: int = 2):
    """Pick."""
    return greedy


def has_a_default_of_another_type(top: int = "two"):
    """Pick.

    Args:
        top: how many.
    """
    return greedy


def has_no_range(top: int = 2):
    """Pick.

    Args:
        top: how many.
    """
    return lambda logits, _: logits.topk(top).indices[:, 0]


def picks_the_second_where_one_is_left(logits, rows):
    return logits.topk(2).indices[:, -1]


def raises_a_type_error(top: int = 2):
    """Pick.

    Args:
        top: how many.
    """
    if top < 1:
        raise TypeError("top")
    return greedy


def sets_the_device_when_built():
    """Pick."""
    torch.set_default_device("meta")
    return greedy


def returns_nothing():
    """Pick."""


SAMPLERS = [
    ("text", "is not a factory"),
    (has_no_docstring, "has no docstring: its first sentence is what `llamakit plugins show`"),
    (has_an_option_without_a_type, "has no annotation, so it is no option: write its type"),
    (has_a_parameter_without_a_default, "has no default, so users could not leave it out"),
    (has_an_option_without_a_help, "is not explained: add a line `top: …` under `Args:`"),
    (has_a_default_of_another_type, "the default of top does not fit its annotation"),
    (has_no_range, "takes {'top': -1} and fails when it is used"),
    (raises_a_type_error, "a factory raises nothing but ValueError"),
    (sets_the_device_when_built, "building sampler .* changes torch's default device"),
    (returns_nothing, "its factory returned NoneType; expected a function sample"),
    (remembers_outside_of_the_row, "gives other results for the same rows and seeds"),
    (sampler(fails), r"fails on logits \(4, 1600\): IndexError: no such row"),
    (sampler(fails_later), r"fails on .* after 2 tokens of an answer: KeyError: 'the third'"),
    (sampler(strays_later), r"returned Tensor .*; expected tokens from 0 to 1599"),
    (sampler(leaves), r"fails on logits \(4, 1600\): SystemExit: 3"),
    (sampler(clears_the_rows), "changes the list of rows that it gets"),
    (
        sampler(lambda logits, _: logits.argmax(dim=-1).tolist()),
        r"returned list; expected \(4,\) int64 tokens",
    ),
    (
        sampler(lambda logits, _: logits.topk(1).indices),
        r"returned Tensor \(4, 1\) torch.int64; expected \(4,\)",
    ),
    (
        sampler(lambda logits, rows: greedy(logits, rows).int()),
        r"returned Tensor \(4,\) torch.int32",
    ),
    (sampler(lambda logits, rows: greedy(logits, rows) + 1600), "expected tokens from 0 to 1599"),
    (
        sampler(lambda logits, rows: greedy(logits, rows).to("meta")),
        "int64 on meta; expected .* tokens on cpu",
    ),
    (
        sampler(lambda logits, _: logits.argmin(dim=-1)),
        "expected tokens that are not ruled out by a logit of -inf",
    ),
    (sampler(draws_globally), "changes the state of torch's own generator.*row.generator"),
    (sampler(rolls_pythons_dice), "changes the state of Python's random"),
    (sampler(rolls_numpys_dice), "changes the state of numpy's random"),
    (sampler(sets_the_dtype), "changes torch's default dtype, which all of the process shares"),
    (sampler(sets_the_threads), "changes torch's number of threads"),
    (sampler(sets_the_environment), "changes the environment variables"),
    (sampler(changes_the_folder), "changes the current folder"),
    (sampler(prints), r"prints 'sampling\\n', which ends up in the answer"),
    (sampler(appends), "changes row.tokens: llamakit appends the token"),
    (
        sampler(picks_the_second_where_one_is_left),
        "expected tokens that are not ruled out by a logit of -inf",
    ),
    (sampler(dies_where_one_id_is_left), "fails on logits .* AssertionError"),
    (sampler(rotates_by_place), "gives row . other results when its neighbours change"),
    (sampler(draws_from_the_first_row), "gives row . other results when its neighbours change"),
]


@pytest.mark.parametrize(("factory", "sentence"), SAMPLERS, ids=[it for _, it in SAMPLERS])
def test_a_sampler_that_breaks_a_rule_is_named(factory, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_sampler(factory)


def test_what_a_broken_plugin_has_changed_is_put_back():
    before = torch.get_default_dtype(), torch.get_num_threads(), dict(os.environ), Path.cwd()

    for broken in (sets_the_dtype, sets_the_threads, sets_the_environment, changes_the_folder):
        with pytest.raises(AssertionError):
            check_sampler(sampler(broken))

    after = torch.get_default_dtype(), torch.get_num_threads(), dict(os.environ), Path.cwd()
    assert after == before


def test_a_sampler_that_asks_for_the_tokenizer_is_passed_one():
    def factory(tokenizer):
        """Pick."""
        assert tokenizer.vocab_size == 1600
        return greedy

    check_sampler(factory)


@pytest.mark.parametrize("kind", [list[str], Exception, dict])
def test_an_option_that_nobody_can_type_is_reported(kind):
    def factory(words=()):
        """Pick.

        Args:
            words: some.
        """
        return greedy

    factory.__annotations__["words"] = kind

    with pytest.raises(AssertionError, match=r"the option words of .*, which nobody can type"):
        check_sampler(factory)


def test_a_sampler_that_remembers_in_the_row_is_good():
    def alternate():
        """Pick the first and the second in turn."""

        def sample(logits, rows):
            best, ids = logits.topk(2)
            left = best.isfinite().sum(dim=-1).tolist()
            turns = [row.state.setdefault("turns", []) for row in rows]
            for turn in turns:
                turn.append(1)
            places = [len(turn) % most for turn, most in zip(turns, left, strict=True)]
            return ids[range(len(rows)), places]

        return sample

    check_sampler(alternate)


def test_the_options_that_are_passed_are_checked():
    def picky(top: int = 2):
        """Pick.

        Args:
            top: how many.
        """
        if top < 1:
            raise ValueError("top")
        return fails if top == 3 else greedy

    check_sampler(picky)
    with pytest.raises(AssertionError, match="IndexError"):
        check_sampler(picky, top=3)
