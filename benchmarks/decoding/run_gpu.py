"""Measures one model of random weights on a GPU, and waits for its turn before each figure.

python run_gpu.py JOB    # a JSON object, see Job in gpu.py

Writes a JSON object a line: ``{"ready": true}`` when a figure can be measured, after which it waits
for a line on stdin; then the figure. What cannot be measured (no memory, say) is a line with
``error``, and the next figure follows.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import torch

from llamakit.runtime.attention import Attention
from llamakit.runtime.block import Block, FeedForward, RMSNorm
from llamakit.runtime.compiled_decoder import CompiledDecoder
from llamakit.runtime.kernels.choice import Packer
from llamakit.runtime.kernels.kernel import Kernel
from llamakit.runtime.linear import PlainLayers
from llamakit.runtime.model import Batch, Transformer
from llamakit.runtime.rope import frequencies

SHAPES = {
    "7b": {"dim": 4096, "layers": 32, "heads": 32, "kv_heads": 32, "hidden": 11008},
    "8b": {"dim": 4096, "layers": 32, "heads": 32, "kv_heads": 8, "hidden": 14336}
    | {"vocabulary": 128256},
    "1.1b": {"dim": 2048, "layers": 22, "heads": 32, "kv_heads": 8, "hidden": 5632},
    "tiny": {"dim": 512, "layers": 2, "heads": 8, "kv_heads": 4, "hidden": 1024},
}
VOCABULARY = 32000
WARM = 4
"""Steps before those that count: the first ones compile and record the graph."""
CHECKED = 48
Step = Callable[[list[int], int], torch.Tensor]
"""The last tokens of each row and their position, to logits ``(B, V)``."""


def main(job: dict[str, Any], out: TextIO) -> None:
    device = torch.device(job["device"])
    figures = {"copy": copies, "check": checks}.get(job["engine"], decoding)
    for name, prepare in figures(job, device):
        torch._dynamo.reset()
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            measured = in_turn(prepare(), out)
        except Exception as error:  # noqa: BLE001 - the other figures are not to be lost
            first = (str(error).splitlines() or [""])[0]
            measured = {"error": f"{type(error).__name__}: {first:.200}"}
        print(json.dumps(name | measured), file=out, flush=True)


Measure = Callable[[], dict[str, Any]]


def in_turn(measure: Measure, out: TextIO) -> dict[str, Any]:
    """Measure when no other process does."""
    print(json.dumps({"ready": True}), file=out, flush=True)
    if not sys.stdin.readline():
        raise SystemExit("gpu.py has ended")
    return measure()


Figures = Iterator[tuple[dict[str, Any], Callable[[], Measure]]]
"""What each figure is of, and what prepares its measurement."""


def copies(_: dict[str, Any], device: torch.device) -> Figures:
    """Yield the bandwidth: bytes a second, read and written, of copying a large tensor."""

    def prepare() -> Measure:
        nbytes = 1 << (32 if device.type == "cuda" else 26)
        source = torch.zeros(nbytes, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        return lambda: {
            "bytes_per_second": 2 * nbytes / min(seconds_of(target, source) for _ in range(8)),
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
            "torch": torch.__version__,
        }

    def seconds_of(target: torch.Tensor, source: torch.Tensor) -> float:
        wait(device)
        start = time.perf_counter()
        target.copy_(source)
        wait(device)
        return time.perf_counter() - start

    yield {}, prepare


def checks(job: dict[str, Any], device: torch.device) -> Figures:
    """Yield how many greedy tokens of a small model differ from float32's, from float32's own."""

    def prepare(compiled: bool) -> Measure:
        exact, _ = stepper(random_model("tiny", device, torch.float32), 1, job)
        model = random_model("tiny", device, torch.bfloat16)
        if compiled:
            model.decoder = CompiledDecoder(model, backend=job["backend"])
        step, _ = stepper(model, 1, job)
        return lambda: differing(exact, step, job["prompt"])

    for mode in ("plain", "compiled"):
        yield {"mode": mode}, lambda mode=mode: prepare(mode == "compiled")


def differing(exact: Step, step: Step, prompt: int) -> dict[str, Any]:
    """Count the tokens that differ, and return float32's greatest margin where one does."""
    lost, tokens = [], [1]
    for number in range(CHECKED):
        logits = exact(tokens, prompt + number)
        best = logits.topk(2, -1)
        own = step(tokens, prompt + number).argmax(-1)
        if own.item() != best.indices[0, 0].item():
            lost.append(float(best.values[0, 0] - best.values[0, 1]))
        tokens = best.indices[:, 0].tolist()
    return {"differing": len(lost), "of": CHECKED, "margin": max(lost, default=0.0)}


def decoding(job: dict[str, Any], device: torch.device) -> Figures:
    """Yield the seconds a step of one model, for each number of rows and each way to run it."""
    engine: Engine = (Ours if job["engine"] == "llamakit" else Theirs)(job, device)

    def prepare(rows: int, mode: str) -> Measure:
        torch._inductor.config.coordinate_descent_tuning = mode == "tuned"  # as gpt-fast has it
        started = time.perf_counter()
        step, nbytes = engine.stepper(rows, compiled=mode != "plain")
        tokens = list(range(1, 1 + rows))
        for number in range(WARM):
            tokens = step(tokens, job["prompt"] + number).argmax(-1).tolist()
        ready = time.perf_counter() - started
        return lambda: {"nbytes": nbytes, "ready_seconds": ready} | timed(step, tokens, job)

    for rows, mode in job["modes"]:
        yield {"rows": rows, "mode": mode}, lambda rows=rows, mode=mode: prepare(rows, mode)


def timed(step: Step, tokens: list[int], job: dict[str, Any]) -> dict[str, Any]:
    """Return the seconds a step, the reading of the tokens included: median and quickest tenth."""
    seconds = []
    for number in range(WARM, WARM + job["new"]):
        start = time.perf_counter()
        tokens = step(tokens, job["prompt"] + number).argmax(-1).tolist()  # waits for the device
        seconds.append(time.perf_counter() - start)
    seconds.sort()
    return {"seconds": statistics.median(seconds), "quickest": seconds[len(seconds) // 10]}


def cache_length(job: dict[str, Any]) -> int:
    """Return how many positions a cache has: a multiple of 256, which attention likes."""
    return -(-(job["prompt"] + max(job["new"] + WARM, CHECKED)) // 256) * 256


class Ours:
    """llamakit's model; its weights are made once."""

    def __init__(self, job: dict[str, Any], device: torch.device) -> None:
        quantize = None if job["form"] == "bf16" else job["form"]
        self.job = job
        self.model = random_model(job["shape"], device, torch.bfloat16, quantize)

    def stepper(self, rows: int, *, compiled: bool) -> tuple[Step, int]:
        """Return what computes a step, and how many bytes one reads."""
        backend = self.job["backend"]
        self.model.decoder = CompiledDecoder(self.model, backend=backend) if compiled else None
        return stepper(self.model, rows, self.job)


class Theirs:
    """transformers' model; compiled as its own ``CompileConfig`` does it."""

    def __init__(self, job: dict[str, Any], device: torch.device) -> None:
        from transformers import AutoModelForCausalLM, LlamaConfig

        self.job, self.device = job, device
        size = SHAPES[job["shape"]]
        self.config = LlamaConfig(
            hidden_size=size["dim"],
            intermediate_size=size["hidden"],
            num_hidden_layers=size["layers"],
            num_attention_heads=size["heads"],
            num_key_value_heads=size["kv_heads"],
            vocab_size=size.get("vocabulary", VOCABULARY),
            max_position_embeddings=4096,
        )
        with torch.device(device):
            self.model = AutoModelForCausalLM.from_config(
                self.config, dtype=torch.bfloat16, attn_implementation="sdpa"
            ).eval()

    def stepper(self, rows: int, *, compiled: bool) -> tuple[Step, int]:
        """Return what computes a step, and how many bytes one reads."""
        from transformers import DynamicCache, StaticCache

        prompt, device, backend = self.job["prompt"], self.device, self.job["backend"]
        prompts = torch.arange(1, 1 + prompt, device=device).expand(rows, -1)
        static = compiled and StaticCache(self.config, cache_length(self.job))
        cache = static or DynamicCache(config=self.config)
        with torch.inference_mode():
            self.model(prompts, past_key_values=cache, logits_to_keep=1)
        forward = self.model.forward
        if compiled:
            mode = "reduce-overhead" if backend == "inductor" else None
            forward = torch.compile(forward, mode=mode, backend=backend)

        @torch.inference_mode()
        def step(tokens: list[int], position: int) -> torch.Tensor:
            ids = torch.tensor(tokens, device=device)[:, None]
            where = torch.tensor([[position]], device=device).expand(rows, -1)
            return forward(ids, past_key_values=cache, position_ids=where).logits[:, -1]

        size = SHAPES[self.job["shape"]]
        layers = sum(it.nbytes for it in self.model.model.layers.parameters())
        kept = 2 * 2 * rows * prompt * size["layers"] * size["kv_heads"]
        kept = kept * size["dim"] // size["heads"]
        return step, layers + self.model.lm_head.weight.nbytes + kept


Engine = Ours | Theirs


def random_model(
    shape: str, device: torch.device, dtype: torch.dtype, quantize: str | None = None
) -> Transformer:
    """Build a model of random weights on a device; the same ones for the same seed."""
    size = SHAPES[shape]
    random = torch.Generator(device).manual_seed(0)
    layers = PlainLayers(Packer(device, dtype, quantize, traceable=True))
    dim, hidden, width = size["dim"], size["hidden"], size["dim"] // size["heads"]
    vocabulary = size.get("vocabulary", VOCABULARY)

    def draw(rows: int, columns: int, scale: float = 0.02) -> torch.Tensor:
        values = torch.randn(rows, columns, generator=random, device=device, dtype=torch.bfloat16)
        return values.mul_(scale)

    def norm() -> RMSNorm:
        return RMSNorm(torch.ones(dim, dtype=dtype, device=device), 1e-5)

    blocks = []
    for number in range(size["layers"]):
        qkv = draw((size["heads"] + 2 * size["kv_heads"]) * width, dim)
        attention = Attention(layers.column(qkv), layers.row(draw(dim, dim)), width, number)
        w13, w2 = layers.column(draw(2 * hidden, dim)), layers.row(draw(dim, hidden))
        blocks.append(Block(attention, FeedForward(w13, w2), norm(), norm()))
    return Transformer(
        layers.embedding(draw(vocabulary, dim)),
        blocks,
        norm(),
        layers.output(draw(vocabulary, dim, 0.2)),
        head_dim=width,
        n_kv_heads=size["kv_heads"],
        rope=frequencies(width, 10000.0),
    ).eval()


def stepper(model: Transformer, rows: int, job: dict[str, Any]) -> tuple[Step, int]:
    """Prefill all rows; return what computes a step, and the bytes that one reads."""
    prompt, length = job["prompt"], cache_length(job)
    cache = model.new_cache(rows, length)
    for row in range(rows):
        model(Batch((tuple(range(1 + row, 1 + row + prompt)),), (0,), row), cache)

    def step(tokens: list[int], position: int) -> torch.Tensor:
        return model(Batch(tuple((token,) for token in tokens), (position,) * rows), cache)

    weights = sum(it.nbytes for it in model.modules() if isinstance(it, Kernel))
    kept = sum(it.nbytes for it in cache.tensors) * prompt // length
    return step, weights + kept


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "w") as lines:
        os.dup2(2, 1)  # what libraries print is not to mix with the figures
        main(json.loads(sys.argv[1]), lines)
