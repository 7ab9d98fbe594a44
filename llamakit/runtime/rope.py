"""Rotary position embedding with Meta's pairing: each even dimension with the next one."""

from __future__ import annotations

import torch


def rotations(head_dim: int, length: int, theta: float, device: torch.device) -> torch.Tensor:
    """Return cosines and sines of every position.

    Args:
        head_dim: D, even.
        length: how many positions.
        theta: the base, 10000 in Llama 2 and 1e6 in Code Llama.
    Returns:
        ``(length, D/2, 2)`` float32: cosine, sine.
    Source: ``precompute_freqs_cis`` in the reference's ``llama/model.py``.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    frequencies = 1.0 / (theta**exponents)  # (D/2,)
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
