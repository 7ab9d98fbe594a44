"""What ``export --plan`` and ``import --plan`` say, and what is then written."""

from __future__ import annotations

import json

import pytest

import llamakit
from llamakit.errors import OptionError, PluginError, UnknownNameError, UsageError
from llamakit.protocols import ToolCommand

PLUGIN = """
from llamakit import hookimpl

def export(checkpoint, destination, options):
    destination.mkdir()
    (destination / "weights").write_bytes(b"1234")
    return {"nbytes": 4}

PLAN = @PLAN@
if PLAN is not None:
    export.plan = lambda checkpoint, destination, options: PLAN

@hookimpl
def register_exporters(exporters):
    exporters.register("mill", export, help="grinds weights")
"""
GOOD = {"files": [{"name": "weights", "nbytes": 4}], "nbytes_read": 8, "memory_nbytes": 1}


@pytest.fixture
def with_exporter(install_plugin):
    """Install a plugin with an exporter, which plans what it is called with."""
    return lambda plan: install_plugin(PLUGIN.replace("@PLAN@", repr(plan)))


def sizes(described):
    return [(file["name"], file["nbytes"]) for file in described["files"]]


@pytest.mark.parametrize(
    ("form", "options"),
    [("hf", {}), ("hf", {"max_shard_size": "100KB", "quantize": "int8"}), ("safetensors", {})],
)
def test_an_export_writes_what_its_plan_says(reference_cases, tmp_path, form, options):
    source = reference_cases / "mha-mp8"

    plan = llamakit.plan_export(source, tmp_path / "out", form, **options).as_json()
    nothing_was_written = list(tmp_path.iterdir()) == []
    report = llamakit.export(source, tmp_path / "out", form, **options)

    assert nothing_was_written
    assert plan["refusals"] == []
    assert sizes(plan) == sizes(report)
    for key in ("source", "destination", "nbytes", "nbytes_read", "notes"):
        assert plan.get(key) == report.get(key)


def test_an_import_writes_what_its_plan_says(reference_cases, tmp_path):
    llamakit.export(reference_cases / "gqa-mp1", tmp_path / "hf")

    plan = llamakit.plan_import(tmp_path / "hf", tmp_path / "out", 2)
    report = llamakit.import_checkpoint(tmp_path / "hf", tmp_path / "out", 2)

    assert sizes(plan.as_json()) == sizes(report)


@pytest.mark.parametrize("command", [("export", "--for", "vllm"), ("import",)])
def test_a_plan_on_the_command_line_writes_nothing(
    run_llamakit, reference_cases, tmp_path, command
):
    words = (*command, reference_cases / "gqa-mp1", "out", "--plan")

    planned = run_llamakit(*words, "--json")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    refused = run_llamakit(*words)

    assert planned.returncode == 0, planned.stderr
    plan = json.loads(planned.stdout)
    assert plan["nbytes"] == sum(file["nbytes"] for file in plan["files"])
    assert set(plan) >= {"source", "nbytes_read", "memory_nbytes", "refusals"}
    assert refused.returncode == 1
    assert "refused: out exists already" in refused.stdout


def test_a_plan_is_refused_as_the_export_is(reference_cases, tmp_path):
    source = reference_cases / "gqa-mp1"

    with pytest.raises(OptionError, match="has no option 'colour'"):
        llamakit.plan_export(source, tmp_path / "out", "safetensors", colour="red")
    with pytest.raises(UnknownNameError):
        llamakit.plan_export(source, tmp_path / "out", "safetensor")


def test_an_exporter_without_a_plan_is_a_usage_error(with_exporter, reference_cases, tmp_path):
    with_exporter(None)

    with pytest.raises(
        UsageError, match=r"exporter mill of the plugin 'mill' .*Leave --plan"
    ) as it:
        llamakit.plan_export(reference_cases / "gqa-mp1", tmp_path / "out", "mill")

    assert it.value.exit_status == 2


def test_a_third_party_plan_has_the_same_keys(with_exporter, reference_cases, tmp_path):
    with_exporter(GOOD)

    plan = llamakit.plan_export(reference_cases / "gqa-mp1", tmp_path / "out", "mill").as_json()

    hf = llamakit.plan_export(reference_cases / "gqa-mp1", tmp_path / "out").as_json()
    assert set(hf) - set(plan) == {"notes"}
    assert (sizes(plan), plan["nbytes"], plan["nbytes_read"]) == ([("weights", 4)], 4, 8)


@pytest.mark.parametrize(
    ("plan", "fault"),
    [
        (["weights"], "plans list; expected a mapping"),
        (GOOD | {"files": ["weights"]}, "plans no list of files"),
        (GOOD | {"files": [{"name": "weights", "nbytes": -1}]}, "plans no list of files"),
        (GOOD | {"memory_nbytes": "1"}, "plans no memory_nbytes"),
        (GOOD | {"notes": "a note"}, "plans notes that are no list"),
    ],
)
def test_a_plan_that_is_none_names_its_plugin(
    with_exporter, reference_cases, tmp_path, plan, fault
):
    with_exporter(plan)

    with pytest.raises(PluginError, match=rf"mill.*{fault}"):
        llamakit.plan_export(reference_cases / "gqa-mp1", tmp_path / "out", "mill")


@pytest.mark.parametrize("form", ["hf", "safetensors", "mill"])
def test_a_tool_of_ones_own_is_what_llamakit_json_names(
    with_exporter, reference_cases, tmp_path, form
):
    with_exporter(GOOD)
    command = ToolCommand("blend", {"share": 0.5}, "blender 1.0")

    llamakit.export(reference_cases / "gqa-mp1", tmp_path / "out", form, command=command)

    (step,) = json.loads((tmp_path / "out" / "llamakit.json").read_text("utf-8"))["steps"]
    assert (step["command"], step["made_by"]) == ("blend", "blender 1.0")
    assert step["options"] == {"format": form, "share": 0.5}
