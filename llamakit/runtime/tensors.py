"""Arrays to tensors."""

from __future__ import annotations

from typing import Any

import numpy
import torch


def to_torch(array: numpy.ndarray[Any, Any]) -> torch.Tensor:
    """View an array as a tensor, bfloat16 included; memory is shared.

    Args:
        array: such as ``Checkpoint.read`` returns. One that cannot be written to, such as a mapped
            file's, is copied: torch has no such tensors.
    """
    if not array.flags.writeable:
        array = array.copy()
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(numpy.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)
