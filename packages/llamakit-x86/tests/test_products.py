"""The products, of every instruction set that this processor has."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from llamakit_x86 import INT4, INT8
from llamakit_x86.library import GENERIC, instruction_sets
from llamakit_x86.weights import pack_int4, pack_int8

from llamakit.testing import check_kernel, check_plugin, round_weight

PACK = {"int8": pack_int8, "int4": pack_int4}
SHAPES = [(1, 32), (15, 64), (16, 32), (17, 96), (48, 288), (130, 352), (33, 1024)]
"""Of weights; the least is smaller than a block of outputs, some end within one."""


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def multiplied_out(held):
    """The weight that the integers stand for, in float64."""
    values, scales = held.values.numpy(), held.scales.double().numpy()
    if held.kind == "int8":
        return values * scales[:, None]
    numbers = np.stack((values & 15, values >> 4), -1).reshape(*scales.shape[:2], 32)
    return ((numbers.astype(float) - 8) * scales[..., :1] + scales[..., 1:]).reshape(
        len(values), -1
    )


def rounded_by_groups(x):
    """Activations as they are multiplied, in float64."""
    padded = np.pad(x.double().numpy(), ((0, 0), (0, -x.shape[1] % 32)))
    groups = padded.reshape(len(x), -1, 32)
    steps = np.maximum(np.abs(groups).max(-1, keepdims=True), 1e-300) / 127
    return (np.round(groups / steps) * steps).reshape(len(x), -1)[:, : x.shape[1]]


def products(kind, held, x, name=None):
    return PACK[kind](held, x.dtype, name)(x)


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("shape", SHAPES)
def test_they_are_those_of_numpy_for_every_tail_of_rows_and_outputs(kind, shape):
    held = round_weight(random(*shape), kind)
    for rows in (*range(1, 18), 70):
        x = random(rows, shape[1], seed=rows)

        expected = rounded_by_groups(x) @ multiplied_out(held).T

        out = products(kind, held, x).double().numpy()
        assert np.abs(out - expected).max() < 2e-3 * np.abs(expected).max()


@pytest.mark.parametrize("kind", PACK)
def test_they_are_near_those_of_pytorch(kind):
    held = round_weight(random(192, 256), kind)
    x = random(5, 256, seed=1)

    exact = torch.nn.functional.linear(x.double(), torch.from_numpy(multiplied_out(held)))

    assert (products(kind, held, x) - exact).norm() < 0.01 * exact.norm()


def test_they_are_near_those_of_pytorchs_operator_in_4_bits():
    held = round_weight(random(192, 256), "int4")
    x = random(5, 256, seed=1).bfloat16()
    numbers = torch.stack((held.values & 15, held.values >> 4), -1).flatten(1).int()
    scales = held.scales.transpose(0, 1).contiguous()

    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(numbers, 1)
    operator = torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, 32, scales).float()

    assert (products("int4", held, x).float() - operator).norm() < 0.015 * operator.norm()


@pytest.mark.parametrize("inputs", [1, 31, 33, 100])
def test_inputs_that_are_no_whole_group_are_padded_in_8_bits_and_refused_in_4(inputs):
    held = round_weight(random(20, inputs), "int8")
    x = random(9, inputs, seed=1)

    expected = rounded_by_groups(x) @ multiplied_out(held).T

    assert np.abs(products("int8", held, x).numpy() - expected).max() < 1e-3 * abs(expected).max()


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", [it for it in instruction_sets() if it != GENERIC])
def test_every_instruction_set_gives_the_bits_of_plain_c(kind, dtype, name):
    for outputs, inputs in SHAPES:
        held = round_weight(random(outputs, inputs), kind)
        for rows in (1, 3, 8, 17):
            x = (random(rows, inputs, seed=rows) * 3).to(dtype)

            assert torch.equal(products(kind, held, x, name), products(kind, held, x, GENERIC))


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("name", instruction_sets())
def test_the_largest_integers_do_not_overflow(kind, name):
    held = round_weight(torch.ones(32, 4096) * torch.tensor([1.0, -1.0]).repeat(16)[:, None], kind)
    x = torch.full((2, 4096), -1.0)

    out = products(kind, held, x, name)

    assert torch.allclose(out, torch.tensor([-4096.0, 4096.0]).repeat(16), rtol=0.01)


@pytest.mark.parametrize("name", instruction_sets())
def test_a_stored_weight_may_use_all_256_values(name):
    values = torch.arange(-128, 128, dtype=torch.int8).repeat(16, 1)
    held = type(round_weight(random(16, 32), "int8"))("int8", values, torch.ones(16))
    x = random(3, 256)

    expected = rounded_by_groups(x) @ values.double().numpy().T

    assert np.abs(products("int8", held, x, name).numpy() - expected).max() < 0.5


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_spoils_its_row_and_no_other(kind, value):
    held = round_weight(random(40, 96), kind)
    x = random(3, 96)
    clean = products(kind, held, x)
    x[1, 50] = value

    out = products(kind, held, x)

    assert out[1].isnan().all()
    assert torch.equal(out[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("name", instruction_sets())
@pytest.mark.parametrize("loud", [[0], [4], [0, 2, 3, 8, 16], list(range(17))])
def test_outliers_cost_nothing_of_what_is_beside_them(kind, name, loud):
    weight = random(64, 288)
    weight[:, [7, 100]] /= 100
    held = round_weight(weight, kind)
    x = random(17, 288, seed=3)
    quiet = products(kind, held, x, name)
    for row in loud:
        x[row, [7, 100]] *= 100

    out = products(kind, held, x, name)

    exact = x.double().numpy() @ multiplied_out(held).T
    beside = (out.double().numpy() - exact)[loud]
    assert np.linalg.norm(beside) < 0.005 * np.linalg.norm(exact[loud])
    assert torch.equal(out, products(kind, held, x, GENERIC))
    others = [row for row in range(17) if row not in loud]
    assert torch.equal(out[others], quiet[others])


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-38, 1e-20, 1e30])
def test_very_small_and_very_large_activations(kind, size):
    held = round_weight(random(16, 64), kind)
    x = random(2, 64) * size

    out = products(kind, held, x)

    expected = x.double().numpy() @ multiplied_out(held).T
    assert np.abs(out.numpy() - expected).max() < max(1e-28, 0.02 * np.abs(expected).max())


def test_no_rows_give_no_products():
    held = round_weight(random(16, 32), "int8")

    assert products("int8", held, torch.empty(0, 32)).shape == (0, 16)


@pytest.mark.parametrize("spec", [INT8, INT4], ids=["int8", "int4"])
def test_the_contract_of_kernels_is_kept(spec):
    check_kernel(spec)


def test_the_plugin_registers():
    check_plugin("llamakit_x86")


def test_the_threads_are_those_of_pytorch():
    from pathlib import Path

    products("int8", round_weight(random(2048, 1024), "int8"), random(4, 1024))

    maps = Path("/proc/self/maps").read_text().split()
    runtimes = {path for path in maps if "libgomp" in path or "libomp" in path}
    # Wheels bring one of their own, each in its folder; the C code would bring the system's.
    assert all("site-packages" in path for path in runtimes), runtimes
