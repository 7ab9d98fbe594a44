"""``torch`` for tests that also run where it is not installed: there, they are skipped.

Import it with ``from lazy_torch import torch`` in place of ``import torch``. The first use imports
torch. Where there is none, that use skips the test, or the whole file if it is at its top.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import pytest

HAS_TORCH = importlib.util.find_spec("torch") is not None
REASON = "torch is not installed"

needs_torch = pytest.mark.skipif(not HAS_TORCH, reason=REASON)
"""For tests that start programs which need torch."""


class _LazyTorch:
    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # pytest asks all that a file holds for __wrapped__
            raise AttributeError(name)
        if not HAS_TORCH:
            pytest.skip(REASON, allow_module_level=True)
        return getattr(importlib.import_module("torch"), name)


torch = _LazyTorch()
