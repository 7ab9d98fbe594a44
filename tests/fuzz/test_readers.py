"""No bytes of others make a reader raise, grow, hang or open anything else."""

from __future__ import annotations

from pathlib import Path

import checkpoint_readers
import folder_readers
import grammar_readers
import other_readers
import pytest
from fuzz_kit import Reader, check

READERS = (
    *checkpoint_readers.READERS,
    *folder_readers.READERS,
    *other_readers.READERS,
    *grammar_readers.READERS,
)
NAMES = [reader.name for reader in READERS]


@pytest.mark.parametrize("reader", READERS, ids=NAMES)
def test_mutated_input_is_read_or_refused_in_a_sentence(reader: Reader, tmp_path: Path) -> None:
    check(reader, tmp_path, reader.cases)


@pytest.mark.soak
@pytest.mark.parametrize("reader", READERS, ids=NAMES)
def test_a_million_mutations(reader: Reader, tmp_path: Path) -> None:
    check(reader, tmp_path, 1_000_000)
