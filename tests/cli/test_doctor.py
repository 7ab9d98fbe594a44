"""What ``llamakit doctor`` says and remembers, and ``--quantize`` on the command line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]

BRIEFLY = """
from runpy import run_module
from llamakit.runtime.kernels import calibration
calibration.SHAPE, calibration.SECONDS = (512, 512), 0.01
run_module("llamakit", run_name="__main__")
"""
"""``llamakit``, which measures smaller weights for a shorter time."""


def test_doctor_measures_nothing_and_writes_nothing_unless_asked(
    run_llamakit: Run, tmp_path: Path
) -> None:
    done = run_llamakit("doctor", "--json", env={"XDG_CACHE_HOME": str(tmp_path / "cache")})

    found = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert found["timings"] == []
    assert not found["calibrated"]
    assert set(found["kernels"]) >= {"float32", "bfloat16", "float16", "int8"}
    assert not (tmp_path / "cache").exists()


def test_doctor_remembers_what_it_measured(
    run_llamakit: Run, run_script: Run, tmp_path: Path
) -> None:
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    measured = run_script("-c", BRIEFLY, "doctor", "--calibrate", "--json", env=cache)

    later = run_llamakit("doctor", env=cache)

    assert measured.returncode == 0, measured.stderr
    timings = json.loads(measured.stdout)["timings"]
    assert {it["rows"] for it in timings} == {1, 8, 128}
    assert all(it["seconds"] > 0 for it in timings)
    for it in timings:
        assert it["kernel"] in later.stdout
        assert f"measuring {it['kernel']} (" in measured.stderr
    assert json.loads((tmp_path / "cache/llamakit/kernels.json").read_text())["timings"] == timings


@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_the_demo_model_answers_in_few_bits_on_one_rank_and_on_two(
    run_llamakit: Run, quantize: str
) -> None:
    words = ["generate", "Once upon a time", "--temperature", "0", "--max-new-tokens", "6"]
    exact = run_llamakit(*words)

    for ranks in ("1", "2"):
        rounded = run_llamakit(*words, "--quantize", quantize, "--model-parallel-size", ranks)

        assert rounded.returncode == 0, rounded.stderr
        assert rounded.stdout == exact.stdout


def test_an_unknown_quantisation_is_a_usage_error(run_llamakit: Run) -> None:
    done = run_llamakit("generate", "--quantize", "int3", "hello")

    assert done.returncode == 2
    assert "'int8', 'int4'" in done.stderr
