"""Text files are read in the encodings that a byte-order mark says."""

from __future__ import annotations

import base64
import codecs
import json
from pathlib import Path

import pytest

from llamakit.checkpoint.params import read_params
from llamakit.cli.link_prompt import _link_in
from llamakit.files.regular_file import open_regular
from llamakit.files.text import as_utf8, decoded_lines
from llamakit.files.tokenizer_kind import tokenizer_kind
from llamakit.llama.prompts import read_jsonl
from llamakit.tokenizer.rank_file import read_ranks

MARKS = {
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


@pytest.fixture(params=MARKS)
def write(request: pytest.FixtureRequest, tmp_path: Path):
    """Write text in an encoding, with its mark."""

    def write(text: str) -> Path:
        path = tmp_path / "text"
        path.write_bytes(MARKS[request.param] + text.encode(request.param))
        return path

    return write


def test_a_mark_says_the_encoding(write) -> None:
    assert as_utf8(write("naïve\n").read_bytes()) == "naïve\n".encode()


def test_bytes_without_a_mark_are_left_alone() -> None:
    assert as_utf8(b"\xff\x00 no text") == b"\xff\x00 no text"


def test_what_contradicts_its_mark_is_no_text() -> None:
    with pytest.raises(UnicodeDecodeError):
        as_utf8(codecs.BOM_UTF16_LE + b"\x00\xd8\x00")


def test_a_params_json_is_read(write) -> None:
    assert read_params(write('{"dim": 64}\r\n')) == {"dim": 64}


def test_a_file_of_prompts_is_read(write) -> None:
    lines = [json.dumps({"prompt": text}, ensure_ascii=False) for text in ("grüße", "二")]

    with open_regular(write("\r\n".join(lines))) as file, decoded_lines(file) as decoded:
        prompts = [it.text for it in read_jsonl(decoded, "prompts")]

    assert prompts == ["grüße", "二"]


def test_a_file_with_a_link_is_read(write) -> None:
    assert _link_in(str(write("https://example.com/*?x=1"))) == "https://example.com/*?x=1"


def test_a_rank_file_may_have_the_mark_of_an_editor(tmp_path: Path) -> None:
    lines = b"".join(base64.b64encode(bytes([it])) + b" %d\n" % it for it in range(256))
    path = tmp_path / "tokenizer.model"
    path.write_bytes(codecs.BOM_UTF8 + lines)

    assert tokenizer_kind(path) == "ranks"
    assert len(read_ranks(path)) == 256
