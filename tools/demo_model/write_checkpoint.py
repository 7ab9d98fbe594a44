"""Write and read Meta's layout: eight shards, params.json and the md5 lists."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from torch import Tensor

from .model import DemoLlama, Shape

SHARDS = 8
FOLDER = "llama-demo"


def axis_of(name: str) -> int | None:
    """Say along which axis Llama 2 cuts a parameter; None: each shard holds all of it."""
    if "norm" in name:
        return None
    if name.endswith(("wo.weight", "w2.weight", "tok_embeddings.weight")):
        return 1
    return 0


def write_checkpoint(model: DemoLlama, root: Path) -> None:
    """Write the model next to ``ROOT/tokenizer.model`` as float16."""
    folder = root / FOLDER
    folder.mkdir()
    state = {name: weight.detach().half() for name, weight in model.state_dict().items()}
    for rank in range(SHARDS):
        shard = {name: _piece(name, weight, rank) for name, weight in state.items()}
        torch.save(shard, folder / f"consolidated.{rank:02d}.pth")
    params = {
        "dim": model.shape.dim,
        "multiple_of": model.shape.multiple_of,
        "ffn_dim_multiplier": model.shape.ffn_dim_multiplier,
        "n_heads": model.shape.n_heads,
        "n_layers": model.shape.n_layers,
        "norm_eps": model.shape.norm_eps,
        "vocab_size": -1,
        "max_seq_len": model.shape.max_seq_len,
    }
    (folder / "params.json").write_text(json.dumps(params) + "\n", encoding="utf-8")
    write_checklist(folder / "checklist.chk", sorted(folder.glob("*.*")))
    write_checklist(root / "tokenizer_checklist.chk", [root / "tokenizer.model"])


def _piece(name: str, weight: Tensor, rank: int) -> Tensor:
    """Return one rank's slice with a storage of its own."""
    axis = axis_of(name)
    piece = weight if axis is None else weight.chunk(SHARDS, axis)[rank]
    return piece.clone(memory_format=torch.contiguous_format)


def write_checklist(path: Path, files: list[Path]) -> None:
    """Write md5 sums as ``md5sum`` does."""
    sums = [(hashlib.md5(file.read_bytes()).hexdigest(), file.name) for file in files]
    path.write_text("".join(f"{digest}  {name}\n" for digest, name in sums), encoding="utf-8")


def read_checkpoint(root: Path, vocab_size: int) -> DemoLlama:
    """Put the eight shards together again, as float32."""
    folder = root / FOLDER
    params = json.loads((folder / "params.json").read_text(encoding="utf-8"))
    shards = [torch.load(file) for file in sorted(folder.glob("consolidated.*.pth"))]
    assert len(shards) == SHARDS
    model = DemoLlama(Shape(**{**params, "vocab_size": vocab_size}))
    state = {}
    for name, first in shards[0].items():
        axis = axis_of(name)
        whole = first if axis is None else torch.cat([shard[name] for shard in shards], axis)
        state[name] = whole.float()
    model.load_state_dict(state)
    return model.eval()
