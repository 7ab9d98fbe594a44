"""The bytes of a file of single tensors, each a zip as ``torch.save`` writes it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from llamakit.checkpoint.file_layout import TensorSpec
from llamakit.checkpoint.pth_writer import PthLayout


class SavedTensorsLayout:
    """A file of which ``saved_tensors`` finds each tensor by its place."""

    needs_crc = True
    head = b""

    def __init__(self, tensors: Sequence[TensorSpec]) -> None:
        """Lay out a file.

        Args:
            tensors: in their order; none shares another's values.

        Raises:
            UnsupportedModelError: a dtype that torch has no class of storages for.
        """
        self.stored = tuple(tensors)
        self._zips = [PthLayout("archive", [tensor], is_dict=False) for tensor in self.stored]
        ends = list(accumulate((it.nbytes for it in self._zips), initial=0))
        self.nbytes = ends[-1]
        self.places = [(at, it.nbytes) for at, it in zip(ends, self._zips, strict=False)]
        """Of each tensor: where its zip begins, and its length, in bytes."""

    def before(self, index: int) -> bytes:
        """Return what its zip begins with."""
        return self._zips[index].head + self._zips[index].before(0)

    def after(self, index: int, crc: int) -> bytes:
        """Return what its zip ends with."""
        return self._zips[index].after(0, crc) + self._zips[index].tail([crc])

    def tail(self, crcs: Sequence[int]) -> bytes:
        """Return nothing: the file ends with the last zip."""
        assert len(crcs) == len(self.stored)
        return b""
