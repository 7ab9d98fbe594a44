"""Hooks are called by pluggy: wrappers, tryfirst and trylast work between all plugins."""

from __future__ import annotations

import sys
import types

import pytest

from llamakit import hookimpl
from llamakit._distribution import DISTRIBUTION
from llamakit.errors import CheckpointError
from llamakit.plugin_manager.entry_points import EntryPoint, find_entry_points
from llamakit.plugin_manager.toolkit import load_toolkit

REGISTERING = {
    "register_samplers": "samplers",
    "register_logits_processors": "processors",
    "register_prompt_formats": "formats",
    "register_checkpoint_tools": "tools",
    "register_exporters": "exporters",
    "register_engines": "engines",
    "register_models": "models",
    "register_drafters": "drafters",
    "register_observers": "observers",
    "register_runners": "runners",
    "register_kernels": "kernels",
    "register_commands": "commands",
}
OPENING = {"open_checkpoint": "path", "load_tokenizer": "path"}
HOOKS = REGISTERING | OPENING


@pytest.fixture
def plugin(monkeypatch):
    """Make a plugin out of a marked function; return its entry point."""

    def make(name, hook, function, **options):
        module = types.ModuleType(f"ordered_{name}")
        setattr(module, hook, hookimpl(function, **options))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return EntryPoint(name, module.__name__, "", f"llamakit-{name}", "1.0")

    return make


@pytest.fixture
def call(reference_cases):
    """Call a hook: by loading all plugins, and for the opening ones by opening what there is."""

    def open_with(hook, *points):
        builtins = [it for it in find_entry_points("llamakit") if it.package == DISTRIBUTION]
        toolkit = load_toolkit([*builtins, *points], disabled="")
        if hook == "open_checkpoint":
            toolkit.open_checkpoint(reference_cases / "gqa-mp1")
        if hook == "load_tokenizer":
            toolkit.load_tokenizer(reference_cases / "tokenizer.model")
        return toolkit

    return open_with


def function(argument, body):
    """Return a function with one argument of that name, as every implementation has."""
    names = {"body": body}
    exec(f"def implementation({argument}):\n    return body()", names)
    return names["implementation"]


def generator(argument, before, after):
    """Return a wrapper with one argument of that name."""
    names = {"before": before, "after": after}
    exec(
        f"def wrapper({argument}):\n    before()\n    got = yield\n    return after(got)",
        names,
    )
    return names["wrapper"]


@pytest.mark.parametrize(("hook", "argument"), HOOKS.items())
def test_tryfirst_goes_before_all_and_trylast_behind(hook, argument, plugin, call):
    calls = []
    points = [
        plugin("a", hook, function(argument, lambda: calls.append("a"))),
        plugin("b", hook, function(argument, lambda: calls.append("b"))),
        plugin("c", hook, function(argument, lambda: calls.append("c")), trylast=True),
        plugin("d", hook, function(argument, lambda: calls.append("d"))),
        plugin("e", hook, function(argument, lambda: calls.append("e"))),
    ]
    points[0] = plugin("a", hook, function(argument, lambda: calls.append("a")), tryfirst=True)

    call(hook, *points)

    asked_after_builtins = [] if hook in OPENING else ["c"]
    assert calls == ["a", "e", "d", "b", *asked_after_builtins]


@pytest.mark.parametrize("kind", ["wrapper", "hookwrapper"])
@pytest.mark.parametrize(("hook", "argument"), HOOKS.items())
def test_a_wrapper_is_around_the_implementations_of_others(hook, argument, kind, plugin, call):
    calls = []

    def after(got):
        calls.append("after")
        return got

    wrapper = generator(argument, lambda: calls.append("before"), after)
    points = [
        plugin("a", hook, wrapper, **{kind: True}),
        plugin("b", hook, function(argument, lambda: calls.append("b"))),
    ]

    toolkit = call(hook, *points)

    assert calls == ["before", "b", "after"]
    assert {record.status for record in toolkit.plugins} == {"ok"}


@pytest.mark.parametrize("kind", ["wrapper", "hookwrapper"])
def test_a_wrapper_replaces_what_others_open(kind, plugin, call, reference_cases):
    class Renamed:
        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return "renamed" if name == "form" else getattr(self.inner, name)

    def new(got):
        return Renamed(got)

    def old(got):
        got.force_result(Renamed(got.get_result()))

    wrapper = generator("path", lambda: None, new if kind == "wrapper" else old)

    toolkit = call("", plugin("a", "open_checkpoint", wrapper, **{kind: True}))

    assert toolkit.open_checkpoint(reference_cases / "gqa-mp1").form == "renamed"


def never_yields(path):
    if path is None:
        yield


def yields_twice(path):
    yield
    yield


def fails_before(path):
    path.no_such_attribute  # noqa: B018
    yield


def fails_after(path):
    yield
    path.no_such_attribute  # noqa: B018


def forgets_the_result(path):
    yield


def replaces_it_by_nonsense(path):
    yield
    return "nonsense"


@pytest.mark.parametrize(
    ("wrapper", "reason"),
    [
        (never_yields, "RuntimeError: its wrapper did not yield"),
        (yields_twice, "RuntimeError: its wrapper yields twice"),
        (fails_before, "AttributeError: 'PosixPath' object has no attribute 'no_such_attribute'"),
        (fails_after, "AttributeError: 'PosixPath' object has no attribute 'no_such_attribute'"),
        (
            forgets_the_result,
            "TypeError: its wrapper returned None instead of the checkpoint",
        ),
        (
            replaces_it_by_nonsense,
            "TypeError: it returned str, without path, form, params.dim, params.context, "
            "parameters.items, nbytes_read, read",
        ),
    ],
)
def test_a_wrapper_that_fails_is_named_and_the_checkpoint_opened(
    wrapper, reason, plugin, call, reference_cases, capsys
):
    toolkit = call("", plugin("a", "open_checkpoint", wrapper, wrapper=True))

    opened = [toolkit.open_checkpoint(reference_cases / "gqa-mp1") for _ in range(2)]

    assert [it.form for it in opened] == ["meta", "meta"]
    assert toolkit.plugins[-1].reason == f"open_checkpoint: {reason}"
    assert capsys.readouterr().err.count("\n") == 1


def test_an_old_wrapper_that_forces_nonsense_is_named(plugin, call, reference_cases):
    def wrapper(path):
        outcome = yield
        outcome.force_result(7)

    toolkit = call("", plugin("a", "open_checkpoint", wrapper, hookwrapper=True))

    assert toolkit.open_checkpoint(reference_cases / "gqa-mp1").form == "meta"
    assert toolkit.plugins[-1].reason.startswith("open_checkpoint: TypeError: it returned int")


def test_a_wrapper_that_is_no_generator_is_broken(plugin, call):
    toolkit = call("", plugin("a", "open_checkpoint", lambda path: None, wrapper=True))  # noqa: ARG005

    assert toolkit.plugins[-1].reason == "its open_checkpoint is a wrapper without a yield"


@pytest.mark.parametrize("kind", ["wrapper", "hookwrapper"])
def test_a_wrapper_sees_the_error_of_a_damaged_checkpoint(kind, plugin, call, tmp_path):
    seen = []

    def damaged(path):
        raise CheckpointError(f"{path.name} is damaged")

    def wrapper(path):
        try:
            outcome = yield
        except CheckpointError as error:
            seen.append(str(error))
            raise
        seen.append(str(outcome.exception))

    toolkit = call(
        "",
        plugin("a", "open_checkpoint", wrapper, **{kind: True}),
        plugin("b", "open_checkpoint", damaged),
    )

    (tmp_path / "model").mkdir()
    with pytest.raises(CheckpointError, match="model is damaged"):
        toolkit.open_checkpoint(tmp_path / "model")
    assert seen == ["model is damaged"]
    assert [record.status for record in toolkit.plugins[-2:]] == ["ok", "ok"]


@pytest.mark.parametrize(("hook", "argument"), REGISTERING.items())
def test_a_wrapper_that_fails_around_registrations_costs_only_its_own_plugin(
    hook, argument, plugin, call
):
    def fail(got):
        return 1 / 0

    toolkit = call(hook, plugin("a", hook, generator(argument, lambda: None, fail), wrapper=True))

    assert toolkit.plugins[-1].reason == "ZeroDivisionError: division by zero"
    assert {record.status for record in toolkit.plugins[:-1]} == {"ok"}
    assert len(toolkit.samplers) > 1


def test_a_wrapper_may_register_too(plugin, call):
    def register_samplers(samplers):
        samplers.register("early", print)
        yield
        samplers.register("late", print)

    toolkit = call("", plugin("a", "register_samplers", register_samplers, wrapper=True))

    assert {"early", "late", "greedy"} <= {entry.name for entry in toolkit.samplers}
    assert {entry.source.name for entry in toolkit.plugins[-1].registered} == {"a"}


def test_an_implementation_under_another_name_says_which_hook_it_is(plugin, call):
    def offer(samplers):
        samplers.register("one", print)

    toolkit = call("", plugin("a", "offer", offer, specname="register_samplers"))

    assert "one" in toolkit.samplers
    assert toolkit.plugins[-1].hooks == ["register_samplers"]


@pytest.mark.parametrize(
    ("numbers", "fault"),
    [
        ((0, 1, 2), "has the vocab_size 0; expected how many tokens there are, an int"),
        ((9, "1", 2), "has the bos_id '1'; expected an int from 0 to 8"),
        ((9, 1, 9), "has the eos_id 9; expected an int from 0 to 8"),
    ],
)
def test_a_tokenizer_whose_numbers_break_the_contract_is_passed_over(numbers, fault, plugin, call):
    def load(path):
        vocab_size, bos_id, eos_id = numbers
        return types.SimpleNamespace(
            path=path, vocab_size=vocab_size, bos_id=bos_id, eos_id=eos_id, encode=list, decode=str
        )

    toolkit = call("load_tokenizer", plugin("a", "load_tokenizer", load))

    assert toolkit.plugins[-1].reason == f"load_tokenizer: TypeError: it {fault}"
