"""Records real commands on the bundled demo model as a picture of a terminal, docs/images/demo.svg.

python tools/recording.py
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from llamakit import demo

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "demo.svg"
COLUMNS = 92
COMMANDS = (
    ("llamakit verify --deep llama-demo/", 6),
    ("llamakit reshard llama-demo/ demo-mp2/ -n 2", 6),
    ("llamakit diff llama-demo/ demo-mp2/", 2),
    (
        "llamakit generate -m demo-mp2/ --model-parallel-size 2 --temperature 0 "
        '--max-new-tokens 40 "Once upon a time"',
        3,
    ),
    ('echo "How do I verify a checkpoint?" | llamakit chat -m demo-mp2/ --temperature 0', 3),
)
"""What is typed, and how many lines of its output are shown, the last ones."""


def record(folder: Path) -> Console:
    """Run every command in ``folder``; return the console that holds all of it."""
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), highlight=False)  # noqa: SIM115, PTH123
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for command, shown in COMMANDS:
        console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
        )
        lines = [re.sub(r" {2,}", "  ", line).rstrip() for line in done.stdout.splitlines()]
        for line in [line for line in lines if line][-shown:]:
            console.print(Text(line))
        console.print()
    return console


def main() -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for source in (demo.path(), demo.path().parent / "tokenizer.model"):
            (folder / source.name).symlink_to(source)
        svg = record(folder).export_svg(title="llamakit", theme=MONOKAI, unique_id="llamakit")
    fonts = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # they would be asked of another host
    PICTURE.write_text(fonts.sub("", svg), encoding="utf-8")
    print(f"wrote {PICTURE}")


if __name__ == "__main__":
    main()
