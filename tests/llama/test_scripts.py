"""Scripts that use the reference's API run alone and under torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llamakit import demo

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT.parent / "shared" / "tutorial"
SCRIPTS = [
    *sorted((ROOT / "examples").glob("*.py")),
    *(TUTORIAL / f"{name}_completion.py" for name in ("text", "chat", "own")),
    TUTORIAL / "own_chat.py",
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_script_of_the_reference_api_runs(
    script: Path, ranks: int, isolated: dict[str, str], tmp_path: Path
) -> None:
    if not script.exists():
        pytest.skip("the tutorial's scripts are not part of this repository")
    # a file for each rank: in one pipe their lines would be interleaved
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
    launcher += ["--redirects", "1", "--log-dir", str(tmp_path / "logs")]

    done = subprocess.run(
        [sys.executable, *(launcher if ranks > 1 else []), str(script)]
        + ["--ckpt_dir", str(demo.path())]
        + ["--tokenizer_path", str(demo.path().parent / "tokenizer.model")]
        + ["--max_seq_len", "512", "--max_batch_size", "4", "--max_gen_len", "40"],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=180,
        env={**isolated, "OMP_NUM_THREADS": str((os.cpu_count() or 1) // ranks or 1)},
    )

    assert done.returncode == 0, done.stderr
    printed = [file.read_text("utf-8") for file in (tmp_path / "logs").glob("**/stdout.log")]
    printed = printed if ranks > 1 else [done.stdout]
    assert len(printed) == ranks
    (answer,) = [text for text in printed if text]  # rank 0 alone prints, as with the reference
    assert any(line.startswith("> ") for line in answer.splitlines())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["chat", "text"])
def test_a_script_of_the_reference_api_runs_with_a_llama_3(
    name: str, isolated: dict[str, str]
) -> None:
    script = ROOT / "examples" / ("converse.py" if name == "chat" else "complete.py")
    cases = ROOT / "tests" / "data" / "reference-cases-llama3"

    done = subprocess.run(
        [sys.executable, str(script), "--ckpt_dir", str(cases / "llama3-gqa-mp1")]
        + ["--tokenizer_path", str(cases / "tokenizer.model")]
        + ["--max_seq_len", "4096", "--max_batch_size", "4", "--max_gen_len", "5"],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=180,
        env=isolated,
    )

    assert done.returncode == 0, done.stderr
    assert any(line.startswith("> ") for line in done.stdout.splitlines())
