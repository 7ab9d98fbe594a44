"""A source that changes while it is read is noticed, and nothing is made of it."""

from __future__ import annotations

import os
import shutil

import pytest

from llamakit.api import diff, export, import_checkpoint, open_checkpoint, reshard, verify
from llamakit.checkpoint.hashing import FilePass, FileRead, read_files
from llamakit.errors import DamagedFileError
from llamakit.examine.diff import diff as diff_steps
from llamakit.examine.steps import finish

CHANGED = r"consolidated.00.pth has changed since it was opened \(it has been written to\)"


@pytest.fixture
def model(reference_cases, tmp_path):
    shutil.copytree(reference_cases / "gqa-mp1", tmp_path / "model")
    shutil.copy(reference_cases / "tokenizer.model", tmp_path / "model")
    return tmp_path / "model"


def rewrite(path):
    """Change the last byte of a file: its size stays."""
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")


def rewriting(path):
    """Return a progress callback that rewrites a file when it is called."""
    return lambda _: rewrite(path)


@pytest.mark.parametrize("verified", [False, True])
def test_a_shard_that_is_written_to_while_it_is_resharded(model, tmp_path, verified):
    progress = rewriting(model / "consolidated.00.pth")
    told = f"{CHANGED}|is not what its checklist says" if verified else CHANGED

    with pytest.raises(DamagedFileError, match=told):
        reshard(model, tmp_path / "out", 1, verify=verified, progress=progress)

    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("name", ["params.json", "tokenizer.model"])
def test_a_small_file_that_is_written_to_meanwhile(model, tmp_path, name):
    with pytest.raises(DamagedFileError, match=f"{name} has changed"):
        reshard(model, tmp_path / "out", 1, progress=rewriting(model / name))

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["hf", "safetensors"])
def test_a_shard_that_is_written_to_while_it_is_exported(model, tmp_path, form):
    progress = rewriting(model / "consolidated.00.pth")

    with pytest.raises(DamagedFileError, match=CHANGED):
        export(model, tmp_path / "out", form, progress=progress)

    assert not (tmp_path / "out").exists()


def test_a_file_that_is_replaced_while_it_is_imported(model, tmp_path):
    export(model, tmp_path / "hf")
    weights = tmp_path / "hf" / "model.safetensors"

    def replace(_):
        shutil.copy2(weights, tmp_path / "copy")
        (tmp_path / "copy").replace(weights)

    with pytest.raises(DamagedFileError, match="another file has its name"):
        import_checkpoint(tmp_path / "hf", tmp_path / "out", progress=replace)

    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_was_opened_before_the_change(model, tmp_path):
    checkpoint = open_checkpoint(model)
    rewrite(model / "consolidated.00.pth")

    with pytest.raises(DamagedFileError, match=CHANGED):
        reshard(checkpoint, tmp_path / "out", 1)
    with pytest.raises(DamagedFileError, match=CHANGED):
        diff(checkpoint, model)


def test_a_shard_that_is_written_to_while_it_is_compared(model, tmp_path):
    shutil.copytree(model, tmp_path / "other")
    steps = diff_steps(open_checkpoint(model), open_checkpoint(tmp_path / "other"))
    next(steps)  # before the first parameter
    next(steps)  # after it

    rewrite(model / "consolidated.00.pth")

    with pytest.raises(DamagedFileError, match=CHANGED):
        finish(steps)


class Rewrites:
    """Sees a file as checksums do, and rewrites it meanwhile."""

    def __init__(self, path):
        self.path = path

    def update(self, *_):
        rewrite(self.path)


def test_a_file_that_is_written_to_while_its_checksum_is_computed(model):
    path = model / "consolidated.00.pth"

    events = list(read_files([FilePass(path, [Rewrites(path)])]))

    (done,) = [event for event in events if isinstance(event, FileRead)]
    with pytest.raises(DamagedFileError, match=CHANGED):
        raise done.error


def test_verify_calls_a_file_that_changes_unreadable(model, monkeypatch):
    from llamakit.examine import verify as module

    class Md5AndRewrite(module.Checksum):
        def update(self, offset, block):
            super().update(offset, block)
            rewrite(model / "params.json")

    monkeypatch.setattr(module, "Checksum", Md5AndRewrite)

    report = verify(model)

    (file,) = [it for it in report.folders[0].files if it.name == "params.json"]
    assert (file.status, report.good) == ("unreadable", False)
    assert "has changed since it was opened" in file.note
