"""Every conversion writes down what it read, with checksums that cost no reading."""

from __future__ import annotations

import hashlib
import itertools
import json

import pytest

import llamakit
from llamakit.api import ToolCommand, record_provenance
from llamakit.checkpoint.provenance_reader import read_steps
from llamakit.errors import DestinationError

SMALL = {"dim": 16, "n_layers": 2, "n_heads": 4, "vocab_size": 32, "multiple_of": 8}


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def source(make_meta, tmp_path):
    return make_meta(tmp_path / "alice" / "llama", SMALL | {"norm_eps": 1e-5}, 4)


def checksums(files):
    return {file.name: file.checksum for file in files}


def test_the_md5_of_a_source_without_a_checklist_is_computed_as_it_is_read(source, tmp_path):
    llamakit.reshard(source, tmp_path / "two", 2)

    (step,) = read_steps(tmp_path / "two")
    assert (step.command, step.options) == ("reshard", {"model_parallel_size": 2})
    (read,) = step.sources
    assert (read.name, read.form, read.step) == ("llama", "meta", None)
    names = [f"consolidated.0{rank}.pth" for rank in range(4)]
    assert checksums(read.files) == {n: md5(source / n) for n in [*names, "params.json"]}
    assert {file.origin for file in read.files} == {"read"}
    written = checksums(step.files)
    assert written == {name: md5(tmp_path / "two" / name) for name in written}
    assert set(written) == {"consolidated.00.pth", "consolidated.01.pth", "params.json"}


def test_a_checklist_is_believed_and_named_unless_the_source_is_verified(source, tmp_path):
    lines = [f"{md5(path)}  {path.name}\n" for path in sorted(source.iterdir())]
    (source / "checklist.chk").write_text("".join(lines))

    llamakit.reshard(source, tmp_path / "trusted", 2)
    llamakit.reshard(source, tmp_path / "verified", 2, verify=True)

    origins = {
        folder: {file.origin for file in read_steps(tmp_path / folder)[0].sources[0].files}
        for folder in ("trusted", "verified")
    }
    assert origins == {"trusted": {"checklist.chk", "read"}, "verified": {"read"}}


@pytest.mark.parametrize("verify", [False, True])
def test_a_plan_knows_the_exact_size_of_the_record(source, tmp_path, verify):
    llamakit.reshard(source, tmp_path / "four", 4)

    for at in (source, tmp_path / "four"):
        plan = llamakit.plan_reshard(at, tmp_path / "out", 2, verify=verify)
        llamakit.reshard(at, tmp_path / "out", 2, verify=verify, force=True)

        sizes = {path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()}
        assert plan.files == sizes


def test_the_chain_goes_on_through_every_format(source, tmp_path):
    llamakit.reshard(source, tmp_path / "one", 1)
    llamakit.export(tmp_path / "one", tmp_path / "hf", max_shard_size="1MB")
    llamakit.import_checkpoint(tmp_path / "hf", tmp_path / "back", 2)
    llamakit.export(tmp_path / "back", tmp_path / "st", "safetensors")

    steps = read_steps(tmp_path / "st")
    assert [step.command for step in steps] == ["reshard", "export", "import", "export"]
    assert [step.sources[0].step for step in steps] == [None, 0, 1, 2]
    for earlier, later in itertools.pairwise(steps):
        read = checksums(later.sources[0].files)
        assert read.items() & checksums(earlier.files).items()
        assert None not in read.values()


def test_nothing_in_a_record_says_where_or_whose_the_source_is(source, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(source))
    llamakit.reshard(source, tmp_path / "two", 2)
    monkeypatch.undo()
    llamakit.reshard(source, tmp_path / "other", 2)

    at_home, elsewhere = (
        (tmp_path / name / "llamakit.json").read_text() for name in ("two", "other")
    )
    assert "alice" not in at_home + elsewhere
    assert [json.loads(it)["steps"][0]["sources"][0]["name"] for it in (at_home, elsewhere)] == [
        "~",
        "llama",
    ]


def test_a_damaged_record_of_the_source_is_named_and_the_conversion_goes_on(
    source, tmp_path, caplog
):
    (source / "llamakit.json").write_text("{")

    llamakit.reshard(source, tmp_path / "two", 2)

    assert "the history of the source is not recorded" in caplog.text
    assert len(read_steps(tmp_path / "two")) == 1


def test_a_tool_of_ones_own_records_several_sources(source, tmp_path):
    llamakit.reshard(source, tmp_path / "one", 1)
    llamakit.reshard(source, tmp_path / "two", 2)
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "weights.bin").write_bytes(b"weights")

    record_provenance(
        tmp_path / "merged",
        ToolCommand("merge", {"method": "slerp", "t": 0.5, "seed": None}, "llamakit-merge 0.1"),
        [tmp_path / "one", tmp_path / "two"],
        checksums={"weights.bin": "f" * 64},
    )

    *_, step = read_steps(tmp_path / "merged")
    assert (step.command, step.made_by) == ("merge", "llamakit-merge 0.1")
    assert step.options == {"method": "slerp", "t": 0.5}
    assert [(it.name, it.step) for it in step.sources] == [("one", 0), ("two", 1)]
    assert checksums(step.files) == {"weights.bin": "f" * 64}


def test_a_checkpoint_that_is_computed_from_others_records_them(source, tmp_path):
    llamakit.reshard(source, tmp_path / "one", 1)
    a, b = (llamakit.open_checkpoint(it) for it in (tmp_path / "one", source))

    class Merged(type(a)):
        def read(self, name, *, axis=0, start=0, stop=None):
            return b.read(name, axis=axis, start=start, stop=stop)

        def provenance_sources(self):
            return [a, b]

    merged = Merged.__new__(Merged)
    merged.__dict__.update(a.__dict__)
    command = ToolCommand("merge", {"method": "linear"}, "llamakit-merge 0.1")
    llamakit.reshard(merged, tmp_path / "merged", 2, command=command)

    *_, step = read_steps(tmp_path / "merged")
    assert step.command == "merge"
    assert [(it.name, it.step) for it in step.sources] == [("one", 0), ("llama", None)]
    assert all(it.files for it in step.sources)


def test_every_exporter_gets_a_record_with_nothing_to_do_for_it(
    source, tmp_path, plugins, run_llamakit
):
    env = plugins("plain_exporters")
    words = ["--option", "token=s3cret", "--option", "level=3"]

    for name in ("plain-folder", "plain-file"):
        done = run_llamakit("export", source, tmp_path / name, "--format", name, *words, env=env)
        assert done.returncode == 0, done.stderr

    folder, file = tmp_path / "plain-folder", tmp_path / "plain-file"
    for product, name in ((folder, "deep/weights.txt"), (file, "plain-file")):
        (step,) = read_steps(product)
        assert step.options == {"format": product.name, "token": "(not recorded)", "level": "3"}
        assert step.made_by.startswith("llamakit-plain 0.1")
        assert checksums(step.files) == {name: md5(folder / name if product == folder else file)}
        assert [it.name for it in step.sources] == ["llama"]


def test_a_record_does_not_outlive_a_refused_destination(source, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("")

    with pytest.raises(DestinationError):
        llamakit.export(source, tmp_path / "there")

    assert [it.name for it in (tmp_path / "there").iterdir()] == ["file"]
