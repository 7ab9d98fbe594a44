"""``llamakit-x86``, installed, from the shell."""

from __future__ import annotations

import json

import pytest
from plugin_packages import good


@pytest.mark.soak
def test_doctor_measures_it_and_a_model_answers_with_it(run, tmp_path):
    words = ("generate", "--quantize", "int4", "--max-new-tokens", "8", "--temperature", "0")
    before = good(run(*words, "Once upon a time"))

    machine = json.loads(good(run("doctor", "--calibrate", "--json")))

    lacks = machine["unavailable"]
    measured = {timing["kernel"] for timing in machine["timings"]}
    assert {"x86-bf16", "x86-int8", "x86-int4"} <= measured | set(lacks)
    assert "compile" not in lacks.get("x86-int4", ""), lacks  # there is a compiler here
    assert good(run(*words, "Once upon a time")) == before
