"""Open folders of weights that llamakit quantize has rounded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from llamakit.protocols import Checkpoint


@hookimpl(tryfirst=True)
def open_checkpoint(path: Path) -> Checkpoint | None:
    """Open quantized weights: quantization.json and the .safetensors that it names."""
    from llamakit.checkpoint.quantized_checkpoint import open_quantized

    return open_quantized(path)
