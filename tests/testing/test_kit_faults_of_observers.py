"""Each rule for observers can fail."""

from __future__ import annotations

import pytest

from llamakit.testing import check_observer


class Plain:
    """A good observer, which counts positions; with one thing to spoil."""

    def layers(self, count):
        return [count]

    def __call__(self, row, states):
        row.state[self] = row.state.get(self, 0) + len(states.hidden(4))

    def result(self, row):
        return [row.state[self], 0.5]

    def files(self, result):
        return {"txt": str(result)}


def observer(**spoilt):
    def factory():
        """Count."""
        return type("Spoilt", (Plain,), spoilt)()

    return factory


def counts_all(self, row, _):
    self.seen = getattr(self, "seen", 0) + 1
    row.state[self] = self.seen


def counts_rows(self, row, states):
    """Forget what it knows of a row when it sees another one."""
    Plain.__call__(self, row, states)
    if getattr(self, "last", row) is not row:
        row.state[self] = 7
    self.last = row


FAULTS = [
    (observer(layers=lambda *_: []), r"wants to read the layers \[\]; expected a list of ints"),
    (observer(layers=lambda *_: [5]), r"wants to read the layers \[5\]; .* to 4, the last layer"),
    (observer(layers=lambda *_: "1"), "wants to read the layers '1'"),
    (observer(layers=lambda *_: [3]), "it reads the layer 4, which its layers"),
    (observer(result=lambda *_: {1: 2}), "a result with the key 1; expected what JSON can hold"),
    (observer(result=lambda *_: [float("nan")]), "a result with the number nan"),
    (observer(result=lambda *_: "\ud800"), "a result with half of a surrogate pair"),
    (observer(result=lambda *_: {"a": {3}}), "a result with set"),
    (observer(result=lambda *_: 1 / 0), "fails: ZeroDivisionError"),
    (observer(files=lambda *_: "svg"), "made the files 'svg'; expected a dict"),
    (observer(files=lambda *_: {"../x": ""}), r"the ending '\.\./x'; expected small letters"),
    (observer(files=lambda *_: {"json": ""}), "the ending 'json'; .* which its result has"),
    (observer(files=lambda *_: {"svg": 3}), "made a svg file of int; expected text or bytes"),
    (observer(files=lambda *_: 1 / 0), "fails to make its files: ZeroDivisionError"),
    (observer(__call__=counts_all), "finds something else for the same rows: keep what it"),
    (observer(__call__=lambda _, row, __: row.tokens.append(1)), "changes row.tokens"),
    (observer(__call__=counts_rows), "when another row is observed as well"),
    (
        observer(__call__=lambda self, row, states: row.state.setdefault(self, len(states.tokens))),
        "when a prompt is computed in two passes",
    ),
]


@pytest.mark.parametrize(("factory", "sentence"), FAULTS, ids=[it for _, it in FAULTS])
def test_an_observer_that_breaks_a_rule_is_named(factory, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_observer(factory)


def test_something_that_is_no_observer_is_named():
    def factory():
        """Nothing."""
        return len

    with pytest.raises(
        AssertionError, match=r"returned builtin_function.*; expected something with"
    ):
        check_observer(factory)


def test_an_observer_that_keeps_the_rules_is_good():
    check_observer(observer())
