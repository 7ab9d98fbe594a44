"""The products by weights in bfloat16, of every instruction set that this processor has."""

from __future__ import annotations

import pytest
import torch
from llamakit_x86 import BF16
from llamakit_x86.bfloat16 import WIDE, pack
from llamakit_x86.library import GENERIC, instruction_sets

from llamakit.testing import check_kernel

SETS = instruction_sets(16)
SHAPES = [(1, 1), (16, 32), (17, 33), (48, 96), (130, 352), (64, 70), (33, 1031)]
"""Of weights: some end within a block of 16 outputs, or within a group of 32 inputs."""

ROWS = (*range(18), 20, 24, 25, 31, 32, 33)
"""Of activations: every tail of a tile of 16, and of vectors for up to 8 rows behind one."""

LEAST = 2.0**-126
"""Smaller magnitudes are denormal."""


def random(*shape, seed=0, dtype=torch.bfloat16):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def allowed(x, weight, exact):
    """By how much float32 sums may be off, and a bfloat16 result."""
    added = x.double().abs() @ weight.double().abs().T
    rounding = 2**-8 if x.dtype == torch.bfloat16 else 2**-23
    flushed = x.shape[1] * LEAST  # each product and sum that is denormal
    return added * x.shape[1] * 2**-24 + exact.abs() * rounding + flushed


@pytest.mark.skipif(not torch.cpu._is_amx_tile_supported(), reason="this CPU has no AMX")
def test_amx_is_the_quickest_set_where_pytorch_uses_it():
    assert next(iter(SETS)) == "amx"


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("shape", SHAPES)
def test_they_are_as_exact_as_float32_sums_for_every_tail(name, shape):
    weight = random(*shape)
    for dtype in (torch.bfloat16, torch.float32) if name in WIDE else (torch.bfloat16,):
        packed = pack(weight, dtype, name)
        x = random(max(ROWS), shape[1], seed=1, dtype=dtype)
        exact = x.double() @ weight.double().T
        most = allowed(x, weight, exact)
        for rows in ROWS if name != GENERIC else (0, 1, 17):
            off = (packed(x[:rows]).double() - exact[:rows]).abs()
            assert (off <= most[:rows]).all()


@pytest.mark.parametrize("name", [name for name in SETS if name != GENERIC])
def test_a_long_prompt_is_multiplied_in_parts_that_the_cache_holds(name):
    weight, x = random(48, 8192), random(150, 8192, seed=1)

    exact = x.double() @ weight.double().T

    off = (pack(weight, x.dtype, name)(x).double() - exact).abs()
    assert (off <= allowed(x, weight, exact)).all()


@pytest.mark.parametrize("name", SETS)
def test_a_row_has_the_same_bits_in_every_batch(name):
    packed = pack(random(70, 300), torch.bfloat16, name)
    x = random(70, 300, seed=1)

    together = packed(x)

    for first, count in ((0, 1), (3, 1), (5, 9), (60, 10), (20, 33)):
        assert torch.equal(packed(x[first : first + count]), together[first : first + count])


@pytest.mark.parametrize("name", [name for name in SETS if name in WIDE and name != GENERIC])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_widens_gives_the_bits_of_plain_c(name, dtype):
    weight, x = random(70, 300), random(21, 300, seed=1, dtype=dtype)

    assert torch.equal(pack(weight, dtype, name)(x), pack(weight, dtype, GENERIC)(x))
    gated = [pack(weight[:64], dtype, it).gated(x) for it in (name, GENERIC)]
    assert torch.equal(*gated)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("rows", [0, 1, 16, 17, 33, 70])
def test_the_gated_product_is_silu_of_the_one_half_times_the_other(name, rows):
    weight, x = random(96, 288), random(rows, 288, seed=1)

    gate, other = (x.double() @ weight.double().T).chunk(2, -1)
    exact = torch.nn.functional.silu(gate) * other

    out = pack(weight, x.dtype, name).gated(x)
    assert out.shape == (rows, 48)
    assert ((out.double() - exact).abs() <= exact.abs() * 2**-7 + 1e-3).all()


def test_halves_that_are_no_whole_blocks_are_left_to_llamakit():
    assert pack(random(40, 32), torch.bfloat16).gated(random(2, 32)) is None


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_spoils_its_row_and_no_other(name, value):
    packed = pack(random(64, 96), torch.bfloat16, name)
    x = random(20, 96)
    clean, clean_gated = packed(x), packed.gated(x)
    x[1, 50] = value

    out, gated = packed(x), packed.gated(x)

    others = [0, *range(2, 20)]
    assert not out[1].isfinite().any()
    assert torch.equal(out[others], clean[others])
    assert torch.equal(gated[others], clean_gated[others])
    assert not gated[1].isfinite().any() or not clean_gated[1].all()


@pytest.mark.parametrize("name", SETS)
def test_an_infinite_or_nan_weight_spoils_its_output_and_no_other(name):
    weight = random(40, 64)
    weight[3, 7], weight[20, 0] = float("inf"), float("nan")

    out = pack(weight, torch.bfloat16, name)(random(5, 64, seed=1))

    assert not out[:, [3, 20]].isfinite().any()
    assert out[:, [it for it in range(40) if it not in (3, 20)]].isfinite().all()


@pytest.mark.parametrize("name", SETS)
def test_denormals_count_only_where_float32_is_multiplied(name):
    """AMX and AVX-512 BF16 take them for zero: at most 2 ** -126 times the other factor."""
    weight = torch.full((16, 32), LEAST / 4, dtype=torch.bfloat16)
    x = torch.full((2, 32), 4.0, dtype=torch.bfloat16)

    out = pack(weight, torch.bfloat16, name)(x)

    expected = 32 * LEAST if name in WIDE else 0.0
    assert (out == expected).all()


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("size", [1e-18, 1e18])
def test_very_small_and_very_large_values(name, size):
    weight, x = (random(32, 64) * size).bfloat16(), (random(3, 64, seed=1) * size).bfloat16()

    exact = x.double() @ weight.double().T

    off = (pack(weight, torch.bfloat16, name)(x).double() - exact).abs()
    assert (off <= allowed(x, weight, exact)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_weights_of_other_dtypes_are_not_taken(dtype):
    assert pack(random(16, 32, dtype=dtype), torch.float32) is None


def test_inputs_that_are_not_contiguous_are_copied():
    weight, x = random(32, 64), random(64, 5, seed=1).t()
    packed = pack(weight.t().contiguous().t(), torch.bfloat16)

    assert torch.equal(packed(x), pack(weight, torch.bfloat16)(x.contiguous()))


def test_the_contract_of_kernels_is_kept():
    check_kernel(BF16)
