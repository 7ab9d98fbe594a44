"""A download writes down which checksums its files were compared with, and nothing of the link."""

from __future__ import annotations

import hashlib

from fetching import fetch

import llamakit
from llamakit.checkpoint.provenance_reader import read_steps


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
