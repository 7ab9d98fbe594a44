"""Rank files that are damaged: one sentence each, whatever was done to them."""

from __future__ import annotations

import base64
import random
from pathlib import Path

import pytest

from llamakit import load_tokenizer
from llamakit.errors import TokenizerError
from llamakit.files.tokenizer_kind import tokenizer_kind
from llamakit.tokenizer import rank_file as module
from llamakit.tokenizer.rank_file import read_ranks


def line(token: bytes, rank: int) -> bytes:
    return base64.b64encode(token) + b" %d\n" % rank


BYTES = [line(bytes([byte]), byte) for byte in range(256)]


def written(tmp_path: Path, *lines: bytes) -> Path:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(b"".join(lines))
    return path


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([*BYTES, b"!!!! 256\n"], r"line 257: b'!!!! 256'; expected the base64 of a token"),
        ([*BYTES, b"YWI 256\n"], r"line 257: b'YWI' is not base64"),
        ([*BYTES, b"YWI= 256 x\n"], r"line 257: b'YWI= 256 x'; expected"),
        ([*BYTES, b"YWI=\n"], r"line 257: b'YWI='; expected"),
        ([*BYTES, b"YWI= -1\n"], r"line 257: b'YWI= -1'; expected"),
        ([*BYTES, line(b"ab", 1 << 20)], r"line 257: rank 1048576; no file has 1048576 of them"),
        ([*BYTES, line(b"ab", 257)], r"rank 256 is missing, of those up to 257"),
        (BYTES[1:], r"rank 0 is missing"),
        ([*BYTES, line(b"ab", 7)], r"line 257: rank 7 a second time"),
        ([*BYTES, line(b"a", 256)], r"the token b'a' has two ranks"),
        ([*BYTES[:65], line(b"ab", 65), *BYTES[66:]], r"no token is the byte 0x41 alone \(1 of 25"),
        ([*BYTES, line(b"x" * 5000, 256)], r"line 257: a token of 5000 bytes; expected 1 to 1024"),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path: Path, lines: list[bytes], said: str) -> None:
    path = written(tmp_path, *lines)

    with pytest.raises(TokenizerError, match=said) as caught:
        load_tokenizer(path)

    assert str(path) in str(caught.value)


def test_ranks_in_any_order_blank_lines_and_carriage_returns_do_no_harm(tmp_path: Path) -> None:
    lines = [it.replace(b"\n", b"\r\n") for it in reversed(BYTES)]

    ranks = read_ranks(written(tmp_path, b"\n", *lines, b"\n\n"))

    assert ranks == [bytes([byte]) for byte in range(256)]


def test_a_file_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_NBYTES", 1000)

    with pytest.raises(TokenizerError, match=r"is over 1000 bytes; no rank file is"):
        read_ranks(written(tmp_path, *BYTES))


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"<html>", b"{}", b"\x0a\x0e\x0a\x05<unk>", b"a b"]
)
def test_other_files_are_no_rank_files(tmp_path: Path, content: bytes) -> None:
    assert tokenizer_kind(written(tmp_path, content)) != "ranks"


def test_whatever_is_done_to_a_file_it_loads_or_is_a_sentence(
    rank_file: Path, tmp_path: Path
) -> None:
    whole = rank_file.read_bytes()
    path = tmp_path / "tokenizer.model"
    random_ = random.Random(7)

    for _ in range(150):
        data = bytearray(whole)
        for _ in range(random_.randint(1, 4)):
            at = random_.randrange(len(data))
            data[at : at + random_.randint(0, 40)] = random_.randbytes(random_.randint(0, 12))
        path.write_bytes(data[: random_.choice([len(data), random_.randrange(len(data))])])
        try:
            tokenizer = load_tokenizer(path)
        except TokenizerError as error:
            assert str(path) in str(error)  # noqa: PT017 - most of them are refused, not all
        else:
            assert tokenizer.decode(tokenizer.encode("naïve 🙂")) == "naïve 🙂"
