"""The notation of the text files: blocks of ``= name``, choices ``[a|b]`` and slots ``{name}``."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from pathlib import Path

TEXT = Path(__file__).parent / "text"
INNERMOST = re.compile(r"\[([^\[\]]*)\]")
SLOT = re.compile(r"\{(\w+)\}")


def read_blocks(name: str) -> dict[str, list[str]]:
    """Return the blocks of a file in ``text/``: name -> its lines, without comments."""
    blocks: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in (TEXT / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("= "):
            lines = blocks.setdefault(line[2:].strip(), [])
        elif line.strip() and not line.startswith("# ") and line != "#":
            lines.append(line)
    return blocks


def expand(template: str, slots: Mapping[str, str], rng: random.Random) -> str:
    """Make every choice of a template at random and fill its slots."""
    while INNERMOST.search(template):
        template = INNERMOST.sub(lambda found: rng.choice(found[1].split("|")), template)
    return SLOT.sub(lambda found: slots[found[1]], template)


def read_choices(name: str) -> dict[str, list[str]]:
    """Return the blocks of a file in ``text/`` whose items are parted by ``|``."""
    return {block: "".join(lines).split("|") for block, lines in read_blocks(name).items()}
