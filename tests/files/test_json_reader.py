"""JSON of others is read in one place, and what is refused is refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamakit.errors import InvalidJSONError, LlamakitError
from llamakit.files.json_reader import MAX_CONTAINERS, MAX_DEPTH, parse_json, read_json_file


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b'{\n "a": nope}', "Expecting value at line 2, column 7"),
        (b"[" * 100_000, f"nested more than {MAX_DEPTH} deep"),
        (b'{"a":' * 100_000, f"nested more than {MAX_DEPTH} deep"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), f"nested more than {MAX_DEPTH} deep"),
        (b"[" + b"[]," * MAX_CONTAINERS + b"0]", "it has 1000001 lists and objects"),
        (b"9" * 5000, "a number has 5000 digits"),
        (b"1e999", "1e999 is too large a number"),
        (b"[NaN]", "NaN is no JSON"),
        (b"[-Infinity]", "-Infinity is no JSON"),
        (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' is there twice"),
        (rb'"\ud800"', r"a string has a lone surrogate, such as \ud800"),
        (rb'{"x": {"\uDC00": 1}}', "lone surrogate"),
        (b'["a\xff"]', "byte 3 is not UTF-8 text"),
        ('["a\udcff"]', "byte 3 is not UTF-8 text"),
        (b"\xff\xfe{", "byte 0 is not UTF-16-LE text"),
        (b" " * 2000, "it has over 1000 bytes"),
    ],
)
def test_what_is_refused_names_its_source_and_the_place(data: bytes | str, reason: str) -> None:
    with pytest.raises(InvalidJSONError) as caught:
        parse_json(data, "models/params.json", max_nbytes=1000 if data[:1] == b" " else 8 << 20)

    assert str(caught.value).startswith("models/params.json is not JSON (")
    assert reason in str(caught.value)
    assert isinstance(caught.value, LlamakitError)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'\xef\xbb\xbf{"a": [1, 2.0, null]}', {"a": [1, 2.0, None]}),
        (rb'"\ud83d\ude00"', "\U0001f600"),
        (rb'"\\ud800"', r"\ud800"),
        (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, None),
        ("-1e-400", -0.0),
    ],
)
def test_what_is_json_is_read(data: bytes | str, value: object) -> None:
    read = parse_json(data, "x")

    assert value is None or read == value


def test_whole_floats_become_integers_where_asked() -> None:
    read = parse_json(b"[2.0, 2.5, 1e300]", "x", whole_floats=True)

    assert list(map(repr, read)) == ["2", "2.5", "1e+300"]


def test_a_large_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)

    with pytest.raises(InvalidJSONError, match="over 100 bytes"):
        read_json_file(path, max_nbytes=100)
