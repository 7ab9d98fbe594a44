"""Every built-in plugin keeps the contract that third-party plugins keep."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamakit import demo, export
from llamakit._distribution import DISTRIBUTION
from llamakit.plugin_manager.entry_points import find_entry_points
from llamakit.plugin_manager.plugin_loader import load_command
from llamakit.plugin_manager.toolkit import load_toolkit
from llamakit.plugins.formats import huggingface, meta, sentencepiece
from llamakit.testing import (
    check_catalogue_entry,
    check_checkpoint_form,
    check_checkpoint_tool,
    check_command,
    check_drafter,
    check_engine,
    check_exporter,
    check_logits_processor,
    check_observer,
    check_plugin,
    check_prompt_format,
    check_sampler,
    check_tokenizer,
)
from llamakit.tokenizer.rank_file import read_ranks
from llamakit.tokenizer.rank_tokenizer import RankTokenizer
from llamakit.tokenizer.special_tokens import LLAMA_3_1, LLAMA_4

RANKS = Path(__file__).parents[1] / "data" / "llama3" / "tokenizer.model"
MODULES = [point.module for point in find_entry_points("llamakit") if point.package == DISTRIBUTION]
TOOLKIT = load_toolkit(disabled="all")
CALLS = {
    "chat": ["--help"],  # it wants somebody who types
    "demo": ["--help"],  # it takes long, and has tests of its own
    "diff": ["SOURCE", "SOURCE"],
    "download": ["7B", "--dry-run"],
    "export": ["SOURCE", "MADE"],
    "generate": ["--temperature", "0", "--max-new-tokens", "2", "Once upon a time"],
    "import": ["HF", "MADE"],
    "inspect": ["SOURCE"],
    "plugins": ["show", "greedy"],
    "reshard": ["SOURCE", "MADE", "-n", "2"],
    "verify": ["SOURCE"],
}
"""A call of each command that ends well."""
OPTIONS = {
    "regex": {"pattern": "(?s:.*)"},
    "grammar": {"text": "start: /(?s:.*)/"},
    "jinja": {"file": "TEMPLATE"},
    "draft-model": {"path": str(demo.path())},
}
"""What must be said to a factory, by name."""
NOT_FOR_ALL = {"infill", "json-schema"}
"""What does not go with the bundled tokenizer, or not with every history."""
TEMPLATE = "{% for it in messages %}{{ it['role'] }}: {{ it['content'] }}\n{% endfor %}"


def values(registry):
    return [pytest.param(entry.value, id=entry.name) for entry in registry]


def commands(registry):
    return [pytest.param(load_command(entry), id=entry.name) for entry in registry]


def with_options(registry):
    return [
        pytest.param(entry.value, OPTIONS.get(entry.name, {}), id=entry.name)
        for entry in registry
        if entry.name not in NOT_FOR_ALL
    ]


@pytest.fixture
def words(llamakit_tiny, tmp_path):
    """Put paths into a call."""

    def fill(call):
        source = llamakit_tiny(4)
        places = {"SOURCE": source, "MADE": tmp_path / "made"}
        if "HF" in call:
            places["HF"] = tmp_path / "hf"
            export(source, places["HF"])
        return [places.get(word, word) for word in call]

    return fill


@pytest.mark.parametrize("module", MODULES)
def test_every_plugin_registers_well(module):
    check_plugin(module)


@pytest.mark.parametrize(("factory", "options"), with_options(TOOLKIT.samplers))
def test_every_sampler_keeps_the_contract(factory, options):
    check_sampler(factory, **options)


@pytest.mark.parametrize(("factory", "options"), with_options(TOOLKIT.processors))
def test_every_processor_keeps_the_contract(factory, options):
    check_logits_processor(factory, **options)


@pytest.mark.parametrize(("factory", "options"), with_options(TOOLKIT.prompt_formats))
def test_every_prompt_format_keeps_the_contract(factory, options, tmp_path):
    template = tmp_path / "template.jinja"
    template.write_text(TEMPLATE)
    places = {"TEMPLATE": str(template)}

    check_prompt_format(
        factory,
        tokenizer=_tokenizer_for(factory.__name__),
        **{name: places.get(it, it) for name, it in options.items()},
    )


def _tokenizer_for(name):
    """Return the tokenizer of the family that a format is for; None is the bundled one."""
    special = {"llama3": LLAMA_3_1, "llama4": LLAMA_4, "llama_guard": LLAMA_3_1}.get(name)
    return None if special is None else RankTokenizer(RANKS, read_ranks(RANKS), special)


@pytest.mark.parametrize("exporter", values(TOOLKIT.exporters))
def test_every_exporter_keeps_the_contract(exporter):
    check_exporter(exporter)


@pytest.mark.parametrize("engine", values(TOOLKIT.engines))
def test_every_engine_keeps_the_contract(engine):
    check_engine(engine)


@pytest.mark.parametrize("tool", commands(TOOLKIT.checkpoint_tools))
def test_every_checkpoint_tool_keeps_the_contract(tool, words):
    check_checkpoint_tool(tool, *words(CALLS.get(tool.name, ["--help"])))


@pytest.mark.parametrize("command", commands(TOOLKIT.commands))
def test_every_command_keeps_the_contract(command, words):
    check_command(command, *words(CALLS.get(command.name, ["--help"])))


@pytest.mark.parametrize(("factory", "options"), with_options(TOOLKIT.drafters))
def test_every_drafter_keeps_the_contract(factory, options):
    check_drafter(factory, **options)


@pytest.mark.parametrize(("factory", "options"), with_options(TOOLKIT.observers))
def test_every_observer_keeps_the_contract(factory, options):
    check_observer(factory, **options)


@pytest.mark.parametrize("shards", [1, 8])
def test_metas_format_keeps_the_contract(shards, llamakit_tiny):
    check_checkpoint_form(meta.open_checkpoint, llamakit_tiny(shards))


def test_hugging_faces_format_keeps_the_contract(llamakit_tiny, tmp_path):
    export(llamakit_tiny(1), tmp_path / "hf")

    check_checkpoint_form(huggingface.open_checkpoint, tmp_path / "hf")


def test_sentencepiece_keeps_the_contract():
    check_tokenizer(sentencepiece.load_tokenizer, demo.path().parent / "tokenizer.model")


@pytest.mark.parametrize("entry", values(TOOLKIT.models))
def test_every_entry_of_the_catalog_keeps_the_contract(entry):
    check_catalogue_entry(entry)


@pytest.mark.parametrize("name", CALLS)
def test_every_call_is_of_a_command_that_there_is(name):
    assert name in TOOLKIT.commands or name in TOOLKIT.checkpoint_tools
