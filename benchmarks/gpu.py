"""How fast tokens come on a GPU: llamakit beside transformers and beside the memory's bandwidth.

    python benchmarks/gpu.py --json gpu.jsonl   # all of it, in ten minutes
    python benchmarks/gpu.py --shapes 8b --forms int4 --rows 1 --no-tests
    python benchmarks/gpu.py --device cpu --shapes tiny --backend aot_eager    # the code paths only

Measures the bandwidth of copies on the device, checks the greedy tokens of a small model against
float32's, and times decoding steps of the 7B and 8B shapes: bfloat16 beside transformers, plain
and compiled, 8 and 4 bits, 1 and 32 rows. Between them all tests marked ``cuda`` run. Random
weights are made on the device, so nothing is read from a disk. ``tuned`` is compiled with
Inductor's coordinate descent, as gpt-fast does it.

Each model is a process of its own with a time limit: one that fails loses nothing of the others.
``--jobs`` of them prepare (they compile for most of the time) side by side; while one measures,
the others are stopped. What matters most is started first; what would be started after
``--seconds`` is named and left out, and what runs longer is ended. Every figure is appended to
``--json`` as it comes.

On a machine without llamakit: ``pip install --no-deps --no-build-isolation -e .`` beside PyTorch
with CUDA, click, jinja2, numpy, pluggy, sentencepiece, tiktoken, transformers and pytest.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from decoding.run_gpu import SHAPES

ROOT = Path(__file__).parents[1]
PROGRAM = Path(__file__).parent / "decoding" / "run_gpu.py"
WANTED = 0.85
"""Of the bandwidth of copies, in bfloat16 with one row."""
TESTS = (
    "-m",
    "pytest",
    "-q",
    "-p",
    "no:cacheprovider",
    "--show-capture=no",
    "-W",
    "default",
    "-m",
    "cuda",
    "tests/runtime",
)
Figure = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What one process measures."""

    engine: str
    """``copy``, ``check``, ``llamakit``, ``transformers`` or ``tests``."""
    shape: str = ""
    form: str = ""
    modes: tuple[tuple[int, str], ...] = ()
    """Rows, and ``plain``, ``compiled`` or ``tuned``."""
    seconds: float = 150
    """After which it is ended; a CPU gets ten times as long."""

    @property
    def name(self) -> str:
        """As the table shows it."""
        return " ".join(filter(None, (self.shape, self.engine, self.form)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", default="8b,7b", help="of " + ", ".join(SHAPES))
    parser.add_argument("--forms", default="bf16,int8,int4")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", default="1,32")
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--backend", default="inductor", help="torch.compile's")
    parser.add_argument("--seconds", type=float, default=540, help="after which all is ended")
    parser.add_argument("--jobs", type=int, help="processes at a time (default: 3 on a GPU)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append each figure, a line each")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--no-tests", action="store_true")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here: nothing is measured (--device cpu --shapes tiny runs the code)")
        return 0
    run = Run(arguments, time.monotonic() + arguments.seconds)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, run.stop)
    run.one(Job("copy", seconds=90))
    print(
        f"\n{'':34}{'rows':>5}{'tokens/s':>10}{'ms/step':>9}{'GB/s':>7}{'of peak':>9}", flush=True
    )
    width = arguments.jobs or (3 if arguments.device == "cuda" else 1)
    with ThreadPoolExecutor(width) as pool:
        for _ in pool.map(run.one, jobs(arguments)):
            pass
    run.report()
    return 1 if run.failed else 0


def jobs(arguments: argparse.Namespace) -> Iterator[Job]:
    """Yield all that is to be measured, the most wanted first."""
    rows = [int(it) for it in arguments.rows.split(",")]
    shapes, forms = arguments.shapes.split(","), arguments.forms.split(",")
    compiled = ("tuned", "compiled") if arguments.backend == "inductor" else ("compiled",)

    def models(count: int, form: str) -> Iterator[Job]:
        ways = compiled if count == 1 or form == "bf16" else compiled[-1:]
        for shape in shapes:
            yield Job("llamakit", shape, form, tuple((count, it) for it in (*ways, "plain")))
            if form == "bf16" and not arguments.no_peers:
                modes = tuple((count, it) for it in (*compiled, "plain"))
                yield Job("transformers", shape, form, modes)

    yield Job("check")
    for number, count in enumerate(rows):
        for form in forms:
            yield from models(count, form)
        if number == 0 and not arguments.no_tests:
            yield Job("tests", seconds=180)


@dataclass
class Run:
    """The processes that run, one of which measures at a time, and what they found."""

    arguments: argparse.Namespace
    end: float
    figures: list[Figure] = field(default_factory=list)
    failed: bool = False
    _processes: set[int] = field(default_factory=set)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def one(self, job: Job) -> None:
        """Run a job to its end, or to that of its time."""
        left = self.end - time.monotonic()
        if left <= 0:
            self.note(job, {"error": f"left out: {self.arguments.seconds:.0f} seconds were over"})
            return
        seconds = min(job.seconds * (1 if self.arguments.device == "cuda" else 10), left)
        begun = time.monotonic()
        with self._started(job) as process:
            timer = threading.Timer(seconds, self._signal, ({process.pid}, signal.SIGKILL))
            timer.start()
            try:
                self._follow(job, process)
                code = process.wait()
            finally:
                timer.cancel()
        took = time.monotonic() - begun
        if code == -signal.SIGKILL and took >= seconds:
            self.note(job, {"error": f"ended after {took:.0f} seconds"})
        elif code != 0:
            self.note(job, {"error": f"status {code}"})

    @contextlib.contextmanager
    def _started(self, job: Job) -> Iterator[subprocess.Popen[str]]:
        """Start a process in a group of its own; kill what is left of it afterwards."""
        words = [sys.executable, str(PROGRAM), json.dumps(asdict(job) | self._settings())]
        if job.engine == "tests":
            words = [sys.executable, *TESTS]
        threads = max(1, (os.cpu_count() or 1) // (self.arguments.jobs or 3))
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "TORCHINDUCTOR_COMPILE_THREADS": str(threads),
            "LLAMAKIT_CUDA_TESTS": self.arguments.device,
        }
        with self._turn:  # nothing starts while another measures
            process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
                cwd=ROOT,
                start_new_session=True,
            )
            self._processes.add(process.pid)
        try:
            with process:
                yield process
        finally:
            with self._turn:
                self._processes.discard(process.pid)
            self._signal({process.pid}, signal.SIGKILL)

    def _settings(self) -> dict[str, Any]:
        return {
            name: getattr(self.arguments, name) for name in ("device", "backend", "prompt", "new")
        }

    def _follow(self, job: Job, process: subprocess.Popen[str]) -> None:
        """Read what a process writes, and give it its turns."""
        assert process.stdout is not None
        assert process.stdin is not None
        if job.engine == "tests":
            for line in process.stdout:
                print(f"  {line}", end="", flush=True)
                if " passed" in line or " failed" in line or " skipped" in line:
                    self.note(job, {"tests": line.strip("= \n")})
            return
        while line := process.stdout.readline():
            figure = json.loads(line)
            if figure == {"ready": True}:
                with self._alone(process.pid), contextlib.suppress(BrokenPipeError):
                    process.stdin.write("\n")
                    process.stdin.flush()
                    line = process.stdout.readline()
                if not line:
                    return
                figure = json.loads(line)
            self.note(job, figure)

    @contextlib.contextmanager
    def _alone(self, pid: int) -> Iterator[None]:
        """Stop all other processes until the block ends."""
        with self._turn:
            others = self._processes - {pid}
            self._signal(others, signal.SIGSTOP)
            try:
                yield
            finally:
                self._signal(others, signal.SIGCONT)

    def stop(self, number: int, _: object) -> None:
        """End all processes and this one; what was measured is in the file."""
        self._signal(set(self._processes), signal.SIGKILL)
        os._exit(128 + number)

    @staticmethod
    def _signal(groups: set[int], number: signal.Signals) -> None:
        for group in groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, number)

    def note(self, job: Job, figure: Figure) -> None:
        """Keep a figure, write it down and print it."""
        whole = {"engine": job.engine, "shape": job.shape, "form": job.form} | figure
        self.figures.append(whole)
        if self.arguments.json:
            with self.arguments.json.open("a") as file:
                file.write(json.dumps(whole) + "\n")
        self.failed |= "error" in figure
        print(self._line(job, figure), flush=True)

    def _line(self, job: Job, figure: Figure) -> str:
        name = ", ".join(filter(None, (job.name, figure.get("mode"))))
        if "error" in figure:
            return f"{name:34}{figure.get('rows', ''):>5}  {figure['error']}"
        if "seconds" in figure:
            speed, rows = figure["nbytes"] / figure["seconds"], figure["rows"]
            return (
                f"{name:34}{rows:5}{rows / figure['seconds']:10.1f}{figure['seconds'] * 1000:9.2f}"
                f"{speed / 1e9:7.0f}{speed / self.peak:9.0%}"
                f"   ready in {figure['ready_seconds']:.0f} s"
            )
        if "bytes_per_second" in figure:
            peak = figure["bytes_per_second"] / 1e9
            return f"{figure['device']}, torch {figure['torch']}, copies {peak:.0f} GB/s"
        if "differing" in figure:
            worst = f", where its margin was up to {figure['margin']:.4f}"
            return (
                f"tokens that differ from float32's, {figure['mode']}: {figure['differing']} of "
                f"{figure['of']}{worst if figure['differing'] else ''}"
            )
        return f"{name}: {figure['tests']}"

    @property
    def peak(self) -> float:
        """Bytes a second of copies."""
        found = [it["bytes_per_second"] for it in self.figures if "bytes_per_second" in it]
        return found[0] if found else float("nan")

    def report(self) -> None:
        """Print what issue 17 asks for: our quickest way, and the peer's."""
        print(f"\n{'':20}{'rows':>5}{'llamakit':>10}{'transformers':>14}{'ratio':>7}{'of peak':>9}")
        quickest: dict[tuple[str, str, int, str], Figure] = {}
        for figure in (it for it in self.figures if "seconds" in it):
            key = (figure["shape"], figure["form"], figure["rows"], figure["engine"])
            best = quickest.get(key, figure)
            quickest[key] = min(best, figure, key=lambda it: it["seconds"])
        for (shape, form, rows, engine), ours in quickest.items():
            if engine != "llamakit":
                continue
            peer = quickest.get((shape, "bf16", rows, "transformers"))
            theirs = f"{rows / peer['seconds']:14.1f}" if peer else f"{'':14}"
            ratio = f"{peer['seconds'] / ours['seconds']:7.2f}" if peer else f"{'':7}"
            share = ours["nbytes"] / ours["seconds"] / self.peak
            wanted = f"   {WANTED:.0%} wanted" if (form, rows) == ("bf16", 1) else ""
            speed = rows / ours["seconds"]
            print(
                f"{shape + ' ' + form:20}{rows:5}{speed:10.1f}{theirs}{ratio}{share:9.0%}{wanted}"
            )


if __name__ == "__main__":
    sys.exit(main())
