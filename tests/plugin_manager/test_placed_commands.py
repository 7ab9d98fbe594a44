"""A third-party command that is registered by its place is imported when it is run."""

from __future__ import annotations

import pytest


def test_help_lists_it_without_importing_it(run_llamakit, plugins):
    result = run_llamakit("--help", env=plugins("placed_command"))

    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["placed", "Say", "where", "it", "is."] in lines
    assert ["placed-tool", "Do", "nothing."] in lines
    assert "imported" not in result.stderr


@pytest.mark.parametrize(("name", "output"), [("placed", "here\n"), ("placed-tool", "nothing\n")])
def test_it_is_imported_and_run(run_llamakit, plugins, name, output):
    result = run_llamakit(name, env=plugins("placed_command"))

    assert (result.returncode, result.stdout, result.stderr) == (0, output, "imported\n")


def test_a_place_that_holds_nothing_names_its_plugin(run_llamakit, plugins):
    result = run_llamakit("misplaced", env=plugins("placed_command"))

    assert result.returncode == 1
    assert "the command misplaced of the plugin 'placed' (llamakit-placed 0.1) failed" in (
        result.stderr
    )
    assert "has no attribute 'absent'" in result.stderr
