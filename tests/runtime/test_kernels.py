"""What a packed weight multiplies to, against the weight itself in float64."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llamakit.errors import UsageError
from llamakit.protocols import Quantization
from llamakit.runtime.kernels import calibration, half_precision, measuring, quantized
from llamakit.runtime.kernels.choice import Packer
from llamakit.runtime.kernels.kernel import Kernel, Plain
from llamakit.runtime.kernels.rounded import GROUP, Rounded, round_weight, to_int4, to_int8

CPU = torch.device("cpu")
HAS_ONEDNN = pytest.mark.skipif(
    not half_precision.has_onednn(), reason="no bfloat16 in this CPU's oneDNN"
)
HAS_HALF = pytest.mark.skipif(not half_precision.has_half(), reason="PyTorch without FBGEMM")
HAS_FBGEMM = pytest.mark.skipif(not quantized.has_int8_fbgemm(), reason="no FBGEMM with VNNI here")
HAS_INT8 = pytest.mark.skipif(not quantized.has_int8_onednn(), reason="no VNNI here")

IN_8_BITS = (quantized.Int8, quantized.Int8OneDNN, quantized.Int8FBGEMM)


def rounding(kind: Callable[[Rounded], Kernel], to: Quantization) -> Callable[..., Kernel]:
    return lambda held: kind(round_weight(held, to))


ONEDNN_8 = rounding(quantized.Int8OneDNN, "int8")
FBGEMM_8 = rounding(quantized.Int8FBGEMM, "int8")
INT_4 = rounding(quantized.Int4, "int4")


def weight(rows: int = 192, columns: int = 128, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(1)).to(dtype)


def activations(rows: int, columns: int = 128, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(2)).to(dtype)


def error(kernel: Kernel, x: torch.Tensor, held: torch.Tensor) -> float:
    """The length of what is wrong, as a part of the length of the right answer."""
    with torch.inference_mode():
        right = x.double() @ held.double().T
        return float((kernel(x).double() - right).norm() / right.norm())


@pytest.mark.parametrize("rows", [1, 3, 70])
@pytest.mark.parametrize(
    ("make", "dtype", "bound"),
    [
        pytest.param(Plain, torch.float32, 1e-6, id="plain"),
        pytest.param(half_precision.OneDNN, torch.bfloat16, 4e-3, id="onednn", marks=HAS_ONEDNN),
        pytest.param(half_precision.RowByRow, torch.bfloat16, 4e-3, id="gemv", marks=HAS_ONEDNN),
        pytest.param(half_precision.WeightFirst, torch.bfloat16, 4e-3, id="amx", marks=HAS_ONEDNN),
        pytest.param(half_precision.Half, torch.float16, 1e-6, id="fbgemm", marks=HAS_HALF),
        pytest.param(ONEDNN_8, torch.float32, 2e-2, id="onednn-int8", marks=HAS_INT8),
        pytest.param(FBGEMM_8, torch.float32, 2e-2, id="fbgemm-int8", marks=HAS_FBGEMM),
        pytest.param(INT_4, torch.bfloat16, 0.1, id="int4"),
    ],
)
def test_a_kernel_multiplies_by_its_weight(
    make: Callable[[torch.Tensor], Kernel], dtype: torch.dtype, bound: float, rows: int
) -> None:
    held = weight(dtype=dtype)
    kernel = make(held.clone())
    x = activations(rows, dtype=torch.float32 if dtype == torch.float16 else dtype)

    found = error(kernel, x[None], held)

    assert found < bound
    gate, others = kernel(x[None]).chunk(2, -1)
    assert torch.equal(kernel.gated(x[None]), torch.nn.functional.silu(gate) * others)
    assert kernel(x[None]).shape == (1, rows, len(held))
    assert kernel(x[None]).is_contiguous()
    assert kernel(x[None]).dtype == x.dtype


@HAS_HALF
def test_float16_weights_in_float32_are_as_exact_as_float32_weights() -> None:
    held = weight(dtype=torch.float16)
    packed = Packer(CPU, torch.float32).pack(held)
    x = activations(5)

    assert isinstance(packed, half_precision.Half)
    assert packed.nbytes == held.nbytes
    assert error(packed, x, held) < 2 * error(Plain(held.float()), x, held) + 1e-7


@HAS_HALF
@pytest.mark.parametrize("value", [1e30, 1e-20, float("inf"), float("nan")])
def test_a_bfloat16_weight_that_float16_does_not_hold_is_not_put_into_it(value: float) -> None:
    held = weight(dtype=torch.bfloat16)
    fitting = Packer(CPU, torch.float32).pack(held)
    held[7, 3] = value

    kernel = Packer(CPU, torch.float32).pack(held)

    assert isinstance(fitting, half_precision.Half)
    assert isinstance(kernel, Plain)
    assert kernel.weight.dtype == torch.float32


@HAS_HALF
@pytest.mark.parametrize("size", [1e-9, 1e-3, 1e9])
def test_bfloat16_values_beyond_float16_are_scaled_into_it_without_loss(size: float) -> None:
    held = (weight().mul_(size)).to(torch.bfloat16)
    held[::2] *= 1000  # outputs are scaled apart
    held[5] = 0
    kernel = Packer(CPU, torch.float32).pack(held)
    x = activations(5)

    assert isinstance(kernel, half_precision.Half)
    assert error(kernel, x, held) < 2 * error(Plain(held.float()), x, held) + 1e-7
    assert (kernel(x)[:, 5] == 0).all()


@HAS_ONEDNN
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("amx", [False, True])
def test_weights_that_stay_mapped_multiply_as_one(
    monkeypatch: pytest.MonkeyPatch, amx: bool, rows: int
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    several = [weight(rows, dtype=torch.bfloat16) for rows in (64, 16, 16)]
    x = activations(rows, dtype=torch.bfloat16)

    made = Packer(CPU, torch.bfloat16, rows=1, mapped=True).pack(*several)
    copied = Packer(CPU, torch.bfloat16, rows=1).pack(*several)

    assert [it.data_ptr() for it in made.parameters()] == [it.data_ptr() for it in several]
    assert torch.equal(made(x), copied(x))
    assert made.nbytes == copied.nbytes == 96 * 128 * 2


@HAS_ONEDNN
def test_one_row_by_itself_leaves_onednn_switched_on_for_the_process() -> None:
    kernel = half_precision.RowByRow(weight(dtype=torch.bfloat16))

    kernel(activations(1, dtype=torch.bfloat16))
    with pytest.raises(RuntimeError):
        kernel(activations(1, columns=3, dtype=torch.bfloat16))

    assert torch.backends.mkldnn.enabled


@HAS_ONEDNN
@pytest.mark.parametrize("batch", [(2, 1), (3, 5)])
def test_what_is_gated_is_not_turned_around_before_the_next_product(batch: tuple[int, int]) -> None:
    first = half_precision.WeightFirst(weight(dtype=torch.bfloat16))
    second = half_precision.WeightFirst(weight(64, 96, torch.bfloat16))
    x = activations(batch[0] * batch[1], dtype=torch.bfloat16).view(*batch, -1)

    gated = first.gated(x)

    assert gated.flatten(0, 1).t().is_contiguous()
    assert torch.equal(second(gated), second(gated.contiguous()))
    assert second(gated).shape == (*batch, 64)


@HAS_ONEDNN
@pytest.mark.parametrize(
    ("amx", "kinds"),
    [
        (False, (half_precision.RowByRow, half_precision.OneDNN)),
        (True, (half_precision.WeightFirst, half_precision.WeightFirst)),
    ],
)
def test_the_kernel_is_chosen_by_the_processor_and_how_many_sequences_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, amx: bool, kinds: tuple[type[Kernel], ...]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    held = weight(dtype=torch.bfloat16)

    one, several = (
        calibration.packer(CPU, torch.bfloat16, None, batch=batch).pack(held) for batch in (1, 2)
    )

    assert (type(one), type(several)) == kinds


def test_the_largest_cache_is_what_the_system_says(tmp_path: Path) -> None:
    for index, size in enumerate(["48K", "2048K", "307200K", "odd"]):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(f"{size}\n")

    assert measuring.cache_size(tmp_path) == 300 << 20
    assert measuring.cache_size(tmp_path / "none") == 0


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(ONEDNN_8, marks=HAS_INT8),
        pytest.param(FBGEMM_8, marks=HAS_FBGEMM),
    ],
)
def test_a_row_in_8_bits_does_not_depend_on_the_rest_of_the_batch(
    make: Callable[[torch.Tensor], Kernel],
) -> None:
    kernel = make(weight())
    x = activations(4)
    loud = torch.cat((x, x[:1] * 1000, x[:1] * 0))

    with torch.inference_mode():
        alone, beside = kernel(x[1:2]), kernel(loud)

    assert torch.equal(alone, beside[1:2])
    assert (beside[5] == 0).all()


@HAS_FBGEMM
def test_nan_in_an_activation_is_not_rounded_away() -> None:
    kernel = quantized.Int8FBGEMM(round_weight(weight(), "int8"))
    x = activations(2)
    x[0, 3] = torch.nan

    out = kernel(x)

    assert not out[0].isfinite().any()
    assert out[1].isfinite().all()


def test_8_bits_round_to_the_nearest_of_255_steps() -> None:
    held = weight()

    rounded, scale = to_int8(held)

    assert rounded.abs().max() == 127
    assert ((rounded * scale[:, None] - held).abs() <= scale[:, None] * 0.501).all()


def test_4_bits_round_to_the_nearest_of_16_steps_of_a_group() -> None:
    held = weight()

    rounded, scales = to_int4(held)

    step, middle = scales.float().transpose(0, 1).unbind(-1)  # (N, K/G)
    back = (rounded.view(len(held), -1, GROUP) - 8) * step[..., None] + middle[..., None]
    wrong = (back.flatten(1) - held).abs().view(len(held), -1, GROUP).amax(-1)
    assert rounded.min() == 0
    assert rounded.max() == 15
    assert (wrong <= step * 0.6).all()  # 0.5, and what bfloat16 loses of the step and the middle


@pytest.mark.parametrize("shape", [(192, 128), (16, 32), (1040, 64), (336, 96)])
def test_the_output_layer_and_odd_shapes_stay_in_8_bits(shape: tuple[int, int]) -> None:
    packer = Packer(CPU, torch.float32, "int4")

    inner, output = packer.pack(weight(*shape)), packer.pack(weight(*shape), output=True)
    odd = packer.pack(weight(17, 40))

    assert isinstance(inner, quantized.Int4)
    assert isinstance(output, IN_8_BITS)
    assert isinstance(odd, IN_8_BITS)
    assert error(inner, activations(2, shape[1]), weight(*shape)) < 0.12


def test_8_bits_without_vnni_widen_the_weight() -> None:
    held = weight()
    kernel = quantized.Int8(round_weight(held, "int8"), torch.float32)

    assert error(kernel, activations(3), held) < 1e-2


def test_an_unknown_quantization_is_refused() -> None:
    with pytest.raises(UsageError, match="expected int8 or int4"):
        Packer(CPU, torch.float32, "int3")


def test_what_was_measured_elsewhere_or_never_is_not_taken(tmp_path: Path) -> None:
    never = calibration.remembered(tmp_path)
    (tmp_path / "kernels.json").write_text('{"machine": {"threads": 999}, "bfloat16": {}}')
    elsewhere = calibration.remembered(tmp_path)
    (tmp_path / "kernels.json").write_text("[")

    assert never is None
    assert elsewhere is None
    assert calibration.remembered(tmp_path) is None


@pytest.mark.parametrize("wrong", [{"seconds": "x"}, {"rows": None}, {"bandwidth": 1e400}])
def test_timings_of_a_damaged_file_are_left_out(tmp_path: Path, wrong: dict[str, Any]) -> None:
    right = {"kernel": "plain", "rows": 1, "seconds": 0.5, "bandwidth": 1e9}
    stored = [{"machine": calibration.machine(), "timings": [it]} for it in (right, right | wrong)]
    found = []
    for record in stored:
        (tmp_path / "kernels.json").write_text(json.dumps(record))
        found.append(len(calibration.remembered_timings(tmp_path)))

    assert found == [1, 0]
