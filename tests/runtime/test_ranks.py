"""The same answers on any number of ranks, real ones under torchrun or launched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llamakit import open_checkpoint
from llamakit.api import Llama
from llamakit.checkpoint.layout import ROPE_FREQS
from llamakit.checkpoint.shard_plan import slice_for_rank
from llamakit.protocols import Checkpoint

SCRIPT = Path(__file__).parents[1] / "scripts" / "answer.py"

Script = Callable[..., "subprocess.CompletedProcess[str]"]
Run = Callable[..., "list[subprocess.CompletedProcess[str]]"]


@pytest.fixture
def start_ranks(run_script: Script, port: int) -> Run:
    """Start ranks with torchrun's variables, each forked from a process that has torch."""

    def run(ranks: int, script: str, *arguments: str) -> list[subprocess.CompletedProcess[str]]:
        common = {name: str(ranks) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")}
        common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}

        def rank(number: int) -> subprocess.CompletedProcess[str]:
            own = {"RANK": str(number), "LOCAL_RANK": str(number)}
            return run_script(script, *arguments, env=common | own if ranks > 1 else {})

        with ThreadPoolExecutor(ranks) as threads:
            return list(threads.map(rank, range(ranks)))

    return run


def answers(case: str, ranks: int, start: Run, cases: Path, tmp_path: Path) -> list[dict[str, Any]]:
    """Run the script on that many ranks; return what each wrote."""
    expected = json.loads((cases / f"{case}.expected.json").read_text())
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps(expected["prompt_tokens"]))
    out = tmp_path / "answer"
    for done in start(ranks, str(SCRIPT), str(cases / case), str(prompts), str(out)):
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
    return [json.loads((tmp_path / f"answer.{rank}").read_text()) for rank in range(ranks)]


@pytest.mark.parametrize(
    ("case", "ranks"),
    [
        *(("mha-mp8", 1), ("mha-mp8", 2), ("mha-mp8", 4)),
        pytest.param("mha-mp8", 8, marks=pytest.mark.soak),
    ],
)
def test_every_rank_gives_what_the_reference_gave_and_reads_its_slice_only(
    case: str, ranks: int, start_ranks: Run, reference_cases: Path, tmp_path: Path
) -> None:
    results = answers(case, ranks, start_ranks, reference_cases, tmp_path)

    check(results, case, ranks, reference_cases)


def test_under_torchrun_it_is_the_same(
    torchrun: Script, reference_cases: Path, tmp_path: Path
) -> None:
    def start(*words: Any) -> list[subprocess.CompletedProcess[str]]:
        return [torchrun(*words)]

    results = answers("gqa-mp1", 4, start, reference_cases, tmp_path)

    check(results, "gqa-mp1", 4, reference_cases)


def check(results: list[dict[str, Any]], case: str, ranks: int, cases: Path) -> None:
    """Compare what each rank wrote with the reference's, and what it read with its slice."""
    expected = json.loads((cases / f"{case}.expected.json").read_text())
    for result in results:
        assert result["size"] == ranks
        assert result["tokens"] == expected["greedy_batch"]["tokens"]
        assert result["second"] == result["drawn"] == result["tokens"]
        for ours, theirs in zip(
            result["logprobs"], expected["greedy_batch"]["logprobs"], strict=True
        ):
            assert ours == pytest.approx(theirs, abs=1e-4)
        assert result["sampled"] == results[0]["sampled"]
        assert result["streamed"] == results[0]["streamed"]
        assert result["stopped"] == results[0]["streamed"][0]
    nbytes_read = [result["nbytes_read"] for result in results]
    checkpoint = open_checkpoint(cases / case)
    assert nbytes_read == [nbytes_of(checkpoint, rank, ranks) for rank in range(ranks)]
    assert sum(nbytes_read) == nbytes_of(checkpoint, 0, 1) + nbytes_repeated(checkpoint, ranks)


def nbytes_of(checkpoint: Checkpoint, rank: int, ranks: int) -> int:
    """How many bytes of float16 a rank holds."""
    total = 0
    for parameter in checkpoint.parameters.values():
        if parameter.name != ROPE_FREQS:
            where = slice_for_rank(parameter, checkpoint.params, rank, ranks)
            total += parameter.numel // parameter.shape[where.axis] * (where.stop - where.start)
    return total * 2


def nbytes_repeated(checkpoint: Checkpoint, ranks: int) -> int:
    """How many bytes of float16 are read once more: norms by each rank, and key/value heads."""
    heads = checkpoint.params.n_kv_heads
    total = 0
    for parameter in checkpoint.parameters.values():
        if len(parameter.shape) == 1 and parameter.name != ROPE_FREQS:
            total += parameter.numel * (ranks - 1)
        elif parameter.name.endswith(("wk.weight", "wv.weight")):
            total += parameter.numel * (max(1, ranks // heads) - 1)
    return total * 2


def test_launched_ranks_give_what_the_reference_gave(reference_cases: Path) -> None:
    expected = json.loads((reference_cases / "mha-mp8.expected.json").read_text())

    with Llama.build(
        str(reference_cases / "mha-mp8"), max_seq_len=256, model_parallel_size=2, dtype="float32"
    ) as llama:
        tokens, _ = llama.generate(expected["prompt_tokens"], max_gen_len=24, temperature=0)

    assert tokens == expected["greedy_batch"]["tokens"]


def test_launched_ranks_check_drafts_and_keep_what_they_hold(reference_cases: Path) -> None:
    path = str(reference_cases / "mha-mp8")
    prompt = [1, *[300, 301, 302, 303, 304] * 8]
    settings: dict[str, Any] = {"temperature": 0, "max_new_tokens": 12}
    with Llama.build(path, max_seq_len=256, model_parallel_size=1, dtype="float32") as llama:
        expected = [chunk.token for chunk in llama.stream([prompt], **settings)]
        turn = [*prompt, *[token for token in expected if token is not None], 310, 311]
        second = [chunk.token for chunk in llama.stream([turn], **settings)]

    with Llama.build(path, max_seq_len=256, model_parallel_size=2, dtype="float32") as llama:
        found = list(
            llama.stream([prompt], draft=f"draft-model:path={path},confidence=0", **settings)
        )
        found_second = list(llama.stream([turn], draft="prompt-lookup", **settings))
        llama.forget()

    assert [chunk.token for chunk in found] == expected
    assert found[-1].accepted > 5
    assert [chunk.token for chunk in found_second] == second


def test_a_launched_rank_that_dies_ends_the_others_with_one_message(
    run_script: Script, reference_cases: Path, tmp_path: Path
) -> None:
    script = tmp_path / "die.py"
    script.write_text(
        "import os, signal, sys\n"
        "from llamakit import Llama, LlamakitError\n"
        "from llamakit.runtime import rank_setup\n"
        f"llama = Llama.build({str(reference_cases / 'mha-mp8')!r}, max_seq_len=128,\n"
        "    model_parallel_size=2, dtype='float32')\n"
        "worker = rank_setup._current._workers._processes[0].pid\n"
        "chunks = llama.stream_text('a', temperature=0, max_new_tokens=100)\n"
        "next(chunks)\n"
        "os.kill(worker, signal.SIGKILL)\n"
        "try:\n"
        "    list(chunks)\n"
        "except LlamakitError as error:\n"
        "    print(error)\n"
    )

    done = run_script(str(script))

    assert done.returncode == 0, done.stderr
    assert "rank 1 of 2 ended (signal SIGKILL)" in done.stdout


def test_a_rank_that_waits_for_one_that_died_ends_with_its_message(
    run_script: Script, reference_cases: Path, tmp_path: Path
) -> None:
    # as a kernel of nccl does, which never hears that its peer is gone
    script = tmp_path / "wait.py"
    script.write_text(
        "import os, signal, time\n"
        "from llamakit import Llama\n"
        "from llamakit.runtime import rank_setup\n"
        f"llama = Llama.build({str(reference_cases / 'mha-mp8')!r}, max_seq_len=128,\n"
        "    model_parallel_size=2, dtype='float32')\n"
        "group = rank_setup._current\n"
        "with group.call(0, 'open_cache', (1, 8)):\n"
        "    os.kill(group._workers._processes[0].pid, signal.SIGKILL)\n"
        "    time.sleep(1000)\n"
    )

    done = run_script(str(script))

    assert done.returncode == 1
    assert done.stderr == "llamakit: rank 1 of 2 ended (signal SIGKILL)\n"


@pytest.mark.parametrize(
    ("ranks", "victim"),
    [(2, 1), *(pytest.param(4, victim, marks=pytest.mark.soak) for victim in (1, 2))],
)
def test_a_rank_that_dies_under_torchrun_ends_all_with_one_message(
    ranks: int, victim: int, reference_cases: Path, tmp_path: Path
) -> None:
    mark = f"mark-{os.getpid()}-{victim}"
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--standalone"]
            + ["--nproc_per_node", str(ranks), "-m", "llamakit", "generate", "hello"]
            + ["-m", str(reference_cases / "mha-mp8"), "--max-seq-len", "200000"],
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "OMP_NUM_THREADS": "1", "LLAMAKIT_TEST_MARK": mark},
        )
    assert process.stdout is not None
    assert process.stdout.read(5)  # it is writing
    running = processes_with(mark)

    os.kill(running[str(victim)], signal.SIGKILL)

    try:
        assert process.wait(180) != 0
    finally:
        process.kill()
        process.stdout.close()
    said = (tmp_path / "errors").read_text()
    ours = [line for line in said.splitlines() if line.startswith("llamakit: error")]
    assert len(ours) <= 1, said
    assert all("lost another rank" in line for line in ours)
    assert f"rank      : {victim}" in said  # torchrun's own report
    assert "Signal 9 (SIGKILL)" in said
    deadline = time.monotonic() + 180
    while processes_with(mark):
        assert time.monotonic() < deadline, "a rank outlives the others"
        time.sleep(0.1)


def processes_with(mark: str) -> dict[str, int]:
    """Return the processes that have a mark in their environment, by rank."""
    found = {}
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            words = environment.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has just ended
            continue
        if f"LLAMAKIT_TEST_MARK={mark}" in words:
            pairs = dict(word.partition("=")[::2] for word in words)
            found[pairs.get("RANK", "launcher")] = int(environment.parent.name)
    return found


def test_workers_end_when_rank_0_is_killed(reference_cases: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "llamakit", "chat", "-m", str(reference_cases / "mha-mp8")]
        + ["--max-new-tokens", "2", "--model-parallel-size", "2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"hello\n")
    process.stdin.flush()
    assert process.stdout.readline()  # an answer: both ranks are at work
    workers = _children(process.pid)

    process.send_signal(signal.SIGKILL)
    process.wait()

    process.stdin.close()
    process.stdout.close()
    assert workers
    deadline = time.monotonic() + 180
    while any(Path(f"/proc/{pid}/cmdline").exists() and _alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "a worker outlives rank 0"
        time.sleep(0.1)


def _children(parent: int) -> list[int]:
    tasks = Path(f"/proc/{parent}/task")
    found = []
    for task in tasks.iterdir():
        found += [int(pid) for pid in (task / "children").read_text().split()]
    return found


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
