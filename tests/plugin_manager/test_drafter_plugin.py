"""A third-party drafter: called, counted, and named when it fails."""

from __future__ import annotations

import json

from lazy_torch import needs_torch

COMMON = ("generate", "Once upon a time", "--temperature", "0", "--max-new-tokens", "12", "--json")


@needs_torch
def test_a_third_party_plugins_drafter_changes_no_answer(run_llamakit, plugins):
    env = plugins("drafter")

    plain = run_llamakit(*COMMON)
    drafted = run_llamakit(*COMMON, "--draft", "again:times=2", env=env)

    assert drafted.returncode == 0, drafted.stderr
    expected, found = json.loads(plain.stdout), json.loads(drafted.stdout)
    assert found["tokens"] == expected["tokens"]
    assert found["drafted"] == 3 + 9  # one id a step when the first three were wrong
    assert found["accepted"] == 0
    assert "0 of 12 drafted tokens were accepted (0%)" in drafted.stderr
    shown = run_llamakit("generate", "--help", env=env).stdout
    assert "again (from llamakit-again)" in " ".join(shown.split())


@needs_torch
def test_a_drafter_that_fails_is_named(run_llamakit, plugins):
    done = run_llamakit(*COMMON, "--draft", "again:times=0", env=plugins("drafter"))

    assert done.returncode == 1
    assert "the drafter again of the plugin 'again' (llamakit-again 0.1) failed" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_drafter_is_refused_before_anything_is_loaded(run_llamakit):
    done = run_llamakit(*COMMON, "--draft", "promt-lookup")

    assert done.returncode == 2
    assert "did you mean 'prompt-lookup'" in done.stderr
    assert "demo model" not in done.stderr
