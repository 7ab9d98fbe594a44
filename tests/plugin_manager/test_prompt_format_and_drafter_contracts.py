"""What third-party prompt formats and drafters return is checked where it is used."""

from __future__ import annotations

import types

import numpy
import pytest

from llamakit.errors import DialogError, PluginError
from llamakit.plugin_manager.contracts.drafters import checked_drafter
from llamakit.plugin_manager.contracts.prompt_formats import build_format
from llamakit.plugin_manager.failures import guarded
from llamakit.plugin_manager.registry import Entry, Source

THIRD_PARTY = Source("second", "llamakit-second", "0.1", builtin=False)
DIALOG = [{"role": "user", "content": "hello"}]
TOKENIZER = types.SimpleNamespace(vocab_size=10)


def form(encoded=(1, 5), **others):
    """Build a third-party format that encodes everything to the same."""
    made = types.SimpleNamespace(stop_tokens=(2,), encode=lambda _: encoded)
    vars(made).update(others)
    return build_format(
        Entry("prompt format", "odd", lambda tokenizer: made, "", THIRD_PARTY),  # noqa: ARG005
        {},
        TOKENIZER,
    )


def test_a_format_that_encodes_to_tokens_is_used_as_it_is():
    made = form([1, 5], stop_strings=("end",), encode_text=lambda _: [1, 6])

    assert made.encode(DIALOG) == [1, 5]
    assert made.encode_text("a text") == [1, 6]
    assert (made.stop_tokens, made.stop_strings) == ((2,), ("end",))
    assert not hasattr(made, "keeps_space")


@pytest.mark.parametrize(
    ("encoded", "found"),
    [
        ("hello", "'hello'"),
        (None, "None"),
        ([], "[]"),
        ([1, 5.0], "a list with 5.0"),
        ([1, True], "a list with True"),
        ([1, 10], "a list with 10"),
        ([1, -1], "a list with -1"),
        (["a"], "a list with 'a'"),
    ],
)
@pytest.mark.parametrize("method", ["encode", "encode_text"])
def test_what_is_no_list_of_tokens_is_reported_with_the_plugin(encoded, found, method):
    made = form(encoded, encode_text=lambda _: encoded)

    with pytest.raises(PluginError) as caught:
        getattr(made, method)(DIALOG)

    assert str(caught.value) == (
        f"the prompt format odd of the plugin 'second' (llamakit-second 0.1) returned {found} "
        f"from {method}; expected a non-empty list of token IDs, which are ints from 0 to 9: tell "
        "its author"
    )


@pytest.mark.parametrize("stop_tokens", [None, "</s>", 2, [10], [2.0]])
def test_stop_tokens_that_are_no_token_ids_are_reported_with_the_plugin(stop_tokens):
    with pytest.raises(PluginError, match=r"odd of the plugin 'second' .* has the stop_tokens"):
        form(stop_tokens=stop_tokens)


@pytest.mark.parametrize("stop_strings", ["end", [1], [""], None])
def test_stop_strings_of_another_type_are_reported_with_the_plugin(stop_strings):
    with pytest.raises(PluginError, match=r"odd of the plugin 'second' .* has the stop_strings"):
        form(stop_strings=stop_strings)


def test_a_format_without_stop_tokens_is_reported_with_the_plugin():
    made = types.SimpleNamespace(encode=list)
    entry = Entry("prompt format", "odd", lambda _: made, "", THIRD_PARTY)

    with pytest.raises(
        PluginError, match="has the stop_tokens None; expected a sequence of token IDs"
    ):
        build_format(entry, {}, TOKENIZER)


def test_a_format_that_encodes_nothing_is_reported_with_the_plugin():
    entry = Entry("prompt format", "odd", lambda _: types.SimpleNamespace(), "", THIRD_PARTY)

    with pytest.raises(PluginError) as caught:
        build_format(entry, {}, TOKENIZER)

    assert str(caught.value) == (
        "the prompt format odd of the plugin 'second' (llamakit-second 0.1) cannot be used: its "
        "factory returned SimpleNamespace; expected something with encode(dialog) and "
        "stop_tokens: tell its author"
    )


def drafter(made):
    entry = Entry("drafter", "odd", lambda: made, "", THIRD_PARTY)
    return checked_drafter(guarded(made, entry), entry)


@pytest.mark.parametrize("draft", ["abc", [1.5], None, 3, [None]])
def test_a_draft_that_is_no_list_of_tokens_is_reported_with_the_plugin(draft):
    with pytest.raises(PluginError, match=r"drafter odd of the plugin 'second' .* proposed"):
        drafter(lambda _: draft)([1, 2])


@pytest.mark.parametrize("drafts", [[[1]], [["a"], []], 3])
def test_drafts_that_are_no_lists_of_tokens_are_reported_with_the_plugin(drafts):
    made = types.SimpleNamespace(batch=lambda _: drafts)

    with pytest.raises(PluginError, match=r"drafter odd of the plugin 'second' .* proposed"):
        drafter(made).batch([[1], [2]])


def test_a_draft_of_numpys_ints_is_one_of_token_ids_and_the_sequence_is_the_drafters_own():
    def draft(tokens):
        tokens.clear()
        return numpy.array([4, 5])

    tokens = [1, 2]

    assert drafter(draft)(tokens) == [4, 5]
    assert tokens == [1, 2]
    assert not hasattr(drafter(draft), "batch")


def test_a_dialog_that_the_format_refuses_stays_refused():
    def refuse(dialog):
        raise DialogError("not so")

    with pytest.raises(DialogError, match="not so"):
        form(encode=refuse).encode(DIALOG)
