"""Scripts that use the reference's API run alone and under torchrun."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from llamakit import demo

Run = Callable[..., "subprocess.CompletedProcess[str]"]

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
    script: Path, ranks: int, run_script: Run, torchrun: Run, tmp_path: Path
) -> None:
    if not script.exists():
        pytest.skip("the tutorial's scripts are not part of this repository")
    words = [str(script), "--ckpt_dir", str(demo.path())]
    words += ["--tokenizer_path", str(demo.path().parent / "tokenizer.model")]
    words += ["--max_seq_len", "512", "--max_batch_size", "4", "--max_gen_len", "12"]
    # a file for each rank: in one pipe their lines would be interleaved
    files = ["--redirects", "1", "--log-dir", str(tmp_path / "logs")]

    done = torchrun(ranks, *files, *words) if ranks > 1 else run_script(*words)

    assert done.returncode == 0, done.stderr
    printed = [file.read_text("utf-8") for file in (tmp_path / "logs").glob("**/stdout.log")]
    printed = printed if ranks > 1 else [done.stdout]
    assert len(printed) == ranks
    (answer,) = [text for text in printed if text]  # rank 0 alone prints, as with the reference
    assert any(line.startswith("> ") for line in answer.splitlines())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["chat", "text"])
def test_a_script_of_the_reference_api_runs_with_a_llama_3(name: str, run_script: Run) -> None:
    script = ROOT / "examples" / ("converse.py" if name == "chat" else "complete.py")
    cases = ROOT / "tests" / "data" / "reference-cases-llama3"

    done = run_script(
        *(str(script), "--ckpt_dir", str(cases / "llama3-gqa-mp1")),
        *("--tokenizer_path", str(cases / "tokenizer.model")),
        *("--max_seq_len", "4096", "--max_batch_size", "4", "--max_gen_len", "5"),
    )

    assert done.returncode == 0, done.stderr
    assert any(line.startswith("> ") for line in done.stdout.splitlines())
