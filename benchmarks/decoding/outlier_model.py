"""A checkpoint that computes the same with channels of activations that are outliers."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from llamakit.api import open_checkpoint, reshard

FOLLOWING = {
    "attention_norm": ("attention.wq", "attention.wk", "attention.wv"),
    "ffn_norm": ("feed_forward.w1", "feed_forward.w3"),
}
"""By norm: the weights whose input it is."""


def make_outlier_model(
    source: Path, folder: Path, *, channels: tuple[int, ...] = (7, 100), times: float = 100
) -> Path:
    """Scale channels of all norms, and divide the columns of the weights that follow.

    Args:
        source: a checkpoint of any format.
        folder: where the new one is written, in Meta's format and float32, as one shard.
    """
    reshard(source, folder, 1, dtype="float32")
    (folder / "checklist.chk").unlink()
    shutil.copy(source.parent / "tokenizer.model", folder)
    file = folder / "consolidated.00.pth"
    weights = torch.load(file, weights_only=True)
    for layer in range(open_checkpoint(folder).params.n_layers):
        for norm, names in FOLLOWING.items():
            weights[f"layers.{layer}.{norm}.weight"][list(channels)] *= times
            for name in names:
                weights[f"layers.{layer}.{name}.weight"][:, list(channels)] /= times
    torch.save(weights, file)
    return folder
