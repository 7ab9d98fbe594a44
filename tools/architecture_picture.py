"""Draws docs/images/architecture.svg: the packages of llamakit, and who may import whom.

python tools/architecture_picture.py
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "architecture.svg"
WIDTH, ROW, GAP, LEFT = 900, 76, 14, 150
LAYERS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("what is typed", (("cli", "one file a command"),)),
    (
        "beside it",
        (
            ("plugins", "built-ins, by kind"),
            ("testing", "for plugin authors"),
            ("serve", "HTTP, the page"),
        ),
    ),
    (
        "from Python",
        (
            ("api", "paths in, values out"),
            ("llama", "a loaded model"),
            ("download_into", "to a format"),
        ),
    ),
    (
        "the work",
        (
            ("runtime", "tokens in, tokens out"),
            ("convert", "executes plans"),
            ("examine", "verify, inspect, diff"),
            ("download", "a link to files"),
        ),
    ),
    ("extension", (("plugin_manager", "finds, checks, guards plugins"),)),
    (
        "the ground",
        (
            ("checkpoint", "bytes on disk"),
            ("tokenizer", "strings, tokens"),
            ("protocols", "and hookspecs, sampling"),
            ("files", "opened with care; errors"),
        ),
    ),
)
STYLE = """
  .box { fill: #7c4dff22; stroke: #7c4dff; stroke-width: 1.5 }
  .name { font: bold 16px sans-serif; fill: #7c4dff }
  .says { font: 12px sans-serif; fill: #808080 }
  .layer { font: italic 13px sans-serif; fill: #808080 }
  .arrow { stroke: #808080; stroke-width: 1.5; fill: none; marker-end: url(#tip) }
"""


def draw() -> str:
    """Return the picture: a row of boxes a layer, imports pointing downwards."""
    height = len(LAYERS) * (ROW + GAP) + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="The packages of llamakit in six layers; imports point downwards">',
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path d="M0 0 8 4 0 8z" fill="#808080"/></marker></defs>',
        f'<path class="arrow" d="M {LEFT - 22} {GAP} V {height - GAP}"/>',
    ]
    for number, (layer, boxes) in enumerate(LAYERS):
        top = GAP + number * (ROW + GAP)
        parts.append(f'<text class="layer" x="8" y="{top + ROW // 2 + 4}">{escape(layer)}</text>')
        width = (WIDTH - LEFT - GAP * len(boxes)) / len(boxes)
        for place, (name, says) in enumerate(boxes):
            left = LEFT + place * (width + GAP)
            middle = left + width / 2
            parts += [
                f'<rect class="box" x="{left:.0f}" y="{top}" width="{width:.0f}" '
                f'height="{ROW}" rx="8"/>',
                f'<text class="name" x="{middle:.0f}" y="{top + 32}" text-anchor="middle">'
                f"{escape(name)}</text>",
                f'<text class="says" x="{middle:.0f}" y="{top + 54}" text-anchor="middle">'
                f"{escape(says)}</text>",
            ]
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
    print(f"wrote {PICTURE}")
