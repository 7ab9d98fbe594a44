"""Channels of activations that are much larger than the others, in 8 bits."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from llamakit import Llama, demo
from llamakit.api import choose_sampling
from llamakit.runtime.kernels import quantized
from llamakit.runtime.kernels.rounded import round_weight
from llamakit.runtime.requests import Request

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "decoding" / "outlier_model.py"
TEXT = "Once upon a time there was a little girl who lived in a small house near the forest."
HAS_FBGEMM = pytest.mark.skipif(not quantized.has_int8_fbgemm(), reason="no FBGEMM with VNNI here")
HAS_INT8 = pytest.mark.skipif(not quantized.has_int8_onednn(), reason="no VNNI here")
KINDS = [
    pytest.param(quantized.Int8OneDNN, marks=HAS_INT8),
    pytest.param(quantized.Int8FBGEMM, marks=HAS_FBGEMM),
]


@pytest.fixture(scope="module")
def outliers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model, with two channels of activations a hundred times as large."""
    spec = importlib.util.spec_from_file_location("outlier_model", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("outliers") / "model"
    made: Path = module.make_outlier_model(Path(demo.path()), folder)
    return made


def logprobs(model: str | Path, quantize: str | None) -> torch.Tensor:
    """Return the log-probability of each token of a text."""
    with Llama.open(model, dtype="float32", quantize=quantize) as llama:
        prompt = llama.tokenizer.encode(TEXT, bos=True)
        greedy = choose_sampling(temperature=0)
        request = Request(prompt, len(prompt), greedy, 0, prompt_logprobs=True, prompt_only=True)
        *_, last = llama.run([request])
        return torch.tensor(last.prompt_logprobs)


@HAS_INT8
def test_a_model_with_outliers_in_8_bits_is_nearly_the_exact_one(outliers: Path) -> None:
    exact = logprobs(outliers, None)

    off = (logprobs(outliers, "int8") - exact).abs().mean()

    assert torch.allclose(exact, logprobs(demo.path(), None), atol=1e-3)
    assert off < 0.12, off


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_with_an_outlier_keeps_its_other_values(
    make: type[quantized.Int8ByInt8], dtype: torch.dtype
) -> None:
    held = round_weight(torch.randn(64, 512, generator=torch.Generator().manual_seed(0)), "int8")
    held.values[:, 9] = 0  # what the outlier meets: what is left are the other values
    x = torch.randn(3, 512, generator=torch.Generator().manual_seed(1)).to(dtype)
    plain = make(held)(x)
    loud = x.clone()
    loud[1, 9] = 1000

    out = make(held)(loud)

    right = x.double() @ held.multiplied_out().double().T
    assert (out - right).norm() < 0.012 * right.norm()
    assert torch.equal(out[[0, 2]], plain[[0, 2]])
