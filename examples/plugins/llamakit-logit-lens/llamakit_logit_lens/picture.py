"""The picture: an SVG of tokens (rows) by layers (columns), without scripts."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 92, 34
"""Of a cell, in pixels."""
SIDE, TOP, MARGIN = 128, 78, 16
"""Of the tokens' column, of what is above the cells, and around all."""
LONGEST = 11
"""Columns of a fixed-width font that fit into a cell."""
_STYLE = """
text { font: 12px ui-monospace, Menlo, Consolas, monospace; fill: #1b1f24 }
.title { font: 600 15px system-ui, sans-serif } .note, .layer { font: 12px system-ui, sans-serif }
.cell, .layer { text-anchor: middle } .small { font-size: 10px } .light { fill: #fff }
rect { stroke: #fff } .right { stroke: #c2410c; stroke-width: 2.5 }
"""


def draw(result: Mapping[str, Any]) -> str:
    """Return the picture of what the lens has found.

    Args:
        result: as ``LogitLens.result`` returns it.
    """
    layers, positions = result["layers"], result["positions"]
    width = max(SIDE + len(layers) * WIDTH, 620) + 2 * MARGIN
    height = TOP + len(positions) * HEIGHT + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">',
        f"<style>{_STYLE}</style>",
        '<path fill="#fff" d="M0 0h100000v100000H0z"/>',
        _text("What each layer would say next", MARGIN, MARGIN + 14, "title"),
        _text(
            "likeliest next token and its probability after each layer; the border: it came next",
            *(MARGIN, MARGIN + 34, "note"),
        ),
        _text("token", MARGIN, MARGIN + TOP - 10, "note"),
    ]
    for column, layer in enumerate(layers):
        left = MARGIN + SIDE + column * WIDTH
        parts.append(_text(f"layer {layer}", left + WIDTH // 2, MARGIN + TOP - 10, "layer"))
    for number, position in enumerate(positions):
        parts += _row(position, MARGIN + TOP + number * HEIGHT)
    return "\n".join([*parts, "</svg>", ""])


def _row(position: Mapping[str, Any], top: int) -> Sequence[str]:
    """Return a token's row."""
    label = f"{position['position']:>4} {shown(position['text'])}"
    cells = [
        _cell(likeliest, position["next"], MARGIN + SIDE + column * WIDTH, top)
        for column, likeliest in enumerate(position["cells"])
    ]
    return [_text(label, MARGIN, top + HEIGHT // 2 + 4), *cells]


def _cell(
    likeliest: Sequence[Mapping[str, Any]], following: int | None, left: int, top: int
) -> str:
    """Return a cell: darker where the probability is higher, with the others as a tooltip."""
    first = likeliest[0]
    probability = first["probability"]
    fill = "#" + "".join(f"{round(255 + (end - 255) * probability):02x}" for end in (11, 83, 148))
    middle, light = left + WIDTH // 2, " light" if probability > 0.5 else ""
    border = ' class="right"' if first["token"] == following else ""
    tooltip = "\n".join(f"{it['probability']:7.2%}  {shown(it['text'], 40)}" for it in likeliest)
    box = f'width="{WIDTH - 3}" height="{HEIGHT - 3}" rx="3" fill="{fill}"{border}'
    return (
        f'<g><title>{escape(tooltip)}</title><rect x="{left + 1}" y="{top + 1}" {box}/>'
        + _text(shown(first["text"]), middle, top + 15, f"cell{light}")
        + _text(f"{probability:.0%}", middle, top + 27, f"cell small{light}")
        + "</g>"
    )


def _text(content: str, x: int, y: int, kind: str = "") -> str:
    marked = f' class="{kind}"' if kind else ""
    return f'<text x="{x}" y="{y}" xml:space="preserve"{marked}>{escape(content)}</text>'


def shown(text: str, most: int = LONGEST) -> str:
    """Return a token's text as it is drawn: blanks are visible, and it fits into a cell.

    What has no glyph, or may not be in XML, is shown as a replacement character.
    """
    result, columns = "", 0
    for index, character in enumerate(text):
        columns += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if columns > most - (index < len(text) - 1):
            return f"{result}…"
        result += _visible(character)
    return result


def _visible(character: str) -> str:
    blank = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"}.get(character)
    is_unseen = unicodedata.category(character)[0] in "CZ"
    return blank or ("\ufffd" if is_unseen else character)
