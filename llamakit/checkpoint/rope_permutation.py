"""The two orders in which the rows of the query and key projections are stored.

Meta rotates neighbouring rows of a head together, Hugging Face rotates row j with row
``head_dim / 2 + j``. The orders differ within each head only, so heads can be split first.
"""

from __future__ import annotations

import numpy as np

from llamakit.checkpoint.dtypes import Array


def permute_rotary(weight: Array, heads: int) -> Array:
    """Bring the rows of a projection from Meta's order into Hugging Face's.

    Args:
        weight: ``(heads * head_dim, dim)``; any number of whole heads.
        heads: how many heads these rows are.
    Returns:
        The same shape, a copy.
    Source: transformers ``models/llama/convert_llama_weights_to_hf.py``, ``permute``.
    """
    rows, *rest = weight.shape
    paired = weight.reshape(heads, rows // heads // 2, 2, *rest)  # (H, D/2, 2, dim)
    return np.ascontiguousarray(paired.swapaxes(1, 2)).reshape(weight.shape)


def unpermute_rotary(weight: Array, heads: int) -> Array:
    """Bring the rows of a projection from Hugging Face's order into Meta's.

    Args:
        weight: ``(heads * head_dim, dim)``; any number of whole heads.
        heads: how many heads these rows are.
    Returns:
        The same shape, a copy.
    """
    rows, *rest = weight.shape
    halved = weight.reshape(heads, 2, rows // heads // 2, *rest)  # (H, 2, D/2, dim)
    return np.ascontiguousarray(halved.swapaxes(1, 2)).reshape(weight.shape)


def huggingface_rows(start: int, stop: int, head_dim: int) -> Array:
    """Say which of Hugging Face's rows are Meta's rows ``start:stop``.

    Args:
        start: a row in Meta's order; it may be inside a head.
        stop: the row after the last.
        head_dim: rows in one head.
    Returns:
        ``(stop - start,)`` int64.
    """
    head, row = np.divmod(np.arange(start, stop), head_dim)
    pair, half = np.divmod(row, 2)
    return np.asarray(head * head_dim + half * (head_dim // 2) + pair)
