"""How fast ids come on a GPU: llamakit, plain and compiled, beside transformers, and the bandwidth.

    python benchmarks/gpu.py            # all of it, in ten minutes: 7B and 8B, batch 1 and 32
    python benchmarks/gpu.py --shapes 8b --forms int4 --rows 1
    python benchmarks/gpu.py --device cpu --shape tiny --backend aot_eager    # the code paths only

Random weights are made on the device itself, so nothing is read from a disk. First the greedy ids
of a small model are checked, each step from the ids that float32 chose. ``transformers, compiled``
is the loop of gpt-fast around transformers' model: a static cache and one recorded graph a step.
The bandwidth is that of the weights and of the keys and values that a step reads, against what
copying a large tensor reaches in the same run. What matters most is measured first; what would
begin after ``--seconds`` is named and left out.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator

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
Step = Callable[[list[int], int], torch.Tensor]
"""The last ids of each row and their position, to logits ``(B, V)``."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", default="7b,8b", help="of " + ", ".join(SHAPES))
    parser.add_argument("--forms", default="bf16,int8,int4")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", default="1,32")
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--backend", default="inductor", help="torch.compile's")
    parser.add_argument("--seconds", type=float, default=500, help="after which nothing is begun")
    parser.add_argument("--no-peers", action="store_true")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here: nothing is measured (--device cpu --shapes tiny runs the code)")
        return
    end = time.perf_counter() + arguments.seconds
    device = torch.device(arguments.device)
    peak = copy_bandwidth(device)
    print(f"{device_name(device)}, torch {torch.__version__}, copies {peak / 1e9:.0f} GB/s")
    check(device, arguments)
    print(f"\n{'':38}{'rows':>5}{'ids/s':>9}{'ms/step':>9}{'GB/s':>7}{'of peak':>9}")
    for rows, name, make in configurations(arguments):
        if time.perf_counter() > end:
            print(f"{name:38}{rows:5}  left out: {arguments.seconds:.0f} seconds were over")
            continue
        release(device)
        step, nbytes = make(device, rows)
        seconds = measure(step, rows, arguments)
        del step
        speed = nbytes / seconds
        print(
            f"{name:38}{rows:5}{rows / seconds:9.1f}{seconds * 1000:9.2f}"
            f"{speed / 1e9:7.0f}{speed / peak:9.0%}",
            flush=True,
        )


Engine = Callable[[torch.device, int], tuple[Step, int]]


def configurations(arguments: argparse.Namespace) -> Iterator[tuple[int, str, Engine]]:
    """Yield the rows, the name and the maker of each engine, the most wanted first."""
    for rows in map(int, arguments.rows.split(",")):
        for form in arguments.forms.split(","):
            for shape in arguments.shapes.split(","):
                for name, make in engines(arguments, shape, form).items():
                    yield rows, name, make


def engines(arguments: argparse.Namespace, shape: str, form: str) -> dict[str, Engine]:
    """Name what is measured of one shape, and say how each is made; peers have bfloat16 only."""
    length = arguments.prompt + arguments.new + WARM + 1
    quantize = None if form == "bf16" else form

    def ours(compiled: bool) -> Engine:
        def make(device: torch.device, rows: int) -> tuple[Step, int]:
            model = random_model(shape, device, torch.bfloat16, quantize)
            if compiled:
                model.decoder = CompiledDecoder(model, backend=arguments.backend)
            return stepper(model, rows, arguments.prompt, length)

        return make

    def theirs(compiled: bool) -> Engine:
        return lambda device, rows: peer(arguments, shape, device, rows, length, compiled)

    kinds = {f"{shape} llamakit {form}": ours} | (
        {f"{shape} transformers {form}": theirs}
        if form == "bf16" and not arguments.no_peers
        else {}
    )
    return {
        f"{name}, compiled" if compiled else name: make(compiled)
        for name, make in kinds.items()
        for compiled in (True, False)
    }


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
        values = torch.randn(rows, columns, generator=random, device=device)
        return values.mul_(scale).to(torch.bfloat16)

    def norm() -> RMSNorm:
        return RMSNorm(torch.ones(dim, dtype=dtype, device=device), 1e-5)

    blocks = []
    for number in range(size["layers"]):
        qkv = draw((size["heads"] + 2 * size["kv_heads"]) * width, dim)
        attention = Attention(layers.column(qkv), layers.row(draw(dim, dim)), width, number)
        w13, w2 = layers.column(draw(2 * hidden, dim)), layers.row(draw(dim, hidden))
        feed_forward = FeedForward(w13, w2)
        blocks.append(Block(attention, feed_forward, norm(), norm()))
    return Transformer(
        layers.embedding(draw(vocabulary, dim)),
        blocks,
        norm(),
        layers.output(draw(vocabulary, dim, 0.2)),
        head_dim=width,
        n_kv_heads=size["kv_heads"],
        rope=frequencies(width, 10000.0),
    ).eval()


def stepper(model: Transformer, rows: int, prompt: int, length: int) -> tuple[Step, int]:
    """Prefill all rows; return what computes a step, and the bytes that one reads."""
    cache = model.new_cache(rows, length)
    for row in range(rows):
        model(Batch((tuple(range(1 + row, 1 + row + prompt)),), (0,), row), cache)

    def step(ids: list[int], position: int) -> torch.Tensor:
        return model(Batch(tuple((token,) for token in ids), (position,) * rows), cache)

    weights = sum(it.nbytes for it in model.modules() if isinstance(it, Kernel))
    kept = (cache.keys.nbytes + cache.values.nbytes) * prompt // length
    return step, weights + kept


def peer(
    arguments: argparse.Namespace,
    shape: str,
    device: torch.device,
    rows: int,
    length: int,
    compiled: bool,
) -> tuple[Step, int]:
    """Build transformers' model of the same shape, and what computes a step of it."""
    from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, StaticCache

    size = SHAPES[shape]
    config = LlamaConfig(
        hidden_size=size["dim"],
        intermediate_size=size["hidden"],
        num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"],
        num_key_value_heads=size["kv_heads"],
        vocab_size=size.get("vocabulary", VOCABULARY),
        max_position_embeddings=4096,
        attn_implementation="sdpa",
    )
    with torch.device(device):
        model = LlamaForCausalLM(config).to(torch.bfloat16).eval()
    prompts = torch.arange(1, 1 + arguments.prompt, device=device).expand(rows, -1)
    cache = StaticCache(config, length) if compiled else DynamicCache(config=config)
    with torch.inference_mode():
        model(prompts, past_key_values=cache, logits_to_keep=1)
    forward = model.forward
    if compiled:
        mode = "reduce-overhead" if arguments.backend == "inductor" else None
        forward = torch.compile(forward, mode=mode, backend=arguments.backend, fullgraph=True)

    @torch.inference_mode()
    def step(ids: list[int], position: int) -> torch.Tensor:
        tokens = torch.tensor(ids, device=device)[:, None]
        where = torch.tensor([[position]], device=device)
        out = forward(tokens, past_key_values=cache, position_ids=where.expand(rows, -1))
        return out.logits[:, -1]

    layers = sum(it.nbytes for it in model.model.layers.parameters())
    heads = 2 * 2 * rows * arguments.prompt * size["layers"] * size["kv_heads"]
    kept = heads * size["dim"] // size["heads"]
    return step, layers + model.lm_head.weight.nbytes + kept


def measure(step: Step, rows: int, arguments: argparse.Namespace) -> float:
    """Return the median of the seconds a step, the reading of the ids included."""
    ids, seconds = list(range(1, 1 + rows)), []
    for number in range(arguments.new + WARM):
        start = time.perf_counter()
        ids = step(ids, arguments.prompt + number).argmax(-1).tolist()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[WARM:])


def check(device: torch.device, arguments: argparse.Namespace) -> None:
    """Say which greedy ids of a small model differ from float32's, each from float32's own."""
    steps, length = 48, arguments.prompt + 64
    exact, _ = stepper(random_model("tiny", device, torch.float32), 1, arguments.prompt, length)
    models = {name: random_model("tiny", device, torch.bfloat16) for name in ("plain", "compiled")}
    models["compiled"].decoder = CompiledDecoder(models["compiled"], backend=arguments.backend)
    found = {name: stepper(it, 1, arguments.prompt, length)[0] for name, it in models.items()}
    lost: dict[str, list[float]] = {name: [] for name in found}
    ids = [1]
    for number in range(steps):
        logits = exact(ids, arguments.prompt + number)
        best = logits.topk(2, -1)
        for name, step in found.items():
            own = step(ids, arguments.prompt + number).argmax(-1)
            if own.item() != best.indices[0, 0].item():
                lost[name].append(float(best.values[0, 0] - best.values[0, 1]))
        ids = best.indices[:, 0].tolist()
    for name, margins in lost.items():
        worst = f", where float32's margin was up to {max(margins):.4f}" if margins else ""
        print(f"ids that differ from float32's, {name}: {len(margins)} of {steps}{worst}")


def copy_bandwidth(device: torch.device) -> float:
    """Return the bytes a second, read and written, of copying a large tensor."""
    source = torch.empty(
        1 << (30 if device.type == "cuda" else 26), dtype=torch.uint8, device=device
    )
    target, best = torch.empty_like(source), float("inf")
    for _ in range(5):
        wait(device)
        start = time.perf_counter()
        target.copy_(source)
        wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * source.nbytes / best


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def release(device: torch.device) -> None:
    """Free what the last engine held."""
    torch._dynamo.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else "CPU"


if __name__ == "__main__":
    sys.exit(main())
