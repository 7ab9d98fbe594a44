"""Each rule for exporters, commands and checkpoint tools can fail, and says what to fix."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import pytest

import llamakit
from llamakit.errors import OptionError
from llamakit.testing import check_checkpoint_tool, check_command, check_exporter


def export(checkpoint, destination, options):
    """Write one parameter."""
    if set(options) - {"progress"}:
        raise OptionError("no options")
    destination.mkdir()
    np.save(destination / "norm.npy", checkpoint.read("norm.weight"))
    return {"files": ["norm.npy"]}


def takes_every_option(checkpoint, destination, options):
    return export(checkpoint, destination, {})


def refuses_progress(checkpoint, destination, options):
    if options:
        raise OptionError("no options")
    return export(checkpoint, destination, options)


def chokes_on_options(checkpoint, destination, options):
    for name in options:
        {"progress": 1}[name]
    return export(checkpoint, destination, {})


def makes_nothing(checkpoint, destination, options):
    return {}


def writes_beside(checkpoint, destination, options):
    destination.with_name("log.txt").write_text("done")
    return export(checkpoint, destination, options)


def writes_into_the_source(checkpoint, destination, options):
    (checkpoint.path / "converted").touch()
    return export(checkpoint, destination, options)


def writes_random_numbers(checkpoint, destination, options):
    report = export(checkpoint, destination, options)
    np.save(destination / "seed.npy", np.random.default_rng().random(4))
    return report


def reports_nothing(checkpoint, destination, options):
    export(checkpoint, destination, options)


def reports_paths(checkpoint, destination, options):
    export(checkpoint, destination, options)
    return {"destination": destination}


def prints(checkpoint, destination, options):
    print("exporting")
    return export(checkpoint, destination, options)


def planned_by(plan):
    """Return an exporter that has a plan."""

    def with_plan(checkpoint, destination, options):
        return export(checkpoint, destination, options)

    with_plan.plan = plan
    return with_plan


def planning(*files, **settings):
    """Return an exporter whose plan has these files."""

    def plan(checkpoint, destination, options):
        if options:
            raise OptionError("no options")
        return {"files": files, "nbytes_read": 256, "memory_nbytes": 256} | settings

    return planned_by(plan)


def writes_when_it_plans(checkpoint, destination, options):
    destination.mkdir()
    return {}


def plans_nothing(checkpoint, destination, options):
    return None


def plans_for_every_option(checkpoint, destination, options):
    return planning(NORM).plan(checkpoint, destination, {})


def fails(checkpoint, destination, options):
    raise KeyError("wq")


NORM = {"name": "norm.npy", "nbytes": 256}

EXPORTERS = [
    (planning(NORM | {"nbytes": 1}), "has to say the exact size of each file"),
    (planning(), "plans {} and writes {'norm.npy': 256}"),
    (planning("norm.npy"), "plans no list of files"),
    (planning(NORM, memory_nbytes=None), "plans no memory_nbytes"),
    (planned_by(writes_when_it_plans), "writes when it plans"),
    (planned_by(plans_for_every_option), "takes an option that it does not have"),
    (planned_by(plans_nothing), "plans NoneType; expected a mapping"),
    (planned_by(fails), "fails on a checkpoint of the format meta: KeyError"),
    (takes_every_option, "takes an option that it does not have"),
    (refuses_progress, "fails on a checkpoint of the format meta: OptionError"),
    (chokes_on_options, "fails on an option that it does not have: KeyError"),
    (makes_nothing, "wrote nothing at its destination"),
    (writes_beside, "leaves log.txt next to the destination"),
    (writes_into_the_source, "changes the checkpoint that it reads"),
    (writes_random_numbers, "writes other bytes the second time"),
    (reports_nothing, "returned NoneType; expected a mapping"),
    (reports_paths, "returned a report that is no JSON"),
    (prints, "prints 'exporting"),
]


@pytest.mark.parametrize(("exporter", "sentence"), EXPORTERS, ids=[it for _, it in EXPORTERS])
def test_an_exporter_that_breaks_a_rule_is_named(exporter, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_exporter(exporter)


def test_an_exporter_that_keeps_the_rules_is_good():
    check_exporter(export)
    check_exporter(planning(NORM))


def command(function, *decorations, **settings):
    for decoration in decorations:
        function = decoration(function)
    return click.command("tool", **settings)(function)


def fails():
    """Fail."""
    raise KeyError("fuse")


def undocumented():
    pass


def works(**options):
    """Work."""


class BrokenHelp(click.Command):
    """A command whose help cannot be made."""

    def format_help_text(self, *_):
        raise ZeroDivisionError


COMMANDS = [
    (works, "is not a Click command"),
    (command(undocumented), "the command tool has no help: write a docstring"),
    (command(works, click.option("--x")), "the option --x of tool has no help"),
    (command(fails), "ends with status 1: KeyError: 'fuse'"),
    (command(works, cls=BrokenHelp), "`tool --help` fails: ZeroDivisionError"),
    (
        command(works, context_settings={"ignore_unknown_options": True, "allow_extra_args": True}),
        "takes options that it does not have",
    ),
    (click.Group("tools", [command(undocumented)], help="Some."), "tools tool has no help"),
]


@pytest.mark.parametrize(("broken", "sentence"), COMMANDS, ids=[it for _, it in COMMANDS])
def test_a_command_that_breaks_a_rule_is_named(broken, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_command(broken)


def test_a_command_that_keeps_the_rules_is_good():
    check_command(command(works, click.option("--x", help="A number.")), "--x", "1")


def opens(source):
    """Open."""
    llamakit.open_checkpoint(source)


def leaves_a_file(source):
    """Open."""
    llamakit.open_checkpoint(source)
    (Path(source) / "read.log").touch()


def opens_nothing(source):
    """Ignore."""


def reads_by_hand(source):
    """Read."""
    (Path(source) / "params.json").read_bytes()


TOOLS = [
    (leaves_a_file, "changes a checkpoint that is there"),
    (opens_nothing, "ends well on a folder that holds no checkpoint"),
    (reads_by_hand, "fails on a folder that holds no checkpoint: FileNotFoundError"),
]


@pytest.mark.parametrize(("function", "sentence"), TOOLS, ids=[it for _, it in TOOLS])
def test_a_checkpoint_tool_that_breaks_a_rule_is_named(function, sentence, llamakit_tiny):
    tool = command(function, click.argument("source"))

    with pytest.raises(AssertionError, match=sentence):
        check_checkpoint_tool(tool, llamakit_tiny())


def test_a_checkpoint_tool_that_keeps_the_rules_is_good(llamakit_tiny):
    check_checkpoint_tool(command(opens, click.argument("source")), llamakit_tiny())
