"""Weights in the layout of the products, and the products.

Shapes: B rows of activations, N outputs, K inputs. Each group of 32 activations is rounded to
8 bits by its own largest value; a group with NaN or infinity in it makes its row NaN.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import torch

from llamakit_x86.library import Weight, instruction_sets, library

if TYPE_CHECKING:
    from llamakit.protocols import RoundedWeight

GROUP = 32
BLOCK = 16
"""How many outputs are computed together; fewer are padded."""

RECORD = {8: 512, 4: 320}
"""Bytes of one group of one block, by bits: of 4 bits with its steps and middles."""


class PackedWeight:
    """A weight in records, as ``csrc/product.h`` describes them.

    Args:
        records: uint8.
        scales: of each output, ``(N,)`` float32 in whole blocks; None where records have theirs.
        shape: ``(N, K)``.
        instructions: a name of ``instruction_sets()``; None: the quickest.
    """

    def __init__(
        self,
        records: torch.Tensor,
        scales: torch.Tensor | None,
        shape: tuple[int, int],
        instructions: str | None = None,
    ) -> None:
        self._held = records, scales
        self._outputs = shape[0]
        sets = instruction_sets()
        self._weight = Weight(
            records=records.data_ptr(),
            scales=None if scales is None else scales.data_ptr(),
            outputs=shape[0],
            inputs=shape[1],
            bits=4 if scales is None else 8,
            instructions=sets[instructions or next(iter(sets))],
        )
        self._place = ctypes.addressof(self._weight)
        self._multiply = library().llamakit_multiply

    @property
    def nbytes(self) -> int:
        """How many bytes it takes."""
        return sum(part.nbytes for part in self._held if part is not None)

    def __call__(self, x: torch.Tensor, /) -> torch.Tensor:
        """``(B, K)`` to ``(B, N)``."""
        if x.dtype == torch.float16:
            return self(x.float()).half()
        x = x.contiguous()
        out = x.new_empty(len(x), self._outputs)
        is_bfloat16 = x.dtype == torch.bfloat16
        places = self._place, x.data_ptr(), out.data_ptr()
        if self._multiply(*places, len(x), is_bfloat16, torch.get_num_threads()):
            raise MemoryError(f"no memory to round {len(x)} rows of activations")
        return out


def pack_int8(
    weight: RoundedWeight, _: torch.dtype, instructions: str | None = None
) -> PackedWeight:
    """Pack a weight in 8 bits; inputs that are no whole group are padded."""
    outputs, inputs = weight.shape
    records = _records(outputs, inputs, 8)
    values = weight.values.contiguous()
    library().llamakit_pack8(values.data_ptr(), outputs, inputs, records.data_ptr())
    scales = torch.zeros(_whole(outputs, BLOCK), dtype=torch.float32)
    scales[:outputs] = weight.scales
    return PackedWeight(records, scales, (outputs, inputs), instructions)


def pack_int4(
    weight: RoundedWeight, _: torch.dtype, instructions: str | None = None
) -> PackedWeight | None:
    """Pack a weight in 4 bits; None where its inputs are no whole groups."""
    outputs, inputs = weight.shape
    if inputs % GROUP:
        return None
    records = _records(outputs, inputs, 4)
    values, scales = weight.values.contiguous(), weight.scales.contiguous()
    places = values.data_ptr(), scales.data_ptr()
    library().llamakit_pack4(*places, outputs, inputs, records.data_ptr())
    return PackedWeight(records, None, (outputs, inputs), instructions)


def _records(outputs: int, inputs: int, bits: int) -> torch.Tensor:
    groups, blocks = _whole(inputs, GROUP) // GROUP, _whole(outputs, BLOCK) // BLOCK
    return torch.empty(blocks * groups * RECORD[bits], dtype=torch.uint8)


def _whole(count: int, size: int) -> int:
    return -(-count // size) * size
