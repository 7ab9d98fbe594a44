"""Long prompts: seconds, memory and the speed of decoding, next to transformers' sdpa.

    python benchmarks/long_context.py                       # 32,768 tokens, 2 layers
    python benchmarks/long_context.py --tokens 131072 --layers 1
    python benchmarks/long_context.py --only llamakit,llamakit-int8

The weights are random, of few layers with heads as Llama 3's (128 wide, four queries to a key and
value), in bfloat16; transformers reads the export of the same checkpoint. Each runs in a process
of its own. Memory is the peak of the process from before the prompt on, weights apart.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import platformdirs
from decoding.random_model import SHAPES, make_checkpoint, make_huggingface, tokens

CHUNK = 512
"""As the scheduler's: how many tokens of a prompt llamakit computes at once."""

VOCABULARY = 512

ENGINES = ("llamakit", "llamakit-int8", "transformers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--new", type=int, default=16)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", default=",".join(ENGINES))
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        job = json.loads(arguments.job)
        print(json.dumps(RUNS[job["engine"].partition("-")[0]](job)))
        return
    folder, huggingface = make_model(arguments.layers, arguments.dim)
    print(f"{arguments.tokens} tokens, {arguments.layers} layers of width {arguments.dim}")
    print(f"{'':15}{'prefill s':>10}{'MB':>8}{'tokens/s':>10}")
    for engine in arguments.only.split(","):
        job = {
            "engine": engine,
            "model": str(folder),
            "huggingface": str(huggingface),
            "tokens": arguments.tokens,
            "new": arguments.new,
            "threads": arguments.threads,
        }
        # GNU OpenMP's threads sleep when they wait, as llamakit's commands have them.
        environment = {**os.environ, "GOMP_SPINCOUNT": "1000"}
        command = [sys.executable, __file__, "--job", json.dumps(job)]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=False)
        if done.returncode:
            print(f"{engine:15}failed: {done.returncode}", flush=True)
            continue
        found = json.loads(done.stdout)
        rate = 1 / statistics.median(found["steps"])
        print(
            f"{engine:15}{found['prefill']:10.1f}{found['nbytes'] / 1e6:8.0f}{rate:10.1f}",
            flush=True,
        )


def make_model(layers: int, dim: int) -> tuple[Path, Path]:
    """Write a random checkpoint and its export, unless they are there."""
    name = f"long-{layers}-{dim}"
    SHAPES[name] = {"dim": dim, "n_layers": layers, "n_heads": dim // 128, "n_kv_heads": dim // 512}
    SHAPES[name] |= {"vocab_size": VOCABULARY, "rope_theta": 500000.0}
    base = Path(platformdirs.user_cache_dir("llamakit")) / "benchmark"
    folder = make_checkpoint(base / name, name)
    return folder, make_huggingface(folder, base / f"{name}-hf")


def run_llamakit(job: dict) -> dict:
    """Compute the prompt in the scheduler's chunks, and decode."""
    import torch

    from llamakit.llama.loading import LoadSpec, load_slice
    from llamakit.runtime.model import Batch
    from llamakit.runtime.rank_group import Group

    torch.set_num_threads(job["threads"])
    kv_cache = job["engine"].partition("-")[2] or None
    model = load_slice(LoadSpec(job["model"], "bfloat16", "cpu", kv_cache=kv_cache), Group()).model
    prompt = tokens(job["tokens"], VOCABULARY)
    model(Batch((tuple(prompt[:CHUNK]),), (0,)), model.new_cache(1, CHUNK))  # warm
    cache = model.new_cache(1, len(prompt) + job["new"])
    before, began = peak(), time.perf_counter()
    for start in range(0, len(prompt), CHUNK):
        logits = model(Batch((tuple(prompt[start : start + CHUNK]),), (start,)), cache)
    token, prefill = int(logits.argmax()), time.perf_counter() - began
    steps = []
    for number in range(job["new"]):
        began = time.perf_counter()
        token = int(model(Batch(((token,),), (len(prompt) + number,)), cache).argmax())
        steps.append(time.perf_counter() - began)
    return {"prefill": prefill, "steps": steps, "nbytes": peak() - before}


def run_transformers(job: dict) -> dict:
    """Compute the prompt in one call, as its ``generate`` does, and decode."""
    import torch
    from transformers import AutoModelForCausalLM, DynamicCache
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(job["threads"])
    torch.set_grad_enabled(False)
    model = AutoModelForCausalLM.from_pretrained(
        job["huggingface"], dtype=torch.bfloat16, attn_implementation="sdpa"
    )
    prompt = torch.tensor([tokens(job["tokens"], VOCABULARY)])
    model(prompt[:, :CHUNK], logits_to_keep=1)  # warm
    cache = DynamicCache(config=model.config)
    before, began = peak(), time.perf_counter()
    out = model(prompt, past_key_values=cache, use_cache=True, logits_to_keep=1)
    ids, prefill = out.logits[:, -1].argmax(-1), time.perf_counter() - began
    steps = []
    for _ in range(job["new"]):
        began = time.perf_counter()
        out = model(ids[:, None], past_key_values=cache, use_cache=True)
        ids = out.logits[:, -1].argmax(-1)
        steps.append(time.perf_counter() - began)
    return {"prefill": prefill, "steps": steps, "nbytes": peak() - before}


def peak() -> int:
    """Return the largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


RUNS = {"llamakit": run_llamakit, "transformers": run_transformers}


if __name__ == "__main__":
    main()
