"""Copies of a real checkpoint, to be damaged."""

from __future__ import annotations

import pytest
from tools_kit import copy_case


@pytest.fixture
def mha(tmp_path):
    """A copy of the reference case of 8 shards, under a root with its tokenizer."""
    return copy_case(tmp_path / "root")


@pytest.fixture
def mha_unlisted(tmp_path):
    """The same, with no checklist for the model."""
    return copy_case(tmp_path / "root", checklist=False)
