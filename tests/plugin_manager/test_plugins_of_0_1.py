"""Plugins that were written for llamakit 0.1 work, or are told what to import instead."""

from __future__ import annotations

import json

import pytest
from lazy_torch import needs_torch


@needs_torch
def test_a_plugin_of_0_1_with_promised_imports_works_unchanged(
    run_llamakit, plugins, reference_cases
):
    env = plugins("of_0_1")

    (plugin,) = (
        it
        for it in json.loads(run_llamakit("plugins", "--json", "--check", env=env).stdout)
        if it["name"] == "steady"
    )
    counted = run_llamakit("steady-names", reference_cases / "gqa-mp1", env=env)

    assert (plugin["status"], plugin["reason"]) == ("ok", "")
    assert {it["kind"] for it in plugin["registered"]} == {
        *("sampler", "processor", "prompt format", "exporter", "drafter", "model"),
        "checkpoint tool",
    }
    assert (counted.returncode, counted.stderr) == (0, "")
    assert int(counted.stdout) > 0


@needs_torch
def test_the_checks_that_its_author_wrote_pass(plugins, run_script, reference_cases):
    case = str(reference_cases / "gqa-mp1")

    checked = run_script("-m", "check_steady", case, env=plugins("of_0_1"))

    assert checked.returncode == 0, checked.stderr


def test_a_plugin_that_imports_a_moved_module_is_shown_its_new_path(moved_imports):
    now = {
        "registry": "llamakit.hookspecs (Registrar)",
        "toolkit": "llamakit itself (open_checkpoint, load_tokenizer)",
        "options": "llamakit.cli.shared_options, which may change",
        "tables": "llamakit.cli.terminal, which may change",
        "factories": "llamakit.plugin_manager.factories, which may change",
    }

    assert {moved_imports[name]["status"] for name in now} == {"broken"}
    assert {name: moved_imports[name]["reason"] for name in now} == {
        name: f"ModuleNotFoundError: No module named 'llamakit.{name}': llamakit.{name} is now {it}"
        for name, it in now.items()
    }


@needs_torch
def test_a_moved_module_that_is_imported_in_use_is_shown_too(moved_imports):
    assert moved_imports["in-use"]["reason"].endswith(
        "llamakit.streaming is now llamakit itself (Llama)"
    )


@pytest.fixture
def moved_imports(run_llamakit, plugins):
    """What ``llamakit plugins --check`` says of plugins that import moved modules, by name."""
    listed = run_llamakit("plugins", "--json", "--check", env=plugins("moved_imports"))
    assert listed.returncode == 0, listed.stderr
    return {it["name"]: it for it in json.loads(listed.stdout) if not it["builtin"]}


@needs_torch
def test_every_module_that_is_said_to_have_moved_is_gone_and_its_successor_there():
    from importlib import import_module
    from importlib.util import find_spec

    from llamakit.plugin_manager.moved import MOVED

    for old, new in MOVED.items():
        module, _, names = new.removesuffix(", which may change").partition(" (")
        successor = import_module(module.removesuffix(" itself"))
        assert all(hasattr(successor, name) for name in names.rstrip(")").split(", ") if name)
        if old != "llamakit.llama":  # a package of that name is there, without the public name
            parent = old.rpartition(".")[0]
            assert find_spec(parent) is not None
            assert find_spec(old) is None
