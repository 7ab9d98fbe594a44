"""What users see of a third-party plugin, good or bad. Each is a real package that pip installs."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys

import pytest
from lazy_torch import needs_torch

from llamakit import __version__
from llamakit._distribution import install_command


def listing(run_llamakit, env):
    """Return ``llamakit plugins --json`` by name, after checking that it ends well."""
    result = run_llamakit("plugins", "--json", env=env)
    assert result.returncode == 0, result.stderr
    return {plugin["name"]: plugin for plugin in json.loads(result.stdout)}


def test_the_sampler_of_the_architecture_page_is_found_and_explained(run_llamakit, plugins):
    env = plugins("second")

    shown = run_llamakit("plugins", "show", "nth", env=env)
    plugin = listing(run_llamakit, env)["second"]

    assert "sampler nth (from llamakit-second 0.1)" in shown.stdout
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert rows[-3:-1] == [["option", "type", "default", "help"], ["rank", "int", "2"]]
    assert plugin == {
        "name": "second",
        "package": "llamakit-second",
        "version": "0.1",
        "builtin": False,
        "status": "ok",
        "reason": "",
        "hooks": ["register_samplers"],
        "registered": [{"kind": "sampler", "name": "nth", "help": "the n-th most likely token"}],
    }


@pytest.mark.parametrize(
    ("name", "models"),
    [("7B", ["7B"]), ("demo", ["demo"]), ("llama2-models", ["7B", "7B-chat", "13B"])],
)
def test_a_model_is_shown_with_the_fields_of_its_entry(run_llamakit, name, models):
    shown = run_llamakit("plugins", "show", name)
    described = json.loads(run_llamakit("plugins", "show", name, "--json").stdout)

    assert (shown.returncode, shown.stderr) == (0, "")
    entries = [it for it in described if it["kind"] == "model"]
    assert [it["name"] for it in entries][: len(models)] == models
    for entry in entries:
        assert f"model {entry['name']} (built in)" in shown.stdout
        assert f"folder {entry['fields']['folder']}" in one_spaced(shown.stdout)


def test_help_of_a_command_names_what_a_plugin_has_added(run_llamakit, plugins):
    env = plugins("second") | {"COLUMNS": "100"}

    result = run_llamakit("generate", "-h", env=env)

    assert "nth (from llamakit-second)" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("package", "name", "reason"),
    [
        pytest.param(
            "raises_at_import",
            "importfail",
            "ZeroDivisionError: division by zero",
            id="raises at import",
        ),
        pytest.param(
            "exits_at_import",
            "exits",
            "it called sys.exit(3) while it was loaded",
            id="exits at import",
        ),
        pytest.param(
            "raises_at_registration",
            "regfail",
            "RuntimeError: no licence for this machine",
            id="raises at registration",
        ),
        pytest.param(
            "missing_dependency",
            "needy",
            "ModuleNotFoundError: No module named 'no_such_package_anywhere'; "
            "pip install no_such_package_anywhere may help; llamakit-needy should declare what it "
            "needs: tell its author",
            id="misses a dependency",
        ),
        pytest.param(
            "newer",
            "newer",
            f"it implements register_dreams, which llamakit {__version__} does not have: it may "
            f"be for a newer llamakit than {__version__}; {install_command(upgrade=True)} "
            "&& pip install --upgrade llamakit-newer brings both up to date",
            id="is for a newer llamakit",
        ),
        pytest.param(
            "no_command",
            "nocommand",
            "TypeError: the command later is of type function, not a click.Command",
            id="registers no command",
        ),
    ],
)
def test_a_broken_plugin_is_named_in_one_line_and_skipped(
    run_llamakit, plugins, package, name, reason
):
    env = plugins(package, "second")

    result = run_llamakit("plugins", "--json", env=env)

    listed = {plugin["name"]: plugin for plugin in json.loads(result.stdout)}
    version = listed[name]["version"]
    assert result.returncode == 0
    assert result.stderr == (
        f"llamakit: plugin {name!r} (llamakit-{name} {version}) is broken and skipped: {reason} "
        f"(LLAMAKIT_DISABLE_PLUGINS={name} silences this, LLAMAKIT_DEBUG=1 shows where)\n"
    )
    assert (listed[name]["status"], listed[name]["reason"]) == ("broken", reason)
    assert listed[name]["registered"] == []
    assert listed["second"]["status"] == "ok"
    shown = run_llamakit("plugins", env=env | {"COLUMNS": "400"}).stdout.splitlines()
    assert f"{name} llamakit-{name} {version} broken {reason}" in map(one_spaced, shown)


def one_spaced(line):
    return " ".join(line.split())


def test_nothing_counts_of_a_plugin_that_fails_while_registering(run_llamakit, plugins):
    result = run_llamakit("plugins", "show", "half-done", env=plugins("raises_at_registration"))

    assert result.returncode == 2
    assert "is called 'half-done'" in result.stderr


def test_debugging_shows_where_a_plugin_failed(run_llamakit, plugins):
    env = plugins("raises_at_import") | {"LLAMAKIT_DEBUG": "1"}

    result = run_llamakit("plugins", env=env)

    assert result.returncode == 0
    assert "RATIO = 1 / 0" in result.stderr


def test_a_builtin_keeps_its_name(run_llamakit, plugins):
    env = plugins("takes_builtin")

    result = run_llamakit("plugins", "show", "greedy", env=env)
    plugin = listing(run_llamakit, env)["grabby"]

    assert "sampler greedy (built in)" in result.stdout
    assert result.stderr == (
        "llamakit: plugin 'grabby' (llamakit-grabby 0.6) is broken: "
        "the sampler greedy is built in and keeps its name; the author has to choose another\n"
    )
    assert plugin["status"] == "broken"
    assert [entry["name"] for entry in plugin["registered"]] == ["last"]


@pytest.mark.parametrize("order", [("clash_one", "clash_two"), ("clash_two", "clash_one")])
def test_two_third_party_plugins_that_claim_one_name_both_lose_it(run_llamakit, plugins, order):
    env = plugins(*order)
    reason = (
        "the sampler contested is claimed by llamakit-clash-one and llamakit-clash-two: "
        "uninstall one, or set LLAMAKIT_DISABLE_PLUGINS to clash-one or clash-two"
    )

    used = run_llamakit("plugins", "show", "contested", env=env)
    listed = listing(run_llamakit, env)

    assert used.returncode == 1
    assert used.stderr.splitlines() == [
        f"llamakit: plugin 'clash-one' (llamakit-clash-one 1.0) is broken: {reason}",
        f"llamakit: plugin 'clash-two' (llamakit-clash-two 2.0) is broken: {reason}",
        f"llamakit: error: {reason}",
    ]
    assert {listed[name]["status"] for name in ("clash-one", "clash-two")} == {"broken"}
    assert {listed[name]["reason"] for name in ("clash-one", "clash-two")} == {reason}


def test_switching_one_of_two_off_gives_the_other_the_name(run_llamakit, plugins):
    env = plugins("clash_one", "clash_two") | {"LLAMAKIT_DISABLE_PLUGINS": "clash-two"}

    result = run_llamakit("plugins", "show", "contested", env=env)
    listed = listing(run_llamakit, env)

    assert "sampler contested (from llamakit-clash-one 1.0)" in result.stdout
    assert result.stderr == ""
    assert listed["clash-one"]["status"] == "ok"
    assert listed["clash-two"]["status"] == "disabled"


@pytest.mark.parametrize(
    "names", ["importfail,second", "importfail second", " second, importfail "]
)
def test_plugins_that_are_switched_off_are_not_even_imported(run_llamakit, plugins, names):
    env = plugins("raises_at_import", "second") | {"LLAMAKIT_DISABLE_PLUGINS": names}

    result = run_llamakit("plugins", "--json", env=env)

    listed = {plugin["name"]: plugin for plugin in json.loads(result.stdout)}
    assert result.stderr == ""
    assert listed["second"]["status"] == listed["importfail"]["status"] == "disabled"
    assert listed["second"]["reason"] == "LLAMAKIT_DISABLE_PLUGINS names it"


def test_switching_all_off_spares_the_builtins(run_llamakit, plugins):
    env = plugins("raises_at_import", "second") | {"LLAMAKIT_DISABLE_PLUGINS": "all"}

    listed = listing(run_llamakit, env)

    third_party = {plugin["status"] for plugin in listed.values() if not plugin["builtin"]}
    builtins = {plugin["status"] for plugin in listed.values() if plugin["builtin"]}
    assert third_party == {"disabled"}
    assert builtins == {"ok"}


def test_a_builtin_can_be_switched_off_by_name(run_llamakit):
    env = {"LLAMAKIT_DISABLE_PLUGINS": "greedy"}

    result = run_llamakit("plugins", "show", "greedy", env=env)

    assert "greedy  built in  disabled  LLAMAKIT_DISABLE_PLUGINS names it" in result.stdout


def test_a_command_of_a_plugin_that_is_switched_off_is_said_to_be(run_llamakit, plugins):
    env = plugins("command") | {"LLAMAKIT_DISABLE_PLUGINS": "explode,commands"}

    third_party = run_llamakit("explode", env=env)
    builtin = run_llamakit("doctor", env=env)
    other = run_llamakit("detonate", env=env)

    assert [it.returncode for it in (third_party, builtin, other)] == [2, 2, 2]
    assert third_party.stderr == (
        "llamakit: error: no command is called 'explode'; LLAMAKIT_DISABLE_PLUGINS switches off "
        "the plugin explode\n"
    )
    assert "(LLAMAKIT_DISABLE_PLUGINS switches off" in builtin.stderr
    assert other.stderr.endswith(" (LLAMAKIT_DISABLE_PLUGINS switches off commands, explode)\n")


def test_options_of_an_exporter_are_shown_as_its_docstring_explains_them(run_llamakit, plugins):
    env = plugins("fails_later")

    shown = run_llamakit("plugins", "show", "mumble", env=env)
    described = run_llamakit("plugins", "show", "mumble", "--json", env=env)
    without = run_llamakit("plugins", "show", "drop", env=env)

    assert "report  which kind: nothing, text, object, files or empty." in shown.stdout
    assert json.loads(described.stdout)[0]["options"] == [
        {
            "name": "report",
            "type": "str",
            "default": None,
            "help": "which kind: nothing, text, object, files or empty.",
        }
    ]
    assert "no options" in without.stdout


def test_a_third_party_plugins_command_is_in_a_section_of_its_package(run_llamakit, plugins):
    result = run_llamakit("--help", env=plugins("command"))

    assert "From llamakit-explode:\n  greet    Say hello." in result.stdout


def test_a_third_party_plugins_command_says_whose_it_is(run_llamakit, plugins):
    result = run_llamakit("greet", "-h", env=plugins("command"))

    assert "Usage: llamakit greet [OPTIONS]" in result.stdout
    assert "From the plugin 'explode' (llamakit-explode 0.7)." in result.stdout


def test_a_third_party_plugins_command_runs(run_llamakit, plugins):
    result = run_llamakit("greet", "--times", "2", env=plugins("command"))

    assert (result.returncode, result.stdout, result.stderr) == (0, "hello\nhello\n", "")


@pytest.mark.parametrize(("code", "status"), [("5", 5), ("0", 0), ("goodbye", 1)])
def test_a_third_party_command_that_exits_keeps_its_status_and_is_named(
    run_llamakit, plugins, code, status
):
    result = run_llamakit("leave", code, env=plugins("command"))

    said = code if code.isdigit() else f"'{code}'"
    plugin = "the plugin 'explode' (llamakit-explode 0.7)"
    named = f"the command leave of {plugin} called sys.exit({said})"
    assert result.returncode == status
    assert result.stderr == ("" if status == 0 else f"llamakit: {named}\n")


def test_a_third_party_plugins_command_that_fails_is_one_sentence(run_llamakit, plugins):
    result = run_llamakit("explode", env=plugins("command"))

    assert result.returncode == 1
    assert result.stderr == (
        "llamakit: error: the command explode of the plugin 'explode' (llamakit-explode 0.7) "
        "failed: KeyError: 'fuse' (LLAMAKIT_DEBUG=1 shows where)\n"
    )


def test_debugging_shows_where_a_command_failed(run_llamakit, plugins):
    result = run_llamakit("explode", env=plugins("command") | {"LLAMAKIT_DEBUG": "1"})

    assert result.returncode == 1
    assert 'raise KeyError("fuse")' in result.stderr


@needs_torch
def test_a_sampler_that_fails_while_sampling_names_its_plugin(
    run_llamakit, plugins, reference_cases
):
    model = reference_cases / "gqa-mp1"
    env = plugins("fails_later")

    result = run_llamakit(
        *("generate", "-m", model, "--sampler", "moody", "--sampler-option", "patience=3", "Hello"),
        *("--tokenizer", reference_cases / "tokenizer.model"),
        env=env,
    )

    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "llamakit: error: the sampler moody of the plugin 'later' (llamakit-later 0.8) failed: "
        "IndexError: patience of 3 is over (LLAMAKIT_DEBUG=1 shows where)"
    )
    # on a terminal, where both are shown, the message begins a line of its own
    assert result.stdout.strip()
    assert result.stdout.endswith("\n")


@needs_torch
@pytest.mark.parametrize(
    ("words", "thing", "cause"),
    [
        (["--sampler", "leaving"], "sampler leaving", "3"),
        (["--sampler", "leaving", "--sampler-option", "politely=yes"], "sampler leaving", "'goodb"),
        (["--processor", "gone"], "processor gone", "4"),
    ],
)
def test_what_exits_in_use_names_its_plugin(
    run_llamakit, plugins, reference_cases, words, thing, cause
):
    model = ["-m", reference_cases / "gqa-mp1", "--tokenizer", reference_cases / "tokenizer.model"]

    result = run_llamakit("generate", *model, *words, "Hello", env=plugins("fails_later"))

    assert result.returncode == 1
    assert (
        f"llamakit: error: the {thing} of the plugin 'later' (llamakit-later 0.8) failed: "
        f"it called sys.exit({cause}"
    ) in result.stderr.splitlines()[-1]


@needs_torch
def test_a_hook_that_fails_is_named_and_the_next_plugin_is_asked(
    run_llamakit, plugins, reference_cases
):
    model = reference_cases / "gqa-mp1"

    result = run_llamakit(
        *("generate", "-m", model, "--max-new-tokens", "1", "Hello"),
        *("--tokenizer", reference_cases / "tokenizer.model"),
        env=plugins("fails_later"),
    )

    assert result.returncode == 0, result.stderr
    assert (
        "llamakit: plugin 'later' (llamakit-later 0.8) is broken and skipped: "
        "open_checkpoint: AttributeError: cannot think about gqa-mp1 "
        "(LLAMAKIT_DISABLE_PLUGINS=later silences this, LLAMAKIT_DEBUG=1 shows where)"
    ) in result.stderr.splitlines()


def test_an_exporter_that_fails_names_its_plugin_and_leaves_nothing(
    run_llamakit, plugins, reference_cases, tmp_path
):
    words = ["export", reference_cases / "gqa-mp1", "made", "--format", "drop"]

    result = run_llamakit(*words, env=plugins("fails_later"))

    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "llamakit: error: the exporter drop of the plugin 'later' (llamakit-later 0.8) failed: "
        "KeyError: 'the last layer' (LLAMAKIT_DEBUG=1 shows where)"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize(
    ("report", "fault"),
    [
        (
            "nothing",
            "returned NoneType; expected a mapping that reports what was done, such as "
            "{'files': […], 'nbytes': …}",
        ),
        (
            "text",
            "returned str; expected a mapping that reports what was done, such as "
            "{'files': […], 'nbytes': …}",
        ),
        (
            "object",
            "returned a report that is no JSON (Object of type object is not JSON serializable); "
            "expected strings, numbers and lists",
        ),
        ("empty", "wrote nothing at its destination"),
    ],
)
def test_an_exporter_whose_report_is_nonsense_is_named_and_leaves_nothing(
    run_llamakit, plugins, reference_cases, tmp_path, report, fault
):
    words = ["export", reference_cases / "gqa-mp1", "made", "--format", "mumble"]

    result = run_llamakit(*words, "--option", f"report={report}", env=plugins("fails_later"))

    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "llamakit: error: the exporter mumble of the plugin 'later' (llamakit-later 0.8) "
        f"{fault}: tell its author"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_report_may_mean_something_else_by_files(
    run_llamakit, plugins, reference_cases, tmp_path
):
    words = ["export", reference_cases / "gqa-mp1", "made", "--format", "mumble"]

    result = run_llamakit(*words, "--option", "report=files", env=plugins("fails_later"))

    assert (result.returncode, result.stdout) == (0, "wrote made\n")
    assert (tmp_path / "made").is_dir()


@needs_torch
def test_a_sampler_that_fails_while_sampling_is_listed_after_a_check(run_llamakit, plugins):
    env = plugins("fails_later", "second")
    reason = (
        "sampler moody: IndexError: patience of 0 is over; sampler leaving: it called sys.exit(3); "
        "processor gone: it called sys.exit(4); kernel rusty: OSError: no such instruction"
    )

    unchecked = listing(run_llamakit, env)
    checked = run_llamakit("plugins", "--check", "--json", env=env)
    shown = run_llamakit("plugins", "--check", env=env)

    listed = {plugin["name"]: plugin for plugin in json.loads(checked.stdout)}
    assert unchecked["later"]["status"] == "ok"
    assert (checked.returncode, checked.stderr) == (0, "")
    assert (listed["later"]["status"], listed["later"]["reason"]) == ("broken", reason)
    assert listed["second"]["status"] == "ok"
    assert run_llamakit("plugins", "--check", "--strict", env=env).returncode == 1
    assert [line.endswith(reason) for line in shown.stdout.splitlines() if "later" in line] == [
        True
    ]


def test_a_check_warns_of_an_option_that_nobody_can_type(run_llamakit, install, tmp_path):
    place = shutil.copytree(install("second"), tmp_path / "place")
    module = place / "llamakit_second.py"
    module.write_text(module.read_text().replace("int = 2", "int = 2, w: list[str] = ()"))

    checked = run_llamakit("plugins", "--check", env={"PYTHONPATH": str(place)})

    assert checked.returncode == 0
    assert checked.stderr == (
        "llamakit: plugin 'second' (llamakit-second 0.1): the option w of sampler nth is of type "
        "list[str], which nobody can type on a command line; its author can use int, float, bool, "
        "str, Path, Literal[…], or one of these with | None\n"
    )


@pytest.mark.parametrize("words", [("lazy", "solve"), ("lazy", "--help"), ("lazy",)])
def test_a_command_that_cannot_be_built_names_its_plugin(run_llamakit, plugins, words):
    result = run_llamakit(*words, env=plugins("lazy_group"))

    assert result.returncode == 1
    assert result.stderr == (
        "llamakit: error: the command lazy of the plugin 'lazy' (llamakit-lazy 1.1) failed: "
        "ModuleNotFoundError: No module named 'no_such_solver' (LLAMAKIT_DEBUG=1 shows where)\n"
    )


def test_a_command_that_cannot_be_built_is_listed_and_hurts_no_other(run_llamakit, plugins):
    env = plugins("lazy_group", "second")

    plugin = listing(run_llamakit, env)["lazy"]
    shown = run_llamakit("plugins", env=env)
    helped = run_llamakit("--help", env=env)

    reason = "command lazy: ModuleNotFoundError: No module named 'no_such_solver'"
    assert (plugin["status"], plugin["reason"]) == ("broken", reason)
    assert f"llamakit-lazy 1.1 broken command lazy; {reason}" in one_spaced(shown.stdout)
    assert shown.stderr == ""
    assert "From llamakit-lazy:\n  lazy  Solve things." in helped.stdout


def test_a_plugin_that_hangs_is_left_out_by_its_name(run_llamakit, plugins):
    env = plugins("hangs_at_import", "second") | {"LLAMAKIT_DISABLE_PLUGINS": "sleeper"}

    listed = listing(run_llamakit, env)
    helped = run_llamakit("--help", env=env)

    assert listed["sleeper"]["status"] == "disabled"
    assert listed["sleeper"]["reason"] == "LLAMAKIT_DISABLE_PLUGINS names it"
    assert listed["second"]["status"] == "ok"
    assert (helped.returncode, helped.stderr) == (0, "")


@pytest.mark.parametrize(
    ("names", "status"), [((), 0), (("second",), 0), (("second", "raises_at_import"), 1)]
)
def test_strict_has_a_status_for_ci(run_llamakit, plugins, names, status):
    env = plugins(*names) if names else {}

    assert run_llamakit("plugins", "--strict", "--json", env=env).returncode == status
    assert run_llamakit("plugins", "--json", env=env).returncode == 0


@pytest.mark.parametrize("place", ["import", "hook"])
def test_a_plugin_that_takes_long_to_load_is_named_at_every_start(
    run_llamakit, install, tmp_path, place
):
    folder = shutil.copytree(install("second"), tmp_path / "place")
    module = folder / "llamakit_second.py"
    wait = "__import__('time').sleep(0.05)"
    lines = module.read_text()
    if place == "import":
        module.write_text(f"{lines}\n{wait}\n")
    else:
        module.write_text(
            lines.replace("    samplers.register(", f"    {wait}\n    samplers.register(")
        )
    env = {"PYTHONPATH": str(folder)}

    slow = run_llamakit("--version", env=env | {"LLAMAKIT_SLOW_PLUGIN": "0.05"})
    quick = run_llamakit("--version", env=env)

    assert slow.returncode == quick.returncode == 0
    assert re.fullmatch(
        r"llamakit: plugin 'second' \(llamakit-second 0.1\) took \d+\.\d s to load, as at every "
        "start; its author can import what takes long where it is used; "
        "LLAMAKIT_DISABLE_PLUGINS=second leaves it out\n",
        slow.stderr,
    )
    assert quick.stderr == ""


def test_ctrl_c_while_a_plugin_hangs_says_how_to_leave_it_out(isolated, plugins):
    process = subprocess.Popen(
        [sys.executable, "-m", "llamakit", "--help"],
        env=isolated | plugins("hangs_at_import"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=300)

    assert process.returncode == 130
    assert complaint.splitlines()[0] == (
        "llamakit: interrupted while plugin 'sleeper' (llamakit-sleeper 0.9) was being loaded; "
        "LLAMAKIT_DISABLE_PLUGINS=sleeper leaves it out"
    )
