"""The benchmarks that need other hardware or much time still run, on a tiny shape."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
Run = Callable[..., str]


@pytest.fixture
def run(run_script: Callable[..., Any], forked_python: Path) -> Run:
    """Run a benchmark; it and the programs that it starts have torch already."""

    def run_benchmark(program: str, *arguments: str) -> str:
        words = [str(BENCHMARKS / program), *arguments]
        done = run_script(*words, env={"PYTHON_EXEC": str(forked_python)})
        assert done.returncode == 0, done.stderr
        out: str = done.stdout
        return out

    return run_benchmark


@pytest.mark.soak
def test_the_gpu_benchmark_runs_its_code_paths_on_a_cpu(run: Run) -> None:
    out = run(
        *("gpu.py", "--device", "cpu", "--shapes", "tiny", "--backend", "aot_eager"),
        *("--rows", "2", "--new", "3", "--prompt", "16"),
    )
    late = run(
        *("gpu.py", "--device", "cpu", "--shapes", "tiny", "--backend", "aot_eager"),
        *("--rows", "2", "--seconds", "0", "--no-peers", "--prompt", "16"),
    )

    lines = [line for line in out.splitlines() if line.endswith("%")]
    assert [line[:38].strip() for line in lines] == [
        "tiny llamakit bf16, compiled",
        "tiny llamakit bf16",
        "tiny transformers bf16, compiled",
        "tiny transformers bf16",
        "tiny llamakit int8, compiled",
        "tiny llamakit int8",
        "tiny llamakit int4, compiled",
        "tiny llamakit int4",
    ]
    assert out.count("tokens that differ from float32's") == 2
    assert late.count("left out: 0 seconds were over") == 6


@pytest.mark.soak
def test_the_benchmark_of_dcp_writes_and_reads_what_torchs_converters_do(
    run: Run, tmp_path: Path
) -> None:
    out = run("dcp.py", "--shape", "tiny", "--rounds", "1", "--folder", str(tmp_path))

    assert "to: the same values" in out
    assert "from: the same values" in out


@pytest.mark.soak
def test_the_decoding_benchmark_checks_its_tokens_against_transformers(
    run: Run, tmp_path: Path
) -> None:
    out = run(
        *("decode.py", "--shape", "tiny", "--rounds", "1", "--new", "3", "--only", "b1,int8-b1"),
        *("--folder", str(tmp_path), "--threads", "1"),
    )

    assert "llama.cpp is left out" in out
    assert "transformers bf16, batch 1" in out
    assert "llamakit int8, batch 1: " in out.split("tokens that differ from float32's")[1]


def test_the_benchmark_of_kernels_compares_them_with_pytorchs_own_linear(run: Run) -> None:
    out = run(
        *("kernels.py", "--outputs", "128", "--inputs", "128", "--rows", "1,3", "--seconds", "0.1")
    )

    tables = [part.splitlines() for part in out.strip().split("\n\n")]
    assert [table[0].split()[0] for table in tables] == ["1", "3"]
    for table in tables:
        assert [line.split()[-1] for line in table if line.startswith("plain")] == ["1.00"]
        assert {"int4", "plain"} <= {line.split()[0] for line in table[1:]}
