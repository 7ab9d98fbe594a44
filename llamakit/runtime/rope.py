"""Rotary position embedding, as Meta pairs it: each dimension with its neighbour."""

from __future__ import annotations

import torch


def rotations(head_dim: int, length: int, theta: float, device: torch.device) -> torch.Tensor:
    """Return cosines and sines of every position.

    Args:
        head_dim: D, even.
        length: how many positions.
        theta: the base, 10000 in Llama 2 and 1e6 in Code Llama.
    Returns:
        ``(length, D/2)`` complex64: cosine and sine.
    Source: ``precompute_freqs_cis`` in the reference's ``llama/model.py``.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    frequencies = 1.0 / (theta**exponents)  # (D/2,)
    angles = torch.outer(torch.arange(length, dtype=torch.float32), frequencies)
    return torch.complex(angles.cos(), angles.sin()).to(device)


def rotate(x: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """Turn each pair of neighbours by its position's angle, in float32.

    Args:
        x: ``(B, T, H, D)``.
        rotation: ``(B or 1, T, 1, D/2)``, complex.
    Returns:
        ``(B, T, H, D)``, in the dtype of ``x``.
    """
    pairs = torch.view_as_complex(x.float().view(*x.shape[:-1], -1, 2))  # (B, T, H, D/2)
    return torch.view_as_real(pairs * rotation).flatten(-2).to(x.dtype)
