"""How much is read at a time."""

from dataclasses import replace
from pathlib import Path

from llamakit.convert.batches import batches, largest
from llamakit.convert.moves import Move, Region, Target

STORED = Region(1 << 14, 1 << 10, Path("consolidated.00.pth"))  # 32 MB in bfloat16


def move(region, axis):
    length = (region.rows, region.columns)[axis]
    return Move(
        "output.weight", (region,), axis, (Target(0, length, (0,)),), "bfloat16", "bfloat16"
    )


def test_what_has_to_be_made_is_asked_for_in_smaller_parts():
    made = replace(STORED, path=None)

    for axis in (0, 1):
        assert largest([move(made, axis)]) < 3 << 20 < largest([move(STORED, axis)])
        rows = [(it.reads[0].start, it.reads[0].stop) for it in batches([move(made, axis)])]
        assert rows == [(at, at + 1024) for at in range(0, made.rows, 1024)]
