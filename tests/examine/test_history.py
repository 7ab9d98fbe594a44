"""``inspect --history`` and ``verify`` on the chain from a checklist to a folder."""

from __future__ import annotations

import json

import pytest
from tools_kit import copy_case

import llamakit
import llamakit.api
from llamakit.checkpoint.provenance import format_steps
from llamakit.checkpoint.provenance_reader import read_steps
from llamakit.examine.steps import finish
from llamakit.examine.verify import verify


@pytest.fixture
def chain(tmp_path):
    """Meta's shards with their checklist, the same as two, as a Hugging Face folder, and back."""
    source = copy_case(tmp_path / "root")
    llamakit.reshard(source, tmp_path / "root" / "two", 2)
    llamakit.export(tmp_path / "root" / "two", tmp_path / "root" / "hf")
    llamakit.import_checkpoint(tmp_path / "root" / "hf", tmp_path / "root" / "back")
    return source, tmp_path / "root"


def history(folder):
    (report,) = llamakit.verify(folder).folders
    return report, {kind: sentences(report, kind) for kind in ("fault", "checked", "not checked")}


def sentences(report, kind):
    return "\n".join(it.sentence for it in report.history if it.kind == kind)


def test_history_shows_the_way_from_metas_checklist(chain, run_llamakit):
    source, root = chain

    done = run_llamakit("inspect", "--history", root / "back")
    listed = run_llamakit("inspect", "--history", "--json", root / "back")

    lines = [line for line in done.stdout.splitlines() if line[:1].strip() or line[:7] == "   read"]
    assert [line.strip().split("  ")[0] for line in lines] == [
        "1. reshard --model-parallel-size 2",
        f"read {source.name} (meta)",
        "2. export --format hf",
        "read two (meta), which step 1 wrote",
        "3. import --model-parallel-size 1",
        "read hf (huggingface), which step 2 wrote",
        f"this is what step 3 wrote: {root / 'back'}",
    ]
    assert "73370d75634b6075fbb20d7c40859b1c, of checklist.chk" in done.stdout
    exported = done.stdout.partition("2. export")[2].partition("   wrote")[0]
    assert "tokenizer.model" in exported
    steps = json.loads(listed.stdout)["history"]
    assert steps == json.loads((root / "back" / "llamakit.json").read_text())["steps"]


def test_a_folder_without_a_record_says_so(mha, run_llamakit):
    done = run_llamakit("inspect", "--history", mha)

    assert done.returncode == 0
    assert "has no llamakit.json: what it was made from is not recorded" in done.stdout


def test_the_old_record_is_a_history_of_one_step(mha, run_llamakit):
    old = {"made_by": "llamakit 0.1.0", "from": {"folder": "7b", "form": "meta", "files": []}}
    (mha / "reshard.json").write_text(json.dumps(old | {"embedding_axis": 1}))

    done = run_llamakit("inspect", "--history", mha)

    assert "1. reshard  (llamakit 0.1.0)\n   read 7b (meta)" in done.stdout


def test_verify_follows_a_chain_and_says_what_it_did_not_check(chain):
    source, root = chain

    report, found = history(root / "back")

    assert report.good
    assert f"step 1 (reshard) read {source.name}: 9 checksums are those of" in found["checked"]
    assert "step 2 (export) read two: 4 files are as step 1 (reshard) wrote" in found["checked"]
    assert "that run did not compare the files with them" in found["not checked"]


def test_verify_checks_an_export_by_its_record_alone(chain):
    _, root = chain
    with (root / "hf" / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")

    report, _ = history(root / "hf")

    statuses = {file.name: file.status for file in report.files}
    assert statuses.pop("model.safetensors") == "mismatch"
    assert set(statuses.values()) == {"ok"}
    assert not report.good
    assert not report.not_checked or "md5" not in report.not_checked[0]


def test_a_source_that_was_changed_between_two_steps_is_a_fault(chain, tmp_path):
    _, root = chain
    (root / "two" / "checklist.chk").unlink()
    params = json.loads((root / "two" / "params.json").read_text())
    (root / "two" / "params.json").write_text(json.dumps(params | {"norm_eps": 1e-6}, indent=1))
    llamakit.reshard(root / "two", root / "one", 1)

    report, found = history(root / "one")

    assert not report.good
    assert "whose params.json were no longer as step 1 (reshard) wrote them" in found["fault"]


def test_another_checklist_than_the_recorded_one_is_a_fault(chain):
    source, root = chain
    text = (source / "checklist.chk").read_text()
    (source / "checklist.chk").write_text(text.replace("73370d", "000000"))

    report, found = history(root / "two")

    assert not report.good
    assert "gives consolidated.03.pth another checksum" in found["fault"]


def test_a_source_that_is_gone_or_another_one_is_not_checked(chain, tmp_path):
    source, root = chain
    (root / "two").rename(tmp_path / "alone")
    _, gone = history(tmp_path / "alone")
    (source / "params.json").write_text("{ }")
    (tmp_path / "alone").rename(root / "two")
    _, other = history(root / "two")

    assert "no such folder is next to alone" in gone["not checked"]
    assert "is another one by now: params.json have another size" in other["not checked"]


def test_a_download_is_compared_with_the_catalog(chain):
    _, root = chain
    (step,) = read_steps(root / "two")
    content = json.loads(format_steps([step]))
    (source,) = content["steps"][0]["sources"]
    source |= {"form": "catalog", "name": "llama-2-7b"}
    for name, expected in (("llama-2-7b", "checked"), ("0b", "not checked")):
        source["name"] = name
        (root / "two" / "llamakit.json").write_text(json.dumps(content))
        (root / "two" / "checklist.chk").unlink(missing_ok=True)

        _, found = history(root / "two")

        assert name in found[expected]


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_a_damaged_record_is_named_and_the_model_still_opens(chain, run_llamakit, command):
    _, root = chain
    (root / "two" / "llamakit.json").write_text('{"format": "\\u001b[2J"}')

    done = run_llamakit(command, root / "two")

    assert done.returncode == 1
    assert "its 'format' is" in done.stdout.replace("\n", " ")
    assert "\x1b" not in done.stdout
    assert llamakit.open_checkpoint(root / "two").form == "meta"


class OneFile:
    """A checkpoint that is one file, as a plugin's format may have it."""

    form, nbytes_read = "one file", 0

    def __init__(self, path, like):
        self.path, self.params, self.parameters = path, like.params, like.parameters

    def read(self, name, *, axis=0, start=0, stop=None):
        raise NotImplementedError


def test_a_checkpoint_of_one_file_is_compared_with_the_record_next_to_it(chain):
    _, root = chain
    like, file = llamakit.open_checkpoint(root / "two"), root / "model.one"
    file.write_bytes(b"weights")
    llamakit.api.record_provenance(file, llamakit.api.ToolCommand("export"), [root / "two"])
    toolkit = type("Opener", (), {"open_checkpoint": lambda _, path: OneFile(path, like)})()

    (good,) = finish(verify([file], toolkit)).folders
    file.write_bytes(b"Weights")
    (bad,) = finish(verify([file], toolkit)).folders

    assert [(it.name, it.status) for it in good.files] == [("model.one", "ok")]
    assert good.good
    assert [(it.name, it.status) for it in bad.files] == [("model.one", "mismatch")]
    assert "step 2 (export) read two" in sentences(good, "checked")


def test_options_of_several_values_are_shown_as_they_were_given(mha, tmp_path, run_llamakit):
    edits = llamakit.api.Edits(dtype={"*": "float16", "*norm*": "float32"})
    llamakit.api.edit(mha, tmp_path / "cast", edits)

    done = run_llamakit("inspect", "--history", tmp_path / "cast")

    assert "--dtype *=float16 --dtype *norm*=float32" in done.stdout
