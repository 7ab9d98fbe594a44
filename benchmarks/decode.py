"""How fast tokens come: llamakit, transformers, llama.cpp and vLLM on the same random weights.

    python benchmarks/decode.py                        # all, some 20 minutes
    python benchmarks/decode.py --shape tiny --rounds 1 --new 4
    python benchmarks/decode.py --shape 3.2-1b --only b1    # 1.24B, tied embeddings
    python benchmarks/decode.py --only b1,int8-b1 --llama-cpp /path/to/python --vllm PYTHON

Every configuration runs in a process of its own, and the rounds alternate between them, so that
what else the machine does hits all. A rate is the median of the steps of all rounds, and next to it
the quickest tenth: where the two are far apart, the machine had other work. Then ``--threads 1``
and the processor's time a step still tell something. llama.cpp is
measured where ``--llama-cpp`` names an interpreter that has llama-cpp-python and gguf;
``--build-llama-cpp`` makes one in the folder of the benchmark (it compiles for some minutes).
vLLM is measured where ``--vllm`` names an interpreter that has its CPU build
(``benchmarks/engines.py`` says how to make one); its first start compiles for minutes.
The last table has llamakit's ratio to the best peer, and the one that is wanted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path

import platformdirs
from decoding.decode_report import (
    PARTS,
    Configuration,
    Results,
    final_rows,
    print_final,
    report,
    summary,
    write_json,
)
from decoding.random_model import (
    SHAPES,
    make_checkpoint,
    make_gguf,
    make_huggingface,
    tokens,
)

PROMPT = 128
PROGRAMS = Path(__file__).parent / "decoding"


QUANTIZE = {"bf16": None, "int8": "int8", "int4": "int4"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="1.1b")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--new", type=int, default=32, help="tokens a row")
    parser.add_argument("--only", default=",".join(PARTS), help="parts: " + ",".join(PARTS))
    parser.add_argument("--engines", help="only these, such as llamakit,vllm; all if not given")
    parser.add_argument("--folder", type=Path, default=platformdirs.user_cache_path("llamakit"))
    parser.add_argument("--no-check", action="store_true", help="no comparison with float32's ids")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--llama-cpp", metavar="PYTHON", help="has llama-cpp-python and gguf")
    parser.add_argument("--build-llama-cpp", action="store_true")
    # Where a virtual machine names AMX and does not give it, repacking ends in SIGILL.
    parser.add_argument("--no-repack", action="store_true", help="llama.cpp's weights as stored")
    parser.add_argument("--vllm", metavar="PYTHON", help="has vLLM's CPU build")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    arguments = parser.parse_args()
    folder = arguments.folder / "benchmark"
    if arguments.build_llama_cpp:
        arguments.llama_cpp = build_llama_cpp(folder / "llama-cpp")
    wanted = [Configuration(*it) for part in arguments.only.split(",") for it in PARTS[part]]
    peers = {"llama.cpp": arguments.llama_cpp, "vllm": arguments.vllm}
    for engine in [engine for engine, python in peers.items() if not python]:
        print(f"{engine} is left out: name an interpreter with --{engine.replace('.', '-')}")
        wanted = [it for it in wanted if it.engine != engine]
    if arguments.engines:
        wanted = [it for it in wanted if it.engine in arguments.engines.split(",")]
    bench = Bench(folder, arguments)
    results: Results = {it: [] for it in wanted}
    for number in range(arguments.rounds):
        order = wanted if number % 2 == 0 else wanted[::-1]
        for configuration in order:
            try:
                run = bench.run(configuration)
            except subprocess.CalledProcessError as error:  # the others are not to be lost
                print(f"  {configuration.name}: status {error.returncode}", flush=True)
                continue
            results[configuration].append(run)
            print(f"  {configuration.name}: {summary(run)}", flush=True)
        if arguments.json:
            write_json(arguments.json, arguments.shape, results)
    report(results)
    if not arguments.no_check:
        bench.check([it for it in wanted if results[it]])
    print_final(final_rows(results))
    sys.exit(0 if all(results.values()) else 1)


class Bench:
    """The files that the engines read, made when they are first wanted, and the jobs."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.folder = folder
        self.model = make_checkpoint(folder / arguments.shape, arguments.shape)
        self.vocabulary = SHAPES[arguments.shape]["vocab_size"]

    def run(self, configuration: Configuration, **changes: object) -> dict:
        """Run one configuration in a process of its own; return what it measured."""
        job = self.job(configuration) | changes
        if configuration.first_only:
            drop_from_cache(self.model, Path(job.get("huggingface", self.model)))
        program = f"run_{configuration.engine.replace('.', '_')}.py"
        peers = {"llama.cpp": self.arguments.llama_cpp, "vllm": self.arguments.vllm}
        python = peers.get(configuration.engine, sys.executable)
        started = time.time()
        done = subprocess.run(
            [python, str(PROGRAMS / program), json.dumps(job)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        result: dict = json.loads(done.stdout.splitlines()[-1])
        return result | {"cold": result["first"] - started}

    def job(self, configuration: Configuration) -> dict:
        """Say what a program is to do, with the files it needs made."""
        shape = self.arguments.shape
        prompts = [tokens(PROMPT, self.vocabulary, seed) for seed in range(configuration.rows)]
        job = {
            "model": str(self.model),
            "prompts": prompts,
            "new": self.arguments.new,
            "prefills": 2,
            "threads": self.arguments.threads,
            "dtype": "bfloat16",
            "device": "cpu",
            "quantize": QUANTIZE.get(configuration.form),
            "only_first": configuration.first_only,
            "forced": None,
        }
        if configuration.engine in ("transformers", "vllm"):
            job["huggingface"] = str(make_huggingface(self.model, self.folder / f"{shape}-hf"))
        if configuration.engine == "llama.cpp":
            job["repack"] = not self.arguments.no_repack
            path = self.folder / f"{shape}-{configuration.form}.gguf"
            python = self.arguments.llama_cpp
            job["gguf"] = str(make_gguf(self.model, path, configuration.form, python))
        return job

    def check(self, wanted: list[Configuration]) -> None:
        """Compare llamakit's greedy tokens, step by step, with those that float32 chose."""
        ours = [it for it in wanted if it.engine == "llamakit" and not it.first_only]
        if not ours:
            return
        print("\ntokens that differ from float32's greedy ones, each step from float32's own:")
        exact = self.run(Configuration("llamakit", "bf16", 1), dtype="float32")
        right, margins = exact["tokens"][0], exact["margins"][0]
        for configuration in ours:
            if configuration.rows > 1:
                continue
            found = self.run(configuration, forced=[right])["tokens"][0]
            lost = [
                margin
                for own, theirs, margin in zip(found, right, margins, strict=True)
                if own != theirs
            ]
            worst = f", where float32's margin was up to {max(lost):.4f}" if lost else ""
            print(f"  {configuration.name}: {len(lost)} of {len(right)}{worst}")
        print(f"  float32's margins: median {statistics.median(margins):.4f} of a logit")


def build_llama_cpp(folder: Path) -> str:
    """Make an environment with llama-cpp-python and gguf; return its interpreter."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        packages = ["llama-cpp-python", "gguf"]
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
    return str(python)


def drop_from_cache(*folders: Path) -> None:
    """Have the system forget the files of a model, so that they are read from the disk."""
    for folder in folders:
        for path in folder.iterdir():
            if path.is_file():
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
