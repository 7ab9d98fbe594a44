"""A link in a source that leads elsewhere is followed only with a word."""

from __future__ import annotations

import shutil

import pytest

from llamakit.api import export, import_checkpoint, reshard

SAID = "is a link to"


@pytest.fixture
def model(reference_cases, tmp_path):
    shutil.copytree(reference_cases / "gqa-mp1", tmp_path / "models" / "model")
    return tmp_path / "models" / "model"


@pytest.fixture
def private(tmp_path):
    path = tmp_path / "passwd"
    path.write_text("root:x:0:0")
    return path


def test_a_tokenizer_that_leads_out_of_the_checkpoint_is_reported(model, private, tmp_path, caplog):
    (model / "tokenizer.model").symlink_to(private)

    reshard(model, tmp_path / "out", 1)

    assert f"{model / 'tokenizer.model'} {SAID} {private}, outside of the checkpoint" in caplog.text


def test_its_checklist_and_params_are_reported_too(model, reference_cases, tmp_path, caplog):
    shutil.copy(reference_cases / "tokenizer.model", model)
    (model / "tokenizer_checklist.chk").symlink_to("/etc/passwd")
    (model / "params.json").rename(tmp_path / "params")
    (model / "params.json").symlink_to(tmp_path / "params")

    reshard(model, tmp_path / "out", 1)

    assert f"tokenizer_checklist.chk {SAID} /etc/passwd" in caplog.text
    assert f"params.json {SAID} {tmp_path / 'params'}" in caplog.text


def test_what_an_export_copies_next_to_the_tokenizer_is_reported(
    model, reference_cases, tmp_path, caplog, private
):
    shutil.copy(reference_cases / "tokenizer.model", model)
    export(model, tmp_path / "hf")
    shutil.move(model / "tokenizer.model", tmp_path)
    shutil.copy(tmp_path / "hf" / "tokenizer.json", model)
    (model / "special_tokens_map.json").symlink_to(private)

    export(model, tmp_path / "out")

    assert f"special_tokens_map.json {SAID} {private}" in caplog.text


def test_the_links_of_metas_layout_and_of_a_hugging_face_cache_are_silent(
    model, reference_cases, tmp_path, caplog
):
    shutil.copy(reference_cases / "tokenizer.model", model.parent)
    (model / "tokenizer.model").symlink_to("../tokenizer.model")
    export(model, tmp_path / "hf")
    snapshot, blobs = (tmp_path / "models--a--b" / it for it in ("snapshots/0123", "blobs"))
    snapshot.mkdir(parents=True)
    shutil.move(tmp_path / "hf", blobs)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")

    import_checkpoint(snapshot, tmp_path / "out")

    assert SAID not in caplog.text
