"""Attention of one layer of a Llama 3 8B: llamakit's pieces next to PyTorch's plain call.

    python benchmarks/attention.py

32 query heads of 8 keys and values, 128 wide, bfloat16, random. The plain call is
``scaled_dot_product_attention`` with ``enable_gqa``, rows padded to the longest under a mask, as
transformers' sdpa makes it. All of a line take turns in one process; milliseconds are medians (and
the quickest tenth).
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as llamakit's commands have it

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from llamakit.runtime.block import RMSNorm
from llamakit.runtime.kv_cache import Int8KVCache, KVCache, Place
from llamakit.runtime.model import Batch, Transformer
from llamakit.runtime.rope import frequencies

HEADS, KV_HEADS, WIDTH = 32, 8, 128
LAYERS = 3  # taken in turn, so that none of them is in a core's cache
PAGE = 64

Calls = dict[str, Callable[[int], object]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="for each line")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", default="prefix,uneven,chunk,int8,pages")
    parser.add_argument("--tokens", type=int, default=32768, help="of the 8-bit cache")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    with torch.inference_mode():
        for name in arguments.only.split(","):
            for title, calls in LINES[name](arguments.tokens):
                print(title, flush=True)
                measure(calls, arguments.seconds)


def measure(calls: Calls, seconds: float) -> None:
    """Print how long each call takes, and its ratio to the last one."""
    for call in calls.values():
        call(0)
    found: dict[str, list[float]] = {name: [] for name in calls}
    end, number = time.perf_counter() + seconds, 0
    while time.perf_counter() < end or number < 3:
        for name, call in calls.items():
            began = time.perf_counter()
            call(number % LAYERS)
            found[name].append(1e3 * (time.perf_counter() - began))
        number += 1
    medians = {name: statistics.median(times) for name, times in found.items()}
    peer = list(medians.values())[-1]
    for name, times in found.items():
        quick = sorted(times)[len(times) // 10]
        print(f"  {name:34}{medians[name]:9.2f} ({quick:.2f}){medians[name] / peer:8.2f}")


def prefix(_: int) -> list[tuple[str, Calls]]:
    """Rows that have their first positions in common."""
    lines = []
    for rows, common in ((2, 256), (8, 256), (2, 2048), (8, 2048)):
        starts = (common + 255,) * rows
        cache = filled(KVCache, rows + 1, common + 256)
        copies = window(cache, starts)
        shared = window(cache, starts, prefixes=((rows, common),) * rows)
        calls = {"shared": shared, "a copy each": copies, "plain call": plain(cache, starts)}
        lines.append((f"{rows} rows, {common} positions in common and 256 own", calls))
    return lines


def uneven(_: int) -> list[tuple[str, Calls]]:
    """Rows of very different lengths."""
    starts = tuple(int(it) for it in torch.linspace(99, 1099, 32)[torch.randperm(32)])
    cache = filled(KVCache, 32, 1101)
    calls = {"in pieces": window(cache, starts), "plain call": plain(cache, starts)}
    return [("32 rows of 100 to 1100 positions", calls)]


def chunk(_: int) -> list[tuple[str, Calls]]:
    """A chunk of a long prompt, and drafts."""
    lines = []
    for title, rows, count, before in (
        ("512 tokens after 4096", 1, 512, 4096),
        ("4 rows, 2 positions after 600", 4, 2, 600),
    ):
        cache = filled(KVCache, rows, before + count)
        starts = (before,) * rows
        calls = {"pieces": window(cache, starts, count), "plain call": plain(cache, starts, count)}
        lines.append((title, calls))
    return lines


def int8(tokens: int) -> list[tuple[str, Calls]]:
    """Decoding after a long context, with keys and values in 8 bits."""
    lines = []
    for rows, length in ((1, tokens), (8, tokens // 16)):
        rounded, exact = filled(Int8KVCache, rows, length), filled(KVCache, rows, length)
        starts = (length - 1,) * rows

        def widened(layer: int, rounded: KVCache = rounded, rows: int = rows) -> object:
            keys, values = rounded.read(layer, slice(0, rows), 0, rounded.length)
            q = torch.zeros(rows, HEADS, 1, WIDTH, dtype=torch.bfloat16)
            return scaled_dot_product_attention(q, keys, values, enable_gqa=True)

        calls = {
            "8 bits": window(rounded, starts),
            "8 bits, widened, plain call": widened,
            "16 bits, plain call": plain(exact, starts),
            "16 bits": window(exact, starts),
        }
        lines.append((f"{rows} rows of {length} positions", calls))
    return lines


def pages(_: int) -> list[tuple[str, Calls]]:
    """What gathering keys and values from pages would cost."""
    cache = filled(KVCache, 1, 1024)
    order = torch.randperm(1024 // PAGE)
    q = torch.randn(1, KV_HEADS, HEADS // KV_HEADS, WIDTH, dtype=torch.bfloat16)

    def gathered(layer: int) -> object:
        keys, values = (
            it.view(1, KV_HEADS, -1, PAGE, WIDTH)[:, :, order].flatten(2, 3)
            for it in cache.read(layer, slice(0, 1), 0, 1024)
        )
        return scaled_dot_product_attention(q, keys, values)

    def adjacent(layer: int) -> object:
        return scaled_dot_product_attention(q, *cache.read(layer, slice(0, 1), 0, 1024))

    return [(f"1024 positions, pages of {PAGE}", {"gathered": gathered, "adjacent": adjacent})]


LINES = {"prefix": prefix, "uneven": uneven, "chunk": chunk, "int8": int8, "pages": pages}


def filled(kind: type[KVCache], slots: int, length: int) -> KVCache:
    """Return a cache of random keys and values."""
    cache = kind(LAYERS, slots, length, KV_HEADS, WIDTH, torch.bfloat16, torch.device("cpu"))
    positions = torch.arange(length).expand(1, -1)
    new = torch.randn(1, length, KV_HEADS, WIDTH, dtype=torch.bfloat16)
    for layer in range(LAYERS):
        for slot in range(slots):
            cache.write(layer, Place.of(slot, 0, positions), new, new)
    return cache


def window(
    cache: KVCache,
    starts: tuple[int, ...],
    count: int = 1,
    prefixes: tuple[tuple[int, int], ...] = (),
) -> Callable[[int], object]:
    """Return llamakit's attention of new tokens, by layer."""
    model = Transformer(
        nn.Identity(),
        [],
        RMSNorm(torch.ones(1, dtype=torch.bfloat16), 1e-5),
        nn.Identity(),
        head_dim=WIDTH,
        n_kv_heads=KV_HEADS,
        rope=frequencies(WIDTH, 5e5),
    )
    batch = Batch(((0,) * count,) * len(starts), starts, prefixes=prefixes)
    opened = model.window(batch, cache)
    q, new = queries(len(starts), count, HEADS), queries(len(starts), count, KV_HEADS)
    return lambda layer: opened.attend(layer, q, new, new)


def plain(cache: KVCache, starts: tuple[int, ...], count: int = 1) -> Callable[[int], object]:
    """Return PyTorch's one call for all rows, with the mask that it needs."""
    stop = max(starts) + count
    positions = torch.tensor(starts)[:, None, None, None] + torch.arange(count)[:, None]
    hidden = torch.arange(stop) > positions  # (B, 1, T, S)
    mask = torch.zeros(hidden.shape, dtype=torch.bfloat16).masked_fill_(hidden, float("-inf"))
    q = queries(len(starts), count, HEADS).transpose(1, 2)
    slots = slice(0, len(starts))
    return lambda layer: scaled_dot_product_attention(
        q,
        *cache.read(layer, slots, 0, stop),
        attn_mask=mask if hidden.any() else None,
        enable_gqa=True,
    )


def queries(rows: int, count: int, heads: int) -> torch.Tensor:
    return torch.randn(rows, count, heads, WIDTH, dtype=torch.bfloat16)


if __name__ == "__main__":
    main()
