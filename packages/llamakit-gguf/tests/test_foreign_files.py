"""GGUF files of others: no claim makes the reader fail, grow or hang."""

import resource
import struct
from pathlib import Path
from random import Random

import pytest
from gguf_files import add_pieces, write_model
from llamakit_gguf import load_tokenizer, open_checkpoint

import llamakit

HEAD = b"GGUF\3\0\0\0"
HUGE = (1 << 63) - 1


def text(value):
    return struct.pack("<Q", len(value)) + value


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (HEAD, "it ends before its index does"),
        (HEAD + struct.pack("<QQ", HUGE, 0), r"claims \d+ tensors"),
        (HEAD + struct.pack("<QQ", 0, HUGE), r"claims \d+ keys"),
        (HEAD + struct.pack("<QQ", 0, 1) + struct.pack("<Q", HUGE), r"bytes for a name"),
        (HEAD + struct.pack("<QQ", 0, 1) + text(b"\x1b]0;"), "it ends before"),
        (HEAD + struct.pack("<QQ", 0, 1) + text(b"k") + struct.pack("<I", 99), "unknown type 99"),
        (
            HEAD + struct.pack("<QQ", 0, 1) + text(b"k") + struct.pack("<IIQ", 9, 8, HUGE),
            r"claims \d+ values of k",
        ),
        (
            HEAD + struct.pack("<QQ", 0, 1) + text(b"k") + struct.pack("<IIQ", 9, 9, 1),
            "arrays in an array",
        ),
        (
            HEAD + struct.pack("<QQ", 0, 2) + 2 * (text(b"\x1bk") + struct.pack("<IB", 0, 1)),
            r"the key \\x1bk is there twice",
        ),
        (b"GGUF\1\0\0\0" + bytes(16), "is of GGUF's version 1"),
        (b"GGUF\0\0\0\3" + bytes(16), "big-endian"),
    ],
)
def test_what_a_header_claims_is_checked_before_anything_is_made_of_it(tmp_path, data, message):
    (tmp_path / "m.gguf").write_bytes(data)

    with pytest.raises(llamakit.LlamakitError, match=message):
        open_checkpoint(tmp_path / "m.gguf")


@pytest.mark.parametrize("at", ["0", "8", "-1"])
def test_tensors_that_share_bytes_or_leave_the_file_are_refused(tmp_path, at):
    write_model(tmp_path / "m.gguf")
    data = (tmp_path / "m.gguf").read_bytes()
    place = data.index(b"blk.0.attn_norm.weight") + 22 + 4 + 8 + 4
    offset = {"0": 0, "8": struct.unpack_from("<Q", data, place)[0] - 8, "-1": HUGE}[at]
    (tmp_path / "m.gguf").write_bytes(data[:place] + struct.pack("<Q", offset) + data[place + 8 :])

    with pytest.raises(llamakit.LlamakitError, match=r"begins within|ends at byte"):
        open_checkpoint(tmp_path / "m.gguf")


def test_a_file_that_is_cut_off_meanwhile_is_an_error_and_no_crash(tmp_path):
    write_model(tmp_path / "m.gguf")
    checkpoint = open_checkpoint(tmp_path / "m.gguf")
    (tmp_path / "m.gguf").write_bytes((tmp_path / "m.gguf").read_bytes()[:5000])

    with pytest.raises(llamakit.LlamakitError, match=r"ends within blk\.0\.ffn_up\.weight"):
        checkpoint.read("layers.0.feed_forward.w3.weight")


def test_mutated_files_are_read_or_refused_in_a_sentence(tmp_path):
    from gguf_files import mutated

    write_model(tmp_path / "seed.gguf", "Q4_K", change=add_pieces)
    seed, random = (tmp_path / "seed.gguf").read_bytes(), Random(16)
    path = tmp_path / "m.gguf"
    refused = []
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(
        resource.RLIMIT_AS, (pages * resource.getpagesize() + (300 << 20), limits[1])
    )
    try:
        for _ in range(200):
            path.write_bytes(mutated(seed, random, random.choice((100, 1000, 16000))))
            try:
                read_all(path)
            except llamakit.LlamakitError as error:
                refused.append(str(error))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)

    assert 50 < len(refused) < 200
    assert all(it.isprintable() and len(it) < 2000 for it in refused)


def read_all(path):
    checkpoint = open_checkpoint(path)
    if checkpoint is None:
        return
    tokenizer = load_tokenizer(path)
    if tokenizer is not None:
        tokenizer.decode(tokenizer.encode("hi there", bos=True))
        tokenizer.special_ids()
    checkpoint.embedded_files()
    for name in list(checkpoint.parameters)[:3]:
        checkpoint.read(name)
