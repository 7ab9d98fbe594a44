"""What a plugin does at every start: it registers, at once and quietly."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from llamakit._distribution import DISTRIBUTION
from llamakit.plugin_manager.entry_points import EntryPoint, find_entry_points
from llamakit.plugin_manager.toolkit import GROUP, load_toolkit
from llamakit.testing.process_state import ContractError

_HEAVY = ("torch", "numpy", "transformers", "sentencepiece", "scipy", "pandas", "safetensors")
_PATIENCE = 180
"""Seconds after which a plugin that is being loaded is said to hang."""
_PROGRAM = """
import json, sys
sys.path[:] = json.loads(sys.argv[2])
from llamakit.testing.registration_checks import describe
sys.stdout.write("\\n" + json.dumps(describe(sys.argv[1], json.loads(sys.argv[3]))))
"""


def check_plugin(module: str) -> None:
    """Check what a plugin does at every start, in a fresh process.

    Args:
        module: what its entry point names, such as ``"llamakit_nth"``.

    Raises:
        AssertionError: it is broken, imports what is heavy, prints, changes the process, or
            registers something without a help.
    """
    __tracebackhide__ = True
    fault = _fault(module)
    if fault:
        raise ContractError(fault)


def check_registration_of(thing: object) -> None:
    """Check the plugin that something is from, if it is from one."""
    __tracebackhide__ = True
    module = getattr(thing, "__module__", None) or getattr(
        getattr(thing, "callback", None), "__module__", ""
    )
    for plugin in _plugins_of(str(module)):
        check_plugin(plugin)


def describe(module: str, heavy: list[str]) -> dict[str, Any]:
    """Load one plugin next to the built-in ones, and say what became of it and of the process.

    This is what the fresh process does.

    Args:
        module: what the plugin's entry point names.
        heavy: the modules that it should not import yet.
    """
    others, point = _points(module)
    load_toolkit(others, disabled="")  # what the built-in ones import is not this plugin's affair
    modules, shared = set(sys.modules), _shared()
    printed = io.StringIO()  # what plugins print while they are loaded goes to stderr
    with contextlib.redirect_stderr(printed):
        toolkit = load_toolkit([*others, point], disabled="")
    (record,) = (
        it
        for it in toolkit.plugins
        if it.source.package == point.package and it.source.name == point.name
    )
    return {
        "status": record.status,
        "reason": record.reason,
        "printed": printed.getvalue()[:40],
        "heavy": [it for it in heavy if it in sys.modules and it not in modules],
        "changed": [what for what, value in _shared().items() if value != shared[what]],
        "unexplained": [str(entry) for entry in record.registered if not entry.help],
    }


def _points(module: str) -> tuple[list[EntryPoint], EntryPoint]:
    """Return the entry points of the built-in plugins, and that of the one to be loaded."""
    builtins = [point for point in find_entry_points(GROUP) if point.package == DISTRIBUTION]
    own = EntryPoint(module, module, "", module.replace("_", "-"), "0")
    own = next((point for point in builtins if point.module == module), own)
    return [point for point in builtins if point.module != module], own


def _shared() -> dict[str, object]:
    return {"the environment variables": dict(os.environ), "the current folder": Path.cwd()}


@functools.cache
def _fault(module: str) -> str:
    """Say what is wrong with a plugin, or nothing."""
    arguments = [module, json.dumps(sys.path), json.dumps(_HEAVY)]
    command = [sys.executable, "-c", _PROGRAM, *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return f"loading the plugin {module} takes over {_PATIENCE} s: do no work at its top level"
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"loading the plugin {module} ends the process: {last}"
    last = done.stdout.rpartition("\n")[2]
    return _complaint(module, json.loads(last))  # noqa: TID251 - of the program above


def _complaint(module: str, state: dict[str, Any]) -> str:
    if state["status"] != "ok":
        absent = f"but there is no {module}:" in state["reason"]
        return (
            f"there is no module {module}: is the name right, and is its package installed?"
            if absent
            else f"the plugin {module} is broken: {state['reason']}"
        )
    if state["heavy"]:
        return (
            f"the plugin {module} imports {', '.join(state['heavy'])} when it is loaded, which "
            "every `llamakit --help` would wait for: import it inside the function that needs it"
        )
    if state["printed"]:
        return (
            f"the plugin {module} prints {state['printed']!r} when it is loaded, into whatever "
            "command is run: take the print out"
        )
    if state["changed"]:
        return (
            f"the plugin {module} changes {' and '.join(state['changed'])} when it is loaded; "
            "every command would run with that: leave them"
        )
    if state["unexplained"]:
        return (
            f"the plugin {module} registers {', '.join(state['unexplained'])} without a help: "
            'pass register(…, help="one line")'
        )
    return ""


def _plugins_of(module: str) -> list[str]:
    """Name the plugins that a module belongs to: itself, or those of its package."""
    loaded = sys.modules.get(module)
    if loaded is not None and any(map(_is_hook, vars(loaded).values())):
        return [module]
    top = module.partition(".")[0]
    if top in ("", "llamakit"):
        return []
    points = find_entry_points(GROUP)
    return sorted({point.module for point in points if point.module.partition(".")[0] == top})


def _is_hook(value: object) -> bool:
    return callable(value) and hasattr(value, "llamakit_impl")
