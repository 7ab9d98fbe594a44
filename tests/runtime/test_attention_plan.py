"""Attention in pieces: whatever a batch looks like, it is what a mask over everything gives."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from llamakit.api import open_checkpoint
from llamakit.runtime import attention_plan
from llamakit.runtime.attention import CacheWindow
from llamakit.runtime.attention_plan import CutLimits, Piece, plan
from llamakit.runtime.kv_cache import Int8KVCache, KVCache, Place
from llamakit.runtime.loader import load
from llamakit.runtime.model import Batch

CPU = torch.device("cpu")
KV_HEADS, GROUP, WIDTH, LENGTH = 2, 3, 8, 96
UNEVEN = (60, 3, 4, 44)


def masked(rows: slice, begin: int, stop: int) -> torch.Tensor:
    """Stand for a mask where only the cut is looked at."""
    return torch.zeros(1)


def shown(pieces: tuple[Piece, ...]) -> list[tuple[object, ...]]:
    return [
        (it.rows.start, it.rows.stop, it.begin, it.start, it.stop, it.mask is not None)
        for it in pieces
    ]


def test_rows_of_one_length_are_one_piece_without_a_mask() -> None:
    limits = CutLimits(padding=10, rows=1, block=1000)

    pieces = plan((70, 70, 70), 1, limits, masked, None)

    assert shown(pieces) == [(0, 3, 0, None, 71, False)]


def test_rows_of_different_lengths_are_padded_only_where_another_call_costs_more() -> None:
    limits = CutLimits(padding=10, rows=1, block=1000)

    pieces = plan((70, 66, 300, 304, 20), 1, limits, masked, None)

    assert shown(pieces) == [
        (0, 2, 0, None, 71, True),
        (2, 4, 0, None, 305, True),
        (4, 5, 0, None, 21, False),
    ]


def test_a_piece_has_as_many_rows_as_keep_the_threads_busy() -> None:
    limits = CutLimits(padding=10, rows=2, block=1000)

    pieces = plan((10, 900, 20, 800), 1, limits, masked, None)

    assert [it.rows for it in pieces] == [slice(0, 2), slice(2, 4)]


def test_a_long_past_is_attended_to_without_a_mask() -> None:
    limits = CutLimits(padding=10, rows=1, block=1 << 20)

    short = plan((500,), 512, limits, masked, None)
    long = plan((30_000, 30_000), 512, limits, masked, None)

    assert shown(short) == [(0, 1, 0, None, 1012, True)]
    assert shown(long) == [(0, 2, 0, 30_000, 30_512, False)]


def test_chunks_are_read_from_their_beginning_on() -> None:
    limits = CutLimits(padding=10, rows=1, block=1 << 20)

    one = plan((20_000,), 1, limits, masked, 8192)
    many = plan((8_000,), 9_000, limits, masked, 8192)

    assert shown(one) == [(0, 1, 16_384, None, 20_001, False)]
    assert [(it.queries, it.begin, it.start, it.stop) for it in many] == [
        (slice(0, 192), 0, 8_000, 8_192),
        (slice(192, 8_384), 8_192, 8_192, 16_384),
        (slice(8_384, 9_000), 16_384, 16_384, 17_000),
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk", [None, 16])
@pytest.mark.parametrize("most", [0, 1 << 19])
@pytest.mark.parametrize(
    ("starts", "count"),
    [*product([UNEVEN, (60, 60, 60), (0, 0)], [1, 7, 30]), ((5,), 1), ((33,), 40)],
)
def test_pieces_give_what_one_mask_gives(
    starts: tuple[int, ...],
    count: int,
    most: int,
    chunk: int | None,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``most`` 0: no piece has a mask, unless it is of several rows and one position."""
    monkeypatch.setattr(attention_plan, "MASK_NUMEL", most)
    cache = filled(KVCache, len(starts) + 1, dtype)
    q, k, v, place = new_tokens(starts, count, dtype)

    pieces = plan(
        starts, count, CutLimits(8, 1, LENGTH), masker(place.positions, dtype, chunk), chunk
    )
    found = CacheWindow(cache, place, torch.empty(0), pieces, ()).attend(0, q, k, v)

    assert sum(covered(it) for it in pieces) == len(starts) * count
    expected = by_mask(cache, q, place, chunk)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("starts", "count"), [(UNEVEN, 1), ((60, 60), 1), (UNEVEN, 7), ((50,), 30), ((0,), 40)]
)
def test_a_cache_of_8_bits_is_read_in_blocks(
    starts: tuple[int, ...], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Int8KVCache, "block", 16)
    cache = filled(Int8KVCache, len(starts) + 1, torch.float32)
    q, k, v, place = new_tokens(starts, count, torch.float32)
    limits = CutLimits(8, 1, 16)

    pieces = plan(starts, count, limits, masker(place.positions, torch.float32, None), None)
    found = CacheWindow(cache, place, torch.empty(0), pieces, ()).attend(0, q, k, v)

    torch.testing.assert_close(found, by_mask(cache, q, place, None), rtol=1e-5, atol=1e-5)


def test_a_long_prompt_forms_no_mask_of_all_its_positions(reference_cases: Path) -> None:
    """No tensor grows with the square of the prompt."""
    model = load(open_checkpoint(reference_cases / "gqa-mp1"), dtype=torch.float32, device=CPU)
    cache = model.new_cache(1, 3072)
    width = 1536

    with Largest() as largest:
        for start in range(0, 3072, width):
            model(Batch((tuple([7] * width),), (start,)), cache)

    assert 0 < largest.numel < width * 3072 / 2


class Largest(TorchDispatchMode):
    """Notes the largest new tensor that an operator returns."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for it in out if isinstance(out, tuple) else (out,):
            if isinstance(it, torch.Tensor) and not func.is_view:
                self.numel = max(self.numel, it.numel())
        return out


def covered(piece: Piece) -> int:
    return (piece.rows.stop - piece.rows.start) * (piece.queries.stop - piece.queries.start)


def filled(kind: type[KVCache], slots: int, dtype: torch.dtype) -> KVCache:
    """Return a cache whose slots hold random keys and values."""
    cache = kind(1, slots, LENGTH, KV_HEADS, WIDTH, dtype, CPU)
    seeded = torch.Generator().manual_seed(1)
    k, v = (
        torch.randn(slots, LENGTH, KV_HEADS, WIDTH, generator=seeded).to(dtype) for _ in range(2)
    )
    positions = torch.arange(LENGTH).expand(slots, -1)
    cache.write(0, Place.of(0, 0, positions), k, v)
    return cache


def new_tokens(
    starts: tuple[int, ...], count: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Place]:
    """Return queries, keys, values and the place of new tokens; slot 0 is another batch's."""
    seeded = torch.Generator().manual_seed(2)
    q, k, v = (
        torch.randn(len(starts), count, heads, WIDTH, generator=seeded).to(dtype)
        for heads in (KV_HEADS * GROUP, KV_HEADS, KV_HEADS)
    )
    positions = torch.tensor(starts)[:, None] + torch.arange(count)
    start = starts[0] if len(set(starts)) == 1 else None
    return q, k, v, Place.of(1, start, positions)


def masker(positions: torch.Tensor, dtype: torch.dtype, chunk: int | None) -> attention_plan.Masker:
    def mask(rows: slice, begin: int, stop: int) -> torch.Tensor:
        keys, queries = torch.arange(begin, stop), positions[rows][:, None, :, None]
        hidden = keys > queries
        if chunk:
            hidden = hidden | (keys // chunk != queries // chunk)
        return torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, float("-inf"))

    return mask


def by_mask(cache: KVCache, q: torch.Tensor, place: Place, chunk: int | None) -> torch.Tensor:
    """Attend to whole slots with one mask."""
    keys, values = cache.read(0, place.slots, 0, LENGTH)
    rows = slice(0, len(place.positions))
    mask = masker(place.positions, q.dtype, chunk)(rows, 0, LENGTH)
    attended = scaled_dot_product_attention(
        q.transpose(1, 2), keys, values, attn_mask=mask, enable_gqa=True
    )
    return attended.transpose(1, 2).flatten(-2)
