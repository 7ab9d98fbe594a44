"""A download writes down which checksums its files were compared with, and nothing of the link."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from fetching import fetch
from server import Server

import llamakit
from llamakit.checkpoint.provenance_reader import read_steps

REFERENCE = Path(__file__).parents[1] / "data" / "reference-cases"


def test_the_checksums_of_the_checklist_are_recorded_and_verified(folder, server, out):
    fetch(server, out)

    (model,) = out.glob("llama-*")
    (step,) = read_steps(model)
    (source,) = step.sources
    assert (step.command, source.form, source.name) == ("download", "catalog", model.name)
    files = {file.name: file for file in source.files}
    assert set(files) == {path.name for path in model.iterdir()} - {"llamakit.json"}
    for name, file in files.items():
        assert file.checksum == hashlib.md5((model / name).read_bytes()).hexdigest()
    assert files["consolidated.00.pth"].origin == "checklist.chk"
    assert files["checklist.chk"].origin == "read"
    report = llamakit.verify(model)
    assert report.good
    assert any("shards are those of the catalog" in it.sentence for it in report.folders[0].history)


def test_nothing_of_a_signed_link_is_recorded(server, out):
    fetch(server, out)

    (record,) = out.rglob("llamakit.json")
    text = record.read_text()
    assert "127.0.0.1" not in text
    assert "Signature" not in text
    assert "Policy" not in text


def test_a_second_run_writes_the_same_record(server, out):
    fetch(server, out)
    (record,) = out.rglob("llamakit.json")
    first = record.read_bytes()

    record.unlink()
    fetch(server, out)

    assert record.read_bytes() == first


def test_a_record_that_the_server_lists_is_kept_as_it_was_sent(tmp_path, out):
    model = tmp_path / "served" / "llama-2-7b"
    model.parent.mkdir()
    llamakit.reshard(REFERENCE / "mha-mp8", model, 1)
    for name in ("tokenizer.model", "tokenizer_checklist.chk"):
        shutil.copy(REFERENCE / name, model.parent)
    for name in ("LICENSE", "USE_POLICY.md"):
        (model.parent / name).write_text("of a test\n")
    with Server(model.parent) as server:
        fetch(server, out)
        fetch(server, out)  # finds nothing wrong

    assert [step.command for step in read_steps(out / model.name)] == ["reshard"]
    assert llamakit.verify(out / model.name).good
