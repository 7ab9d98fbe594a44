"""Attention of few queries to keys and values in 8 bits, without widening the keys.

Queries are rounded to 15 bits, as two rows of 8, so that the products are those of integers. The
scales of keys are applied to the logits and those of values to the probabilities; values are
widened into one small buffer.
Shapes: K key/value heads, N queries of each, S positions, D head dimension.
"""

from __future__ import annotations

import torch

from llamakit.runtime.kernels.quantized import has_int8_onednn

MOST_QUERIES = 64
"""Of a head: for more, widening costs less than the logits, which are all in memory."""

WIDENED = 8192
"""How many values, of all heads, are widened at once: they stay in a core's cache."""

SPLIT = 256
"""So many positions are summed in one product: several are computed at the same time."""


def is_quick(q: torch.Tensor) -> bool:
    """Return whether ``attend_rounded`` is the quickest way for queries, ``(B, K, N, D)``.

    Without VNNI, products of 8 bits saturate.
    """
    return q.shape[2] <= MOST_QUERIES and q.device.type == "cpu" and has_int8_onednn()


def attend_rounded(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    key_scales: torch.Tensor,
    value_scales: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend to all positions.

    Args:
        q: ``(B, K, N, D)``.
        keys: ``(B, K, S, D)`` int8, as ``values``.
        key_scales: ``(B, K, S, 1)``, as ``value_scales``.
    Returns:
        Attention, ``(B, K, N, D)`` float32, and the logarithm of the sum that it was divided by,
        ``(B, K, N)``.
    """
    rows = zip(q, keys, values, key_scales, value_scales, strict=True)
    out, weight = zip(*(_of_row(*row) for row in rows), strict=True)
    return torch.stack(out), torch.stack(weight)


def _of_row(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    key_scales: torch.Tensor,
    value_scales: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = _products(q.float() * q.shape[-1] ** -0.5, keys)  # (K, N, S)
    logits *= key_scales.transpose(1, 2)
    shares = logits.softmax(-1)
    largest = shares.amax(-1, keepdim=True)
    weight = logits.amax(-1) - largest[..., 0].log()
    scales = value_scales.transpose(1, 2).float()  # (K, 1, S)
    unit = largest * scales.amax(-1, keepdim=True)  # so that 16 bits hold the products
    return _weighted_sum((shares * scales / unit).to(q.dtype), values) * unit, weight


def _products(q: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Multiply queries, ``(K, N, D)``, by keys, ``(K, S, D)`` int8: ``(K, N, S)`` float32."""
    step = (q.abs().amax(-1, keepdim=True) / 127).clamp_min(torch.finfo(q.dtype).tiny)
    high = (q / step).round()
    low = ((q / step - high) * 254).round()
    pair = torch.cat((high, low), 1).clamp_(-127, 127).to(torch.int8)  # (K, 2N, D)
    identity = torch.eye(q.shape[1])
    both = torch.cat((identity, identity / 254), 1)  # (N, 2N)
    products = torch.empty(*q.shape[:2], keys.shape[1])
    integers = torch.empty(keys.shape[1], pair.shape[1], dtype=torch.int32)
    floats = torch.empty(integers.shape)
    for of_head, columns, out in zip(keys, pair, products, strict=True):
        torch._int_mm(of_head, columns.t(), out=integers)  # (S, 2N)
        torch.mm(both, floats.copy_(integers).t(), out=out)
    return products.mul_(step)


def _weighted_sum(shares: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Sum values, ``(K, S, D)`` int8, times shares, ``(K, N, S)``: ``(K, N, D)`` float32."""
    heads, stop, width = values.shape
    most = max(1, WIDENED // heads // SPLIT) * SPLIT
    wide = torch.empty(heads, min(most, stop), width, dtype=shares.dtype)
    whole = stop // SPLIT * SPLIT
    out = (shares[..., whole:] @ values[:, whole:].to(shares.dtype)).float()
    for start in range(0, whole, most):
        used = min(most, whole - start)
        wide[:, :used] = values[:, start : start + used]
        blocks = wide[:, :used].view(heads, -1, SPLIT, width)
        part = shares[..., start : start + used].reshape(heads, shares.shape[1], -1, SPLIT)
        out += (part.transpose(1, 2) @ blocks).sum(1, dtype=torch.float32)
    return out
