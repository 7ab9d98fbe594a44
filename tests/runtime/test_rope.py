"""The frequencies of the rotary embedding, judged by published values and by transformers."""

from __future__ import annotations

import math
import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before the import below, which reads it

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from llamakit.checkpoint.families import RopeScaling
from llamakit.runtime.rope import frequencies, rotations

CPU = torch.device("cpu")
THETA = 500000.0
LAST_KEPT = 0.0032114459947525913


@pytest.mark.parametrize(
    ("head_dim", "factor", "expected"),
    [
        (
            128,
            8.0,
            {28: LAST_KEPT, 29: 0.002166570763503359, 34: 0.00017850781276799638}
            | {35: 9.556212353964683e-05, 63: 3.068925988914511e-07},
        ),
        (
            128,
            32.0,
            {28: LAST_KEPT, 29: 0.002118406996779608, 34: 9.70828780262767e-05}
            | {35: 2.3890530884911708e-05, 63: 7.672314972286278e-08},
        ),
        (
            64,
            32.0,
            {14: LAST_KEPT, 15: 0.001290547928209264, 17: 9.70828780262767e-05}
            | {18: 1.9461638184831125e-05, 31: 9.418306725434909e-08},
        ),
    ],
    ids=["3.1", "3.2 3B", "3.2 1B"],
)
def test_llama_3_1_frequencies_are_scaled(
    head_dim: int, factor: float, expected: dict[int, float]
) -> None:
    found = frequencies(head_dim, THETA, RopeScaling("llama3", factor))

    assert found.shape == (head_dim // 2,)
    for index, value in expected.items():
        assert found[index].item() == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(
    "scaling",
    [
        RopeScaling("linear", 4.0),
        RopeScaling("llama3", 8.0),
        RopeScaling("llama3", 16.0, high_freq_factor=2.0, original_context=4096),
    ],
    ids=["linear", "llama3", "other numbers"],
)
def test_frequencies_are_those_of_transformers(scaling: RopeScaling) -> None:
    from llamakit.checkpoint.rope_scaling import as_config

    config = LlamaConfig(
        hidden_size=256,
        num_attention_heads=4,
        max_position_embeddings=131072,
        rope_parameters={"rope_theta": THETA, **as_config(scaling)},
    )

    expected, _ = ROPE_INIT_FUNCTIONS[scaling.rope_type](config, torch.device("cpu"))

    assert torch.allclose(frequencies(64, THETA, scaling), expected, rtol=1e-6, atol=0)


def test_dynamic_scaling_has_no_effect_within_the_context() -> None:
    assert torch.equal(frequencies(64, THETA, RopeScaling("dynamic", 2.0)), frequencies(64, THETA))


def test_the_last_positions_of_llama_3_1_turn_as_in_the_reference() -> None:
    """Judged by Meta's ``apply_scaling`` and ``precompute_freqs_cis``, pair by pair."""
    head_dim, length = 128, 131072
    positions = torch.tensor([0, 1, 8191, 8192, 65536, length - 1])

    found = rotations(frequencies(head_dim, THETA, RopeScaling("llama3", 8.0)), length, CPU)

    plain = 1.0 / (THETA ** (torch.arange(0, head_dim, 2)[: head_dim // 2].float() / head_dim))
    scaled = torch.tensor([reference_scaling(float(it)) for it in plain])
    angles = torch.polar(torch.ones(()), torch.outer(positions.float(), scaled))
    torch.testing.assert_close(
        torch.view_as_complex(found[positions]), angles, rtol=0, atol=length * 1e-7
    )


def reference_scaling(frequency: float) -> float:
    """Scale as ``apply_scaling`` in the ``models/llama3/model.py`` of Meta's llama-models."""
    factor, low, high, old_context = 8.0, 1.0, 4.0, 8192
    wavelength = 2 * math.pi / frequency
    if wavelength < old_context / high:
        return frequency
    if wavelength > old_context / low:
        return frequency / factor
    smooth = (old_context / wavelength - low) / (high - low)
    return (1 - smooth) * frequency / factor + smooth * frequency
