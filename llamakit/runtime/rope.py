"""Rotary position embedding with Meta's pairing: each even dimension with the next one."""

from __future__ import annotations

import math

import torch

from llamakit.checkpoint.families import RopeScaling


def frequencies(head_dim: int, theta: float, scaling: RopeScaling | None = None) -> torch.Tensor:
    """Return the angle by which each pair of dimensions turns from one position to the next.

    Args:
        head_dim: D, even.
        theta: the base, 10000 in Llama 2, 500000 in Llama 3 and 1e6 in Code Llama.
        scaling: how the frequencies are scaled; ``dynamic`` has no effect within the context that
            the model was made for.
    Returns:
        ``(D/2,)`` float32.
    Source: ``precompute_freqs_cis`` in the reference's ``llama/model.py``; ``apply_scaling`` in
        the ``models/llama3/model.py`` of Meta's llama-models.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    plain = 1.0 / (theta**exponents)  # (D/2,)
    if scaling is None or scaling.rope_type == "dynamic":
        return plain
    if scaling.rope_type == "linear":
        return plain / scaling.factor
    turns = scaling.original_context * plain / (2 * math.pi)  # of each pair, over the old context
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    # 1 keeps a frequency, 0 divides it; equal factors would leave nothing in between.
    kept = ((turns - low) / (high - low)).clamp(0, 1) if high > low else (turns > high).float()
    return (1 - kept) * plain / scaling.factor + kept * plain


def rotations(frequencies: torch.Tensor, length: int, device: torch.device) -> torch.Tensor:
    """Return cosines and sines of every position.

    Args:
        frequencies: ``(D/2,)``.
        length: how many positions.
    Returns:
        ``(length, D/2, 2)`` float32: cosine, sine.
    """
    angles = torch.outer(torch.arange(length, dtype=torch.float32), frequencies)
    return torch.stack((angles.cos(), angles.sin()), dim=-1).to(device)


def rotate(x: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """Rotate each pair of dimensions by its position's angle, in float32.

    Args:
        x: ``(B, T, H, D)``.
        rotation: ``(B or 1, T, 1, D/2, 2)``.
    Returns:
        ``(B, T, H, D)``, in the dtype of ``x``.
    """
    pairs = x.float().view(*x.shape[:-1], -1, 2)  # (B, T, H, D/2, 2)
    if (
        not torch.compiler.is_compiling()
    ):  # one complex product; torch.compile has no complex numbers
        product = torch.view_as_complex(pairs) * torch.view_as_complex(rotation)
        return torch.view_as_real(product).flatten(-2).to(x.dtype)
    cosine, sine = rotation[..., 0], rotation[..., 1]
    even, odd = pairs[..., 0], pairs[..., 1]
    rotated = torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), dim=-1)
    return rotated.flatten(-2).to(x.dtype)
