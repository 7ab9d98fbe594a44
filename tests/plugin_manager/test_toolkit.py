"""Loading plugins, and opening paths through them."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import click
import pytest

import llamakit
from llamakit import hookimpl
from llamakit._distribution import DISTRIBUTION, install_command
from llamakit.errors import (
    LlamakitError,
    NotACheckpointError,
    PluginError,
    TokenizerError,
    UnknownNameError,
)
from llamakit.plugin_manager.entry_points import EntryPoint, find_entry_points
from llamakit.plugin_manager.toolkit import default_toolkit, load_toolkit


@pytest.fixture
def toolkit():
    return load_toolkit(disabled="all")


@pytest.fixture
def third_party(monkeypatch):
    """Make a plugin out of functions; return its entry point."""

    def make(name, *hooks, package=None):
        module = types.ModuleType(f"third_party_{name}")
        for hook in hooks:
            setattr(module, hook.__name__, hookimpl(hook))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return EntryPoint(name, module.__name__, "", package or f"llamakit-{name}", "1.0")

    return make


def load(*third_party):
    """Load the built-in plugins and some others."""
    builtins = [each for each in find_entry_points("llamakit") if each.package == DISTRIBUTION]
    return load_toolkit([*builtins, *third_party], disabled="")


def test_builtins_are_what_entry_points_txt_lists(toolkit):
    lines = (Path(__file__).parents[2] / "entry_points.txt").read_text().splitlines()
    names = [line.partition(" = ")[0] for line in lines[lines.index("[llamakit]") + 1 :] if line]

    records = [record for record in toolkit.plugins if record.source.builtin]

    assert [record.source.name for record in records] == sorted(names)
    assert {record.status for record in records} == {"ok"}


def test_the_default_toolkit_is_loaded_once():
    assert default_toolkit() is default_toolkit()


def test_an_unknown_name_says_what_was_probably_meant(toolkit):
    with pytest.raises(UnknownNameError, match="no sampler is called 'gredy'; did you mean 'gree"):
        toolkit.samplers.get("gredy")


def test_third_party_plugins_load_in_an_order_of_their_own(third_party):
    def register_samplers(samplers):
        samplers.register(f"of-{len(seen)}", lambda: None)
        seen.append(1)

    seen = []
    points = [third_party(name, register_samplers) for name in ("b", "c", "a")]

    toolkit = load(*points)

    assert [record.source.name for record in toolkit.plugins[-3:]] == ["a", "b", "c"]


def test_a_misspelled_hook_says_which_was_probably_meant(third_party, capsys):
    def register_sampler(samplers):
        pass

    toolkit = load(third_party("x", register_sampler))

    assert "does not have; did you mean register_samplers? If not: it may be for a newer" in (
        toolkit.plugins[-1].reason
    )
    assert capsys.readouterr().err.count("\n") == 1


def test_what_a_plugin_prints_while_it_is_loaded_goes_to_stderr(third_party, capsys):
    def register_samplers(samplers):
        print("registering")

    load(third_party("x", register_samplers))

    assert capsys.readouterr() == ("", "registering\n")


def test_two_packages_may_call_their_plugins_the_same(third_party):
    def register_samplers(samplers):
        samplers.register("one", lambda: None)

    def register_drafters(drafters):
        drafters.register("two", lambda: None)

    first = third_party("x", register_samplers, package="pack-a")
    second = third_party("y", register_drafters, package="pack-b")._replace(name="x")

    toolkit = load(first, second)

    assert "one" in toolkit.samplers
    assert "two" in toolkit.drafters
    assert [record.status for record in toolkit.plugins[-2:]] == ["ok", "ok"]


def test_a_module_that_is_installed_under_two_names_counts_once(third_party, capsys):
    def register_samplers(samplers):
        samplers.register("one", lambda: None)

    point = third_party("x", register_samplers)

    toolkit = load(point, point._replace(name="z"))

    assert "one" in toolkit.samplers
    assert toolkit.plugins[-1].reason == "it is installed twice, or under two names"
    assert capsys.readouterr().err.count("\n") == 1


def test_a_name_cannot_be_a_command_and_a_checkpoint_tool(third_party, capsys):
    def register_checkpoint_tools(tools):
        tools.register("generate", click.Command("generate"))

    toolkit = load(third_party("x", register_checkpoint_tools))

    assert "generate" not in toolkit.checkpoint_tools
    assert "the command generate is built in and keeps its name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("point", "reason"),
    [
        (EntryPoint("x", "", "", "p", "1"), "its entry point names no module"),
        (EntryPoint("x", "json", "", "p", "1"), "it implements no hook: is @hookimpl missing?"),
        (
            EntryPoint("x", "json", "nothing", "p", "1"),
            "AttributeError: module 'json' has no attribute 'nothing'",
        ),
        (
            EntryPoint("x", "no_such_module.part", "", "p", "1"),
            "its entry point names the module no_such_module.part, but there is no "
            "no_such_module: its pyproject.toml has to list it under py-modules or packages; "
            "tell its author",
        ),
        (
            EntryPoint("x", "llamakit.dreams", "", "p", "1"),
            "ModuleNotFoundError: No module named 'llamakit.dreams': "
            f"it may be for a newer llamakit than {llamakit.__version__}; "
            f"{install_command(upgrade=True)} && pip install --upgrade p brings both up to date",
        ),
    ],
)
def test_an_entry_point_that_names_no_plugin_is_broken(point, reason, capsys):
    toolkit = load(point)

    assert (toolkit.plugins[-1].status, toolkit.plugins[-1].reason) == ("broken", reason)
    assert capsys.readouterr().err.startswith("llamakit: plugin 'x' (p 1) is broken and skipped: ")


def test_a_hook_with_another_argument_is_broken(third_party, capsys):
    def register_samplers(sampler):
        sampler.register("x", lambda: None)

    toolkit = load(third_party("x", register_samplers))

    assert toolkit.plugins[-1].reason == (
        "its register_samplers takes sampler; the hook has the argument samplers, and an "
        "implementation calls it so"
    )
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("register", "reason"),
    [
        (lambda samplers: samplers.register("", print), "TypeError: the name of a sampler is a"),
        (lambda samplers: samplers.register("x", "y"), "TypeError: the sampler x is of type str"),
        (
            lambda samplers: samplers.register("a:b", print),
            "ValueError: nobody could type 'a:b'",
        ),
        (
            lambda samplers: samplers.register("a b", print),
            "ValueError: nobody could type 'a b'",
        ),
        (lambda samplers: samplers.register("-a", print), "ValueError: nobody could type '-a'"),
        (
            lambda samplers: (samplers.register("x", print), samplers.register("x", print)),
            "ValueError: the sampler 'x' is registered twice",
        ),
    ],
)
def test_what_cannot_be_registered_breaks_its_plugin(register, reason, third_party, capsys):
    def register_samplers(samplers):
        register(samplers)

    toolkit = load(third_party("x", register_samplers))

    assert toolkit.plugins[-1].reason.startswith(reason)
    assert "x" not in toolkit.samplers
    assert capsys.readouterr().err.count("\n") == 1


def test_both_packages_that_claim_a_name_are_named_where_it_is_used(third_party, capsys):
    def register_samplers(samplers):
        samplers.register("same", lambda: None)

    toolkit = load(third_party("x", register_samplers), third_party("y", register_samplers))

    with pytest.raises(PluginError, match="claimed by llamakit-x and llamakit-y"):
        toolkit.samplers.get("same")
    assert capsys.readouterr().err.count("\n") == 2


class Opened:
    """Something like a checkpoint, and like a tokenizer."""

    path = form = nbytes_read = None
    vocab_size, bos_id, eos_id = 3, 1, 2
    params = types.SimpleNamespace(dim=8, context=16)
    parameters = types.MappingProxyType({})

    def read(self, name):
        return name

    encode = decode = read


def test_third_party_plugins_are_called_before_builtins(third_party, reference_cases):
    def open_checkpoint(path):
        return Opened()

    def load_tokenizer():
        return Opened()

    toolkit = load(third_party("x", open_checkpoint, load_tokenizer))

    assert isinstance(toolkit.open_checkpoint(reference_cases / "gqa-mp1"), Opened)
    assert toolkit.load_tokenizer(reference_cases / "tokenizer.model").encode("same") == "same"


def test_a_plugin_that_passes_leaves_the_path_to_the_next(third_party, reference_cases):
    def open_checkpoint(path):
        return None

    toolkit = load(third_party("x", open_checkpoint))

    assert toolkit.open_checkpoint(reference_cases / "gqa-mp1").form == "meta"


def test_an_error_that_a_plugin_means_is_the_answer(third_party, tmp_path):
    def open_checkpoint(path):
        raise LlamakitError("half of it is missing")

    toolkit = load(third_party("x", open_checkpoint))

    with pytest.raises(LlamakitError, match="half of it is missing"):
        toolkit.open_checkpoint(tmp_path)
    assert toolkit.plugins[-1].status == "ok"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda: 1 / 0, "open_checkpoint: ZeroDivisionError: division by zero"),
        (
            lambda: "text",
            "open_checkpoint: TypeError: it returned str, without path, form, params.dim, "
            "params.context, parameters.items, nbytes_read, read",
        ),
    ],
)
def test_a_third_party_plugins_hook_that_fails_is_named_once_and_skipped(
    answer, reason, third_party, reference_cases, capsys
):
    def open_checkpoint(path):
        return answer()

    toolkit = load(third_party("x", open_checkpoint))

    opened = [toolkit.open_checkpoint(reference_cases / "gqa-mp1") for _ in range(2)]

    assert [each.form for each in opened] == ["meta", "meta"]
    assert (toolkit.plugins[-1].status, toolkit.plugins[-1].reason) == ("broken", reason)
    assert capsys.readouterr().err == (
        f"llamakit: plugin 'x' (llamakit-x 1.0) is broken and skipped: {reason} "
        "(LLAMAKIT_DISABLE_PLUGINS=x silences this, LLAMAKIT_DEBUG=1 shows where)\n"
    )


def test_a_string_is_no_tokenizer_though_it_has_encode(third_party, reference_cases):
    def load_tokenizer(path):
        return "text"

    toolkit = load(third_party("x", load_tokenizer))

    found = toolkit.load_tokenizer(reference_cases / "tokenizer.model")

    assert found.vocab_size > 0
    assert toolkit.plugins[-1].reason == (
        "load_tokenizer: TypeError: it returned str, without path, vocab_size, bos_id, eos_id, "
        "decode"
    )


def test_what_a_third_party_plugins_tokenizer_raises_names_its_plugin(third_party, reference_cases):
    class Fussy(Opened):
        path = reference_cases / "tokenizer.model"

        def encode(self, text):
            raise IndexError(f"no id for {text}")

    def load_tokenizer(path):
        return Fussy()

    toolkit = load(third_party("x", load_tokenizer))
    tokenizer = toolkit.load_tokenizer(reference_cases / "tokenizer.model")

    with pytest.raises(PluginError) as caught:
        tokenizer.encode("this")

    assert str(caught.value) == (
        "the tokenizer tokenizer.model of the plugin 'x' (llamakit-x 1.0) failed: IndexError: "
        "no id for this (LLAMAKIT_DEBUG=1 shows where)"
    )
    assert tokenizer.decode([3]) == [3]


def message_about(toolkit, path):
    with pytest.raises(NotACheckpointError) as caught:
        toolkit.open_checkpoint(path)
    return str(caught.value)


def test_a_folder_that_does_not_exist_is_guessed(toolkit, tmp_path):
    (tmp_path / "llama-2-7b").mkdir()

    message = message_about(toolkit, tmp_path / "llama-7b")

    assert message == (f"no such folder: {tmp_path}/llama-7b; did you mean {tmp_path}/llama-2-7b?")


def test_a_folder_whose_parent_does_not_exist_says_so(toolkit, tmp_path):
    message = message_about(toolkit, tmp_path / "no" / "llama")

    assert message == f"no such folder: {tmp_path}/no/llama; {tmp_path}/no does not exist either"


def test_a_link_that_leads_nowhere_says_where(toolkit, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone")

    message = message_about(toolkit, tmp_path / "link")

    assert message == (
        f"no such folder: {tmp_path}/link (a link to {tmp_path}/gone, which does not exist)"
    )


def test_a_shard_instead_of_its_folder_names_the_folder(toolkit, reference_cases):
    shard = reference_cases / "gqa-mp1" / "consolidated.00.pth"

    message = message_about(toolkit, shard)

    assert message == (
        f"{shard} is a file, but a checkpoint is a folder; give its folder: {shard.parent}"
    )


def test_an_empty_folder_says_what_is_expected(toolkit, tmp_path):
    message = message_about(toolkit, tmp_path)

    assert message.startswith(f"{tmp_path} is an empty folder\n  expected: ")


def test_an_unknown_folder_says_what_was_found_and_what_is_expected(toolkit, tmp_path):
    for name in "abcdef":
        (tmp_path / name).touch()

    message = message_about(toolkit, tmp_path)

    found = f"{tmp_path} is not a checkpoint: found a, b, c, d and 2 more\n"
    assert message.startswith(found)
    assert len(re.findall("\n  expected: ", message)) == 4


def test_a_folder_of_checkpoints_says_which_they_are(toolkit, reference_cases):
    message = message_about(toolkit, reference_cases)

    assert message == (
        f"{reference_cases} is not a checkpoint itself, but holds gqa-mp1, mha-mp8: "
        f"give one of them, such as {reference_cases}/gqa-mp1"
    )


def test_a_tokenizer_that_does_not_exist_is_guessed(toolkit, reference_cases):
    with pytest.raises(TokenizerError) as caught:
        toolkit.load_tokenizer(reference_cases / "tokeniser.model")

    assert str(caught.value) == (
        f"no such tokenizer file: {reference_cases}/tokeniser.model; "
        f"did you mean {reference_cases}/tokenizer.model?"
    )


def test_a_folder_is_not_a_tokenizer(toolkit, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "tokenizer.model").touch()

    with pytest.raises(
        TokenizerError, match=r"but a tokenizer is a file; it holds tokenizer\.model"
    ):
        toolkit.load_tokenizer(tmp_path / "folder")


def test_a_name_that_is_switched_off_is_said_to_be():
    toolkit = load_toolkit(disabled="all,greedy")

    with pytest.raises(UnknownNameError) as of_that_name:
        toolkit.samplers.get("greedy")
    with pytest.raises(UnknownNameError) as of_another:
        toolkit.samplers.get("draws")

    assert str(of_that_name.value) == (
        "no sampler is called 'greedy'; LLAMAKIT_DISABLE_PLUGINS switches off the plugin greedy"
    )
    assert str(of_another.value) == (
        "no sampler is called 'draws'; did you mean 'draw'? "
        "(LLAMAKIT_DISABLE_PLUGINS switches off greedy)"
    )


def test_a_name_to_switch_off_that_no_plugin_has_is_named(monkeypatch, capsys):
    monkeypatch.setenv("LLAMAKIT_DISABLE_PLUGINS", "all, gredy")

    load_toolkit()

    line = "llamakit: LLAMAKIT_DISABLE_PLUGINS: no plugin is called gredy\n"
    assert capsys.readouterr().err == line
