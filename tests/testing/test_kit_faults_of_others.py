"""Each rule for prompt formats, drafters, engines and the catalog can fail."""

from __future__ import annotations

import pytest

from llamakit.errors import DialogError
from llamakit.testing import (
    check_catalogue_entry,
    check_drafter,
    check_engine,
    check_prompt_format,
)


class Plain:
    """A good prompt format, with one thing to spoil."""

    def __init__(self, tokenizer, **spoilt):
        self.tokenizer = tokenizer
        self.stop_tokens = (tokenizer.eos_id,)
        self.calls = 0
        vars(self).update(spoilt)

    def encode(self, dialog):
        if not dialog or dialog[-1]["role"] != "user":
            raise DialogError("a user message has to come last")
        text = "\n".join(message["content"] for message in dialog)
        return self.tokenizer.encode(text, bos=True)


def prompt_format(**spoilt):
    """Make a factory whose format has some attributes that are not right."""

    def factory(tokenizer):
        """Format."""
        form = Plain(tokenizer)
        made = {
            name: value.__get__(form) if callable(value) else value
            for name, value in spoilt.items()
        }
        return Plain(tokenizer, **made)

    return factory


def translates_markup(self, dialog):
    tokens = Plain.encode(self, dialog)
    return [*tokens, self.tokenizer.eos_id] if "</s>" in str(dialog) else tokens


def empties_the_dialog(self, dialog):
    tokens = Plain.encode(self, dialog)
    dialog.pop()
    return tokens


def counts(self, dialog):
    self.calls += 1
    return Plain.encode(self, dialog) + [5] * self.calls


def wants_a_user(self, dialog):
    assert dialog[-1]["role"] == "user"
    return Plain.encode(self, dialog)


def has_no_docstring(tokenizer):
    return Plain(tokenizer)


FORMATS = [
    (has_no_docstring, "has no docstring"),
    (prompt_format(stop_tokens=()), "has no stop_tokens"),
    (
        prompt_format(stop_tokens=("</s>",)),
        "has the stop_tokens .*'</s>'.*; expected a sequence of token IDs",
    ),
    (prompt_format(encode=lambda *_: 1 / 0), "does not encode a single user message"),
    (
        prompt_format(encode=lambda *_: "text"),
        "returned 'text' from encode; expected a non-empty list of token IDs",
    ),
    (
        prompt_format(encode=lambda *_: [1600]),
        "returned a list with 1600 from encode; expected .* from 0 to 1599",
    ),
    (prompt_format(encode=lambda *_: [1]), "leaves the message's text out"),
    (prompt_format(encode=translates_markup), "turns the text '</s>' .* into a control token"),
    (prompt_format(encode=empties_the_dialog), "changes the dialog that it is called with"),
    (prompt_format(encode=counts), "gives other tokens for the same dialog"),
    (prompt_format(encode=wants_a_user), "fails on a dialog of .* raise a DialogError"),
]


@pytest.mark.parametrize(("factory", "sentence"), FORMATS, ids=[it for _, it in FORMATS])
def test_a_prompt_format_that_breaks_a_rule_is_named(factory, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_prompt_format(factory)


def test_a_prompt_format_that_keeps_the_rules_is_good():
    check_prompt_format(prompt_format())


def drafter(draft):
    def factory():
        """Draft."""
        return draft

    return factory


def empties(tokens):
    tokens.clear()
    return []


def forgets_nothing():
    """Draft."""
    calls = []

    def draft(tokens):
        calls.append(1)
        return [len(calls)]

    return draft


DRAFTERS = [
    (
        drafter(lambda tokens: tokens[7:8] or tokens[40]),
        "on a sequence of 1 tokens: IndexError",
    ),
    (drafter(lambda _: 5), "proposed 5; expected a list of token IDs"),
    (drafter(lambda _: ["a"]), r"proposed \['a'\]; expected a list of token IDs"),
    (drafter(lambda _: [-1]), "proposed -1; expected token IDs from 0 to 1599"),
    (drafter(empties), "changes the tokens that it is called with"),
    (forgets_nothing, "proposes other tokens for the same sequence"),
]


@pytest.mark.parametrize(("factory", "sentence"), DRAFTERS, ids=[it for _, it in DRAFTERS])
def test_a_drafter_that_breaks_a_rule_is_named(factory, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_drafter(factory)


def test_a_drafter_that_keeps_the_rules_is_good():
    check_drafter(drafter(lambda tokens: tokens[-2:]))


ENTRY = {"names": ["one"], "folder": "one", "shards": 1}
ENTRIES = [
    (["one"], "the catalog entry is a list; expected a dict"),
    ({"names": ["one"], "shards": 1}, "has no 'folder'"),
    (ENTRY | {"shard": 1}, "has no key 'shard' in its contract; did you mean 'shards'"),
    (ENTRY | {"shards": -1}, "has -1 as 'shards'; expected a whole number, 0 if unknown"),
    (ENTRY | {"has_checklist": 1}, "has 1 as 'has_checklist'; expected True or False"),
    (ENTRY | {"files": ["../a"]}, "'files'; expected a path inside the output folder"),
    (ENTRY | {"names": "one"}, "has 'one' as 'names'; expected a list of strings"),
    (ENTRY | {"names": [""]}, r"has \[''\] as 'names'; expected a list of strings"),
    (ENTRY | {"folder": ""}, "has '' as 'folder'; expected a string"),
    (ENTRY | {"folder": "../one"}, "'folder'; expected a path inside the output folder"),
    (ENTRY | {"root_files": ["/a"]}, "'root_files'; expected a path inside the output folder"),
]


@pytest.mark.parametrize(("entry", "sentence"), ENTRIES, ids=[it for _, it in ENTRIES])
def test_an_entry_of_the_catalog_that_breaks_a_rule_is_named(entry, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_catalogue_entry(entry)


def test_an_entry_of_the_catalog_that_keeps_the_rules_is_good():
    check_catalogue_entry(ENTRY)


ENGINE = {"exporter": "hf", "command": "run {folder} --as {{json}}"}
ENGINES = [
    (["run"], "the engine is a list; expected a dict"),
    ({"exporter": "hf"}, "has no 'command'"),
    ({"command": "run"}, "has no 'exporter'"),
    (ENGINE | {"commands": "run"}, "has no key 'commands' in its contract; did you mean 'command'"),
    (ENGINE | {"exporter": ""}, "has '' as 'exporter'; expected a string"),
    (ENGINE | {"package": None}, "has None as 'package'; expected a string"),
    (ENGINE | {"options": ["a"]}, r"has \['a'\] as 'options'; expected a dict of strings"),
    (ENGINE | {"options": {"a": 1}}, r"has the option \('a', 1\); expected strings"),
    (ENGINE | {"command": "run {model}"}, r"has {model} in its command; expected one of {folder}"),
    (ENGINE | {"command": "run {"}, "has the command 'run {' .*; write braces of its own twice"),
]


@pytest.mark.parametrize(("engine", "sentence"), ENGINES, ids=[it for _, it in ENGINES])
def test_an_engine_that_breaks_a_rule_is_named(engine, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_engine(engine)


def test_an_engine_that_keeps_the_rules_is_good():
    check_engine(ENGINE)
