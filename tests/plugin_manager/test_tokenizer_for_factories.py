"""Samplers and processors that work with the model's tokenizer are handed it."""

from __future__ import annotations

import shutil

import pytest
from lazy_torch import needs_torch

from llamakit.errors import OptionError, UsageError
from llamakit.llama.sampler_choice import choose_sampling, needs_tokenizer
from llamakit.plugin_manager.factories import options_of, takes_tokenizer
from llamakit.plugin_manager.registry import Entry, Source
from llamakit.plugin_manager.toolkit import Toolkit

BUILTIN = Source("words", "llamakit", "0.1.0", builtin=True)


def needy(tokenizer, loud: bool = False):
    return lambda *_unused: (tokenizer, loud)


def plain(loud: bool = False):
    return lambda logits, _rows: (logits, loud)


@pytest.fixture
def toolkit():
    toolkit = Toolkit()
    for registry in (toolkit.samplers, toolkit.processors):
        for name, factory in (("needy", needy), ("plain", plain)):
            registry.add(Entry(registry.kind, name, factory, "", BUILTIN))
    return toolkit


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        (needy, True),
        (plain, False),
        (lambda *, tokenizer: tokenizer, True),
        (lambda tokenizer=None: tokenizer, False),
        (lambda tokenizer, /: tokenizer, False),
        (lambda **tokenizer: tokenizer, False),
        (lambda words: words, False),
    ],
)
def test_a_required_parameter_called_tokenizer_asks_for_it(factory, expected):
    assert takes_tokenizer(factory) is expected


def test_the_tokenizer_is_no_option():
    assert [option.name for option in options_of(needy)] == ["loud"]


def test_a_sampler_and_a_processor_are_called_with_the_tokenizer(toolkit):
    sampling = choose_sampling(
        sampler="needy",
        sampler_options=["loud=yes"],
        processors=["plain", "needy"],
        toolkit=toolkit,
        tokenizer="the tokenizer",
    )

    assert sampling.sampler(None, []) == ("the tokenizer", True)
    assert sampling.processors[1](None, []) == ("the tokenizer", False)


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"sampler": "needy"}, "sampler"),
        ({"sampler": "plain", "processors": ["needy:loud=yes"]}, "processor"),
    ],
)
def test_without_a_tokenizer_the_sentence_says_who_wants_it(toolkit, settings, kind):
    with pytest.raises(UsageError, match=f"the {kind} needy needs the model's tokenizer"):
        choose_sampling(**settings, toolkit=toolkit)


@pytest.mark.parametrize(
    ("sampler", "processors", "expected"),
    [
        (None, [], False),
        ("plain", ["plain:loud=yes"], False),
        ("needy", [], True),
        (None, ["plain", "needy:loud=yes"], True),
    ],
)
def test_a_tokenizer_is_loaded_early_only_for_those_that_take_it(
    toolkit, sampler, processors, expected
):
    assert needs_tokenizer(sampler, processors, toolkit) is expected


def test_an_option_of_the_tokenizers_name_cannot_be_given(toolkit):
    with pytest.raises(OptionError, match="has no option 'tokenizer'"):
        choose_sampling(
            sampler="needy", sampler_options=["tokenizer=x"], toolkit=toolkit, tokenizer="it"
        )


@needs_torch
def test_generate_builds_a_third_party_processor_with_the_models_tokenizer(run_llamakit, plugins):
    words = ("generate", "--temperature", "0", "--max-new-tokens", "30", "Once upon a time")
    env = plugins("ban")

    free = run_llamakit(*words)
    done = run_llamakit(*words, "--processor", "ban:letter=e", env=env)

    assert done.returncode == 0, done.stderr
    assert "e" in free.stdout
    assert len(done.stdout) > 10
    assert "e" not in done.stdout


@needs_torch
def test_chat_passes_it_at_the_start_and_in_set(run_llamakit, plugins):
    script = "What is a shard?\n/set processors ban:letter=a\nWhat is a shard?\n"

    done = run_llamakit(
        *("chat", "--temperature", "0", "--processor", "ban:letter=e"),
        stdin=script,
        env=plugins("ban"),
    )

    first, second = done.stdout.splitlines()
    assert "a" in first
    assert "e" not in first
    assert "a" not in second
    assert "e" in second


@pytest.mark.parametrize(
    ("folder", "sentence"),
    [("nowhere", "no such folder: nowhere"), ("model", "no tokenizer.model in model")],
)
def test_what_is_missing_is_said_as_if_no_tokenizer_was_wanted_early(
    run_llamakit, plugins, reference_cases, tmp_path, folder, sentence
):
    shutil.copytree(reference_cases / "gqa-mp1", tmp_path / "model")

    done = run_llamakit("generate", "-m", folder, "--processor", "ban", "x", env=plugins("ban"))

    assert done.returncode != 0
    assert sentence in done.stderr


@pytest.mark.parametrize("command", [("generate", "x"), ("chat",)], ids=["generate", "chat"])
def test_wrong_options_are_said_before_the_weights_are_read(
    run_llamakit, plugins, reference_cases, tmp_path, command
):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes((reference_cases / "tokenizer.model").read_bytes())

    done = run_llamakit(
        *(*command, "-m", folder, "--processor", "ban:letter=ee"), env=plugins("ban")
    )

    assert done.returncode == 2
    assert "processor ban: letter is 'ee'; it has to be one character" in done.stderr
