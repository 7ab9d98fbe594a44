"""Choice of the device, and of the dtype to compute in."""

from __future__ import annotations

import torch

from llamakit.errors import UsageError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str, ranks: int = 1, local_rank: int = 0) -> torch.device:
    """Return the device that ``name`` asks for.

    Args:
        name: ``auto`` (CUDA, else MPS, else the CPU), ``cpu``, ``cuda`` or ``mps``.
        ranks: how many ranks share the model.
        local_rank: this rank's number on its machine, which is its GPU's.
    Raises:
        UsageError: this machine has no such device.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if cuda else "mps" if mps and ranks == 1 else "cpu"
    if name == "cuda":
        if not cuda:
            raise UsageError("--device cuda: torch sees no CUDA device here; try --device cpu")
        return _cuda_device(local_rank)
    if name == "mps":
        if not mps:
            raise UsageError("--device mps: torch sees no MPS device here; try --device cpu")
        if ranks > 1:
            raise UsageError("--device mps: one rank only; try --device cpu for several")
        return torch.device("mps")
    if name == "cpu":
        return torch.device("cpu")
    raise UsageError(f"--device {name!r}: expected auto, cpu, cuda or mps")


def pick_dtype(name: str, stored: str, device: torch.device) -> torch.dtype:
    """Return the dtype to compute in.

    Args:
        name: ``auto``, ``float32``, ``bfloat16`` or ``float16``. ``auto`` is the checkpoint's,
            or float32 where the device has no arithmetic of that type.
        stored: the checkpoint's dtype.
    Raises:
        UsageError: no such dtype.
    """
    if name != "auto":
        if name not in DTYPES:
            raise UsageError(f"--dtype {name!r}: expected auto, {', '.join(DTYPES)}")
        return DTYPES[name]
    dtype = DTYPES.get(stored, torch.float32)
    return dtype if _computes(dtype, device) else torch.float32


def _computes(dtype: torch.dtype, device: torch.device) -> bool:
    if dtype == torch.float32:
        return True
    if device.type == "cuda":
        return dtype == torch.float16 or torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "mps":
        return dtype == torch.float16
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())


def _cuda_device(rank: int) -> torch.device:
    count = torch.cuda.device_count()
    if rank >= count:
        raise UsageError(
            f"rank {rank} of this machine has no GPU of its own: there are {count}. "
            f"Use --model-parallel-size {count} or fewer, or --device cpu"
        )
    return torch.device("cuda", rank)
