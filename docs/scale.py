"""The small formula behind docs/explanation/scale.md: seconds of a step from bytes and bandwidths.

Weights and cache are counted by the code that ``inspect`` uses. A step reads both once, computes
its products, and has two all-reduces a layer and one all-gather of logits; what is read and what is
computed overlap, messages do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from generate import _table, generated

from llamakit.checkpoint.layout import expected_parameters
from llamakit.checkpoint.params import ModelParams
from llamakit.checkpoint.shard_plan import valid_sizes
from llamakit.examine.memory_estimate import RankMemory, rank_memory

LLAMA3 = {"n_kv_heads": 8, "vocab_size": 128256, "rope_theta": 5e5}
MODELS = {
    "8B": ModelParams(dim=4096, n_layers=32, n_heads=32, hidden_dim=14336, **LLAMA3),
    "70B": ModelParams(dim=8192, n_layers=80, n_heads=64, hidden_dim=28672, **LLAMA3),
    "405B": ModelParams(dim=16384, n_layers=126, n_heads=128, hidden_dim=53248, **LLAMA3),
}
SIZES = (1, 2, 4, 8, 16, 32, 64)
CONTEXT = 8192
"""Tokens that each sequence has, in the tables."""


@dataclass(frozen=True)
class Device:
    """What one rank's device gives.

    Args:
        read: bytes of memory read a second, as reached in decoding.
        compute: floating-point operations a second in the products, as reached.
        memory: bytes, without what the system and the runtime take.
        latency: seconds of a small all-reduce over the ranks of one host.
        link: bytes a second to another rank of the host.
        far_latency: seconds of a small all-reduce over several hosts.
        far_link: bytes a second to a rank of another host.
        host: how many ranks a host has.
    """

    read: float
    compute: float
    memory: float
    latency: float
    link: float
    far_latency: float = 0.0
    far_link: float = 1.0
    host: int = 64


H100 = Device(
    read=0.7 * 3.35e12,
    compute=0.6 * 989e12,
    memory=77e9,
    latency=12e-6,
    link=0.8 * 450e9,
    far_latency=30e-6,
    far_link=0.8 * 50e9,
    host=8,
)
"""An H100 SXM: data sheet values times what a good kernel reaches. Not measured here."""


@dataclass(frozen=True)
class Step:
    """The parts of one decoding step, in seconds."""

    weights: float
    cache: float
    products: float
    messages: float

    @property
    def seconds(self) -> float:
        """The whole step."""
        return max(self.weights, self.products) + self.cache + self.messages

    @property
    def limit(self) -> str:
        """What takes the most of it."""
        return max(vars(self), key=vars(self).__getitem__)


def memory_of(params: ModelParams, size: int, batch: int, context: int) -> RankMemory:
    """Count what a rank of ``size`` holds: weights and cache in bfloat16."""
    checkpoint: Any = SimpleNamespace(params=params, parameters=expected_parameters(params))
    return rank_memory(checkpoint, size, "bfloat16", context, batch)


def step(
    params: ModelParams,
    device: Device,
    size: int,
    batch: int,
    context: int,
    weight_bytes: float = 2.0,
) -> Step:
    """Work out one decoding step of ``batch`` sequences of ``context`` tokens on ``size`` ranks.

    Args:
        weight_bytes: of each value of a weight; the embedding is looked up, not read.
    """
    held = memory_of(params, size, batch, context)
    embedding = params.vocab_size * params.dim * (not params.tied_embeddings)
    values = held.weights / 2 - embedding / size
    return Step(
        weights=values * weight_bytes / device.read,
        cache=held.kv_cache / device.read,
        products=2 * values * batch / device.compute,
        messages=_messages(params, device, size, batch),
    )


def _messages(params: ModelParams, device: Device, size: int, batch: int) -> float:
    """Return the seconds of a step's collectives: a ring within each host, and one over hosts."""
    if size == 1:
        return 0.0
    nbytes = 2 * batch * params.dim  # of one all-reduce, in bfloat16
    near, hosts = min(size, device.host), -(-size // device.host)
    seconds = device.latency + 2 * (near - 1) / near * nbytes / device.link
    if hosts > 1:
        share = nbytes / near
        seconds += device.far_latency + 2 * (hosts - 1) / hosts * share / device.far_link
    return (2 * params.n_layers + 1) * seconds


@generated
def scale(batch: int) -> str:
    """Write the table of one batch size: memory a GPU, tokens a second, what limits."""
    rows = [
        (name, str(size), *_cells(params, size, batch))
        for name, params in MODELS.items()
        for size in SIZES
    ]
    head = ("model", "GPUs", "weights a GPU", "cache a GPU", "tokens a second", "most of it")
    return _table(head, rows)


def _cells(params: ModelParams, size: int, batch: int) -> tuple[str, str, str, str]:
    if size not in valid_sizes(params):
        return ("–", "–", f"{params.n_heads} heads do not divide", "")
    held = memory_of(params, size, batch, CONTEXT)
    sizes = (f"{held.weights / 1e9:.1f} GB", f"{held.kv_cache / 1e9:.1f} GB")
    if held.weights + held.kv_cache > H100.memory:
        return (*sizes, "does not fit", "memory")
    found = step(params, H100, size, batch, CONTEXT)
    return (*sizes, f"{batch / found.seconds:,.0f}", found.limit)


SMALL = ModelParams(
    dim=2048, n_layers=22, n_heads=32, n_kv_heads=8, vocab_size=32000, hidden_dim=5632
)
"""The 1.1B of ``benchmarks/decode.py``."""


@dataclass(frozen=True)
class Measured:
    """A row of docs/benchmarks.md beside the formula.

    Args:
        read: what the kernel read a second on that machine, in its own measurement.
        speed: tokens a second, of all sequences.
    """

    name: str
    batch: int
    weight_bytes: float
    read: float
    speed: float

    @property
    def device(self) -> Device:
        """Two cores of a Zen 4; only what they read differs between kernels."""
        return Device(read=self.read, compute=1e12, memory=20e9, latency=0.0, link=1.0)

    @property
    def formula(self) -> float:
        """Tokens a second that the formula allows."""
        return self.batch / step(SMALL, self.device, 1, self.batch, 144, self.weight_bytes).seconds


MEASURED = (
    Measured("bfloat16, 1 sequence", 1, 2.0, 29e9, 13.4),
    Measured("bfloat16, 8 sequences", 8, 2.0, 22e9, 68.7),
    Measured("int8, 1 sequence", 1, 1.0, 34e9, 19.9),
)
"""2026-11-27, the 1.1B, two cores of a Zen 4."""


@generated
def measured() -> str:
    """Write the formula beside what was measured."""
    rows = [
        (it.name, f"{it.read / 1e9:.0f} GB/s", f"{it.formula:.1f}", f"{it.speed:.1f}",
         f"{it.speed / it.formula:.2f}")
        for it in MEASURED
    ]  # fmt: skip
    return _table(("", "the kernel reads", "formula", "measured", "measured / formula"), rows)
