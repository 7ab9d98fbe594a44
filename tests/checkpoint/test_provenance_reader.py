"""llamakit.json as a file of others: what is read of it, and what is refused in one sentence."""

from __future__ import annotations

import json

import pytest

from llamakit.checkpoint.family_detection import read_origin
from llamakit.checkpoint.provenance import (
    MAX_STEPS,
    RecordedFile,
    Source,
    Step,
    format_steps,
    join_histories,
)
from llamakit.checkpoint.provenance_reader import read_steps
from llamakit.checkpoint.provenance_writer import recorded_options
from llamakit.errors import DamagedFileError

DOWNLOAD = Step("download", {}, "llamakit 0.1", (), (RecordedFile("a", 3, "0" * 32),))
RESHARD = Step(
    "reshard",
    {"model_parallel_size": 2},
    "llamakit 0.1",
    (Source("llama", "meta", (RecordedFile("a", 3, "0" * 64, "read"),), 0),),
    (RecordedFile("b", None, None),),
    {"embedding_axis": 1},
)


def test_steps_are_read_as_they_were_written(tmp_path):
    (tmp_path / "llamakit.json").write_bytes(format_steps([DOWNLOAD, RESHARD]))

    assert read_steps(tmp_path) == [DOWNLOAD, RESHARD]
    assert read_origin(tmp_path) == {"embedding_axis": 1}


def test_the_record_of_a_single_file_is_next_to_it(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"")
    (tmp_path / "model.gguf.llamakit.json").write_bytes(format_steps([DOWNLOAD]))

    assert read_steps(tmp_path / "model.gguf") == [DOWNLOAD]


def test_a_record_takes_over_from_the_old_one(tmp_path):
    (tmp_path / "reshard.json").write_text('{"embedding_axis": 0}')
    (tmp_path / "llamakit.json").write_bytes(format_steps([DOWNLOAD, RESHARD]))

    assert read_origin(tmp_path) == {"embedding_axis": 1}


def test_the_steps_that_two_sources_share_are_kept_once():
    other = Step("edit", {"dtype": "x"}, "llamakit 0.1", (Source("llama", "meta", (), 0),), ())

    joined, last = join_histories([[DOWNLOAD, RESHARD], [], [DOWNLOAD, other]])

    assert joined == [DOWNLOAD, RESHARD, other]
    assert last == [1, None, 2]


def test_a_history_that_gets_too_long_is_left_out():
    long = [Step("edit", {"n": number}, "x", (), ()) for number in range(MAX_STEPS)]

    assert join_histories([long, [DOWNLOAD]]) == ([DOWNLOAD], [None, 0])


def damaged(**changes):
    values = json.loads(format_steps([DOWNLOAD, RESHARD]))
    values["steps"][1] |= changes
    return json.dumps(values)


SOURCE = {"name": "a", "form": "meta", "files": []}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "is not JSON (it is empty)"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "it is []; expected an object"),
        ("{}", "its 'format' is absent"),
        ('{"format": "llamakit provenance 9"}', "expected 'llamakit provenance 1'"),
        ('{"format": "llamakit provenance 1", "steps": []}', "expected at least one"),
        (damaged(command=3), "the 'command' of its step 2 is 3"),
        (damaged(command="\x1b[2J"), "printable characters"),
        (damaged(command="a" * 2000), "at most 1000"),
        (damaged(options={"a": {}}), "'a' in the 'options' of its step 2 is {}"),
        (damaged(sources=None), "the 'sources' of its step 2 is absent"),
        (damaged(sources=[SOURCE | {"step": 1}]), "the index of an earlier step"),
        (damaged(sources=[SOURCE | {"step": -1}]), "the index of an earlier step"),
        (damaged(files=[{"name": "../a"}]), "the name of a file in its folder"),
        (damaged(files=[{"name": "/etc/passwd"}]), "the name of a file in its folder"),
        (damaged(files=[{"name": "a", "nbytes": -1}]), "a number of bytes"),
        (damaged(files=[{"name": "a", "nbytes": True}]), "a number of bytes"),
        (damaged(files=[{"name": "a", "md5": "0" * 31}]), "its hex digits"),
        (damaged(files=[{"name": "a"}] * 20_001), "a list of at most 20000"),
    ],
)
def test_what_is_no_record_is_refused_in_one_sentence(tmp_path, content, expected):
    (tmp_path / "llamakit.json").write_text(content)

    with pytest.raises(DamagedFileError) as refused:
        read_steps(tmp_path)

    message = str(refused.value)
    assert expected in message
    assert "remove it to go without" in message.lower()
    assert message.isprintable()
    assert len(message) < 500


def test_options_that_may_be_secret_are_not_recorded():
    recorded = recorded_options(
        {
            "quantize": "q8_0",
            "bits": 8,
            "tied": True,
            "tokenizer": "/home/alice/models/tokenizer.model",
            "api_key": "short",
            "token": "t",
            "url": "https://host/x?Signature=abc",
            "note": "hf_abcdefghijklmnopqrstuvwxyz0123456789",
        }
    )

    assert recorded == {
        "quantize": "q8_0",
        "bits": 8,
        "tied": True,
        "tokenizer": "tokenizer.model",
        **dict.fromkeys(("api_key", "token", "url", "note"), "(not recorded)"),
    }
