"""Weights in bfloat16 in the layout of the products, and the products.

Shapes: B rows of activations, N outputs, K inputs. Sums are float32. Activations are bfloat16, or
float32 where they are multiplied as such. AMX and AVX-512 BF16 take values below 2 ** -126 for
zero, as their instructions do.
"""

from __future__ import annotations

import ctypes

import torch

from llamakit_x86.library import Weight16, instruction_sets, library

GROUP = 32
BLOCK = 16
"""How many inputs and outputs are stored together; fewer are padded with zeros."""

WIDE = ("avx512", "avx2", "generic")
"""Instruction sets that multiply float32: the first of them multiplies float32 activations."""


class BFloat16Weight:
    """A weight in records, as ``csrc/bfloat16.h`` describes them.

    Args:
        records: bfloat16, whole blocks and groups.
        shape: ``(N, K)``.
        instructions: number of those that are used.
    """

    def __init__(self, records: torch.Tensor, shape: tuple[int, int], instructions: int) -> None:
        self._records = records
        self._outputs = shape[0]
        self._weight = Weight16(
            records=records.data_ptr(),
            outputs=shape[0],
            inputs=shape[1],
            instructions=instructions,
        )
        self._place = ctypes.addressof(self._weight)
        self._multiply = library().llamakit_multiply16

    @property
    def nbytes(self) -> int:
        """How many bytes it takes."""
        return self._records.nbytes

    def __call__(self, x: torch.Tensor, /) -> torch.Tensor:
        """``(B, K)`` to ``(B, N)``."""
        return self._product(x, self._outputs, is_gated=False)

    def gated(self, x: torch.Tensor, /) -> torch.Tensor | None:
        """Return SiLU of the first half of the outputs times the second, ``(B, N/2)``."""
        if self._outputs % (2 * BLOCK):
            return None
        return self._product(x, self._outputs // 2, is_gated=True)

    def _product(self, x: torch.Tensor, outputs: int, *, is_gated: bool) -> torch.Tensor:
        x = x.contiguous()
        out = x.new_empty(len(x), outputs)
        is_bfloat16 = x.dtype == torch.bfloat16
        places = self._place, x.data_ptr(), out.data_ptr()
        threads = torch.get_num_threads()
        if self._multiply(*places, len(x), is_bfloat16, is_gated, threads):
            raise MemoryError(f"no memory to pack {len(x)} rows of activations")
        return out


def pack(
    weight: torch.Tensor, dtype: torch.dtype, instructions: str | None = None
) -> BFloat16Weight | None:
    """Pack a weight in bfloat16; None for one of another dtype.

    Args:
        dtype: of the activations.
        instructions: a name of ``instruction_sets(16)``; None: the quickest.
    """
    if weight.dtype != torch.bfloat16:
        return None
    outputs, inputs = weight.shape
    sets = instruction_sets(16)
    names = sets if dtype == torch.bfloat16 else [name for name in sets if name in WIDE]
    weight = weight.contiguous()
    blocks, groups = -(-outputs // BLOCK), -(-inputs // GROUP)
    records = torch.empty(blocks * groups * BLOCK * GROUP, dtype=torch.bfloat16)
    library().llamakit_pack16(weight.data_ptr(), outputs, inputs, records.data_ptr())
    return BFloat16Weight(records, (outputs, inputs), sets[instructions or next(iter(names))])
