"""Makes ``fsdp-tp.zip`` and ``hf-fsdp.zip``: ``torchrun --nproc-per-node 4 make.py``.

Trained on nothing: the weights are those of ``tiny_model.weights``, and the optimizer has made one
step of length 0, so that its states are there.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from torch import nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))
from tiny_model import PARAMS, huggingface_weights, weights  # noqa: E402


def module_of(tensors):
    """Return a tree of modules whose parameters have these names."""
    root = nn.Module()
    for name, tensor in tensors.items():
        *path, leaf = name.split(".")
        module = root
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = getattr(module, part)
        if len(path) and tensor.ndim == 2:
            parent = root.get_submodule(".".join(path[:-1]))
            linear = nn.Linear(*reversed(tensor.shape), bias=False)
            setattr(parent, path[-1], linear)
            module = linear
        module.register_parameter(leaf, nn.Parameter(tensor.clone()))
    return root


def save(model, folder):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    state, of_optimizer = get_state_dict(model, optimizer)
    saved = {"model": state, "optimizer": of_optimizer, "step": 7}
    checkpoint.save(saved, checkpoint_id=str(folder))


def main():
    torch.distributed.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    model = module_of(weights())
    plan = {"tok_embeddings": ColwiseParallel(), "output": ColwiseParallel()}
    for layer in range(PARAMS["n_layers"]):
        for name in ("attention.wq", "attention.wk", "attention.wv"):
            plan[f"layers.{layer}.{name}"] = ColwiseParallel()
        for name in ("feed_forward.w1", "feed_forward.w3"):
            plan[f"layers.{layer}.{name}"] = ColwiseParallel()
        for name in ("attention.wo", "feed_forward.w2"):
            plan[f"layers.{layer}.{name}"] = RowwiseParallel()
    parallelize_module(model, mesh["tp"], plan)
    fully_shard(model, mesh=mesh["dp"])
    save(model, FOLDER / "fsdp-tp")
    other = module_of(huggingface_weights())
    fully_shard(other, mesh=init_device_mesh("cpu", (4,)))
    save(other, FOLDER / "hf-fsdp")
    if torch.distributed.get_rank() == 0:
        for name in ("fsdp-tp", "hf-fsdp"):
            (FOLDER / name / "params.json").write_text(json.dumps(PARAMS) + "\n", "utf-8")
            shutil.make_archive(str(FOLDER / name), "zip", FOLDER / name)
            shutil.rmtree(FOLDER / name)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
