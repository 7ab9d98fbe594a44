"""What an edit asks for, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Edits:
    """What is to change in a checkpoint; patterns match the names that the source has."""

    keep: tuple[str, ...] = ()
    """Patterns of the parameters to keep; none: all."""
    drop: tuple[str, ...] = ()
    """Patterns of the parameters to drop, of those that are kept."""
    rename: Mapping[str, str] = field(default_factory=dict)
    """Patterns, and what becomes of the names: each ``*`` is what its wildcard has matched."""
    dtype: str | Mapping[str, str] | None = None
    """What weights are cast to: all, or by pattern, of which the last that matches counts."""
    vocab_size: int | None = None
    """How many rows the embedding and the output layer get."""
    pad_vocab_to_multiple: int | None = None
    """Rows are added until their number is a multiple of this."""
    init: str = "mean"
    """How added rows are made: ``mean`` of the others, ``zero``, or ``normal:STD:SEED``."""
    partial: bool = False
    """Write what is left even if it is no complete model; layers keep their numbers."""

    @property
    def casts(self) -> Mapping[str, str]:
        """The dtypes by pattern."""
        return {"*": self.dtype} if isinstance(self.dtype, str) else self.dtype or {}

    @property
    def resizes(self) -> bool:
        """Whether the number of rows is to change."""
        return self.vocab_size is not None or self.pad_vocab_to_multiple is not None

    def as_options(self) -> dict[str, object]:
        """Return what was asked for, for llamakit.json; the init only where it counts."""
        return {
            "keep": list(self.keep) or None,
            "drop": list(self.drop) or None,
            "rename": [f"{old}={new}" for old, new in self.rename.items()] or None,
            "dtype": [f"{pattern}={dtype}" for pattern, dtype in self.casts.items()] or None,
            "vocab_size": self.vocab_size,
            "pad_vocab_to_multiple": self.pad_vocab_to_multiple,
            "init": self.init if self.resizes else None,
            "partial": self.partial or None,
        }
