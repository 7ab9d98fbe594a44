"""The picture: well-formed, nothing in it but text, and readable."""

from xml.etree import ElementTree

import pytest
from llamakit_logit_lens.picture import draw, shown

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = [
    "<script>alert(1)</script>",
    "&amp;",
    '"><image href="x"',
    "\x00\x1b",
    "\u202e",
    "日本語",
]


def result(texts, layers=3):
    cell = [{"token": 7, "text": "x", "probability": 0.75}]
    return {
        "layers": list(range(layers)),
        "positions": [
            {
                "position": number,
                "token": number,
                "text": text,
                "next": 7 if number == 0 else None,
                "cells": [[{**cell[0], "text": text}, *cell]] * layers,
            }
            for number, text in enumerate(texts)
        ],
    }


def test_text_of_a_model_is_never_markup():
    picture = ElementTree.fromstring(draw(result(HOSTILE)))

    tags = {element.tag for element in picture.iter()}
    assert tags == {
        f"{SVG}{name}" for name in ("svg", "style", "path", "text", "g", "title", "rect")
    }
    assert not any(
        "href" in name or name.startswith("on") for it in picture.iter() for name in it.attrib
    )
    assert any("<script>a" in (it.text or "") for it in picture.iter(f"{SVG}text"))


def test_a_cell_for_each_token_and_layer_lies_within_the_picture():
    picture = ElementTree.fromstring(draw(result(["a"] * 5, layers=9)))

    rects = list(picture.iter(f"{SVG}rect"))
    assert len(rects) == 5 * 9
    width, height = float(picture.get("width")), float(picture.get("height"))
    for rect in rects:
        assert float(rect.get("x")) + float(rect.get("width")) <= width
        assert float(rect.get("y")) + float(rect.get("height")) <= height
    assert len({(rect.get("x"), rect.get("y")) for rect in rects}) == len(rects)


def test_only_what_came_next_has_a_border():
    picture = ElementTree.fromstring(draw(result(["a", "b"])))

    marked = [rect.get("y") for rect in picture.iter(f"{SVG}rect") if rect.get("class")]
    assert len(marked) == 3
    assert len(set(marked)) == 1


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        (" the", "␣the"),
        ("\n", "⏎"),
        ("a\tb\r", "a⇥b␍"),
        ("\x00\ud800\u202e\ufffe", "\ufffd" * 4),
        ("\u00a0\u2028", "\ufffd" * 2),
        ("extraordinary", "extraordin…"),
        ("extraordina", "extraordina"),
        ("日本語日本語", "日本語日本…"),
        ("", ""),
    ],
)
def test_a_text_is_drawn_so_that_it_can_be_read(text, drawn):
    assert shown(text) == drawn


def test_no_positions_are_a_picture_too():
    assert ElementTree.fromstring(draw(result([]))).tag == f"{SVG}svg"
