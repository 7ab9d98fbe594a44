"""verify: each status, with a checklist and without, and what only --deep sees."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from lazy_torch import torch
from tools_kit import PAGE, change_shard, copy_case, random_model, write_checklist, write_model

from llamakit import verify
from llamakit.errors import NotACheckpointError


def statuses(report, name):
    (folder,) = (it for it in report.folders if it.path.name == name)
    return {file.name: file.status for file in folder.files}


def only(report):
    (folder,) = report.folders
    return folder


def test_a_whole_download_is_good(mha):
    report = verify(mha.parent)

    assert report.good
    assert statuses(report, "root") == {"tokenizer.model": "ok"}
    assert set(statuses(report, "mha-mp8").values()) == {"ok"}
    assert report.nbytes == sum(
        file.stat().st_size for file in mha.parent.rglob("*") if file.suffix not in ("", ".chk")
    )


def test_every_status_is_reported(mha):
    (mha / "consolidated.01.pth").unlink()
    with (mha / "consolidated.02.pth").open("r+b") as file:
        file.write(b"\0\0")
    (mha / "consolidated.03.pth").write_bytes(PAGE)
    (mha / "consolidated.04.pth").unlink()
    (mha / "consolidated.04.pth").mkdir()
    (mha / "notes.txt").write_text("mine")

    report = verify(mha)

    files = {file.name: file for file in only(report).files}
    assert not report.good
    assert files["consolidated.00.pth"].status == "ok"
    assert files["consolidated.01.pth"].status == "missing"
    assert files["consolidated.02.pth"].status == "mismatch"
    assert files["consolidated.02.pth"].found != files["consolidated.02.pth"].expected
    assert files["consolidated.03.pth"].note == 'an HTML page ("403 Forbidden")'
    assert files["consolidated.04.pth"].status == "unreadable"
    assert (files["notes.txt"].status, files["notes.txt"].good) == ("not listed", True)


def test_a_file_that_is_not_listed_is_no_failure(mha):
    (mha / "LICENSE").write_text("…")

    assert verify(mha).good


def test_an_error_page_that_is_not_listed_is_a_failure(mha):
    (mha / "generation.json").write_bytes(PAGE)

    report = verify(mha)

    assert not report.good
    assert "HTML" in next(it for it in only(report).files if it.name == "generation.json").note


def test_the_files_are_read_each_time(mha):
    path = mha / "consolidated.00.pth"
    before = path.stat()
    assert verify(mha).good

    data = bytearray(path.read_bytes())
    data[50_000] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert statuses(verify(mha), "mha-mp8")["consolidated.00.pth"] == "mismatch"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(PAGE.decode(), "HTML page", id="a page"),
        pytest.param("0" * 32 + "  ../../secret\n", "not inside", id="a name that leaves"),
        pytest.param("nonsense\n", "line 1", id="nonsense"),
    ],
)
def test_a_checklist_that_is_none_is_a_failure(mha, text, words):
    (mha / "checklist.chk").write_text(text)

    report = verify(mha)

    assert not report.good
    assert any(words in fault for fault in only(report).faults)
    assert set(statuses(report, "mha-mp8").values()) == {"not listed"}


def test_a_checklist_of_windows_and_of_binary_mode(mha):
    path = mha / "checklist.chk"
    path.write_bytes(path.read_bytes().replace(b"  ", b" *./").replace(b"\n", b"\r\n"))

    assert verify(mha).good


def test_without_a_checklist_it_says_what_was_checked(mha_unlisted):
    folder = only(verify(mha_unlisted))

    assert folder.good
    assert all(file.found for file in folder.files)
    assert any("no checklist" in sentence for sentence in folder.not_checked)
    assert any("shapes" in sentence for sentence in folder.checked)


def test_a_folder_with_nothing_in_it_is_an_error(tmp_path):
    with pytest.raises(NotACheckpointError):
        verify(tmp_path)


def test_several_paths_and_a_path_twice(mha):
    report = verify(mha, mha.parent, mha)

    assert len(report.folders) == 2
    assert report.good


def test_deep_finds_a_good_model_good(mha_unlisted):
    folder = only(verify(mha_unlisted, deep=True))

    assert folder.good
    checked = " ".join(folder.checked)
    for words in ("CRC-32", "shapes", "tokenizer", "shards hold", "in order", "no NaN"):
        assert words in checked


def test_deep_finds_a_wrong_crc(mha_unlisted):
    path = mha_unlisted / "consolidated.05.pth"
    data = bytearray(path.read_bytes())
    data[60_000] ^= 0x10
    path.write_bytes(data)

    assert "CRC-32" in " ".join(only(verify(mha_unlisted, deep=True)).faults)


def test_deep_finds_params_of_another_model(mha_unlisted):
    params = json.loads((mha_unlisted / "params.json").read_text())
    (mha_unlisted / "params.json").write_text(json.dumps(params | {"n_layers": 4}))

    faults = only(verify(mha_unlisted, deep=True)).faults

    assert any("layers.3.attention" in fault and "missing" in fault for fault in faults)


def test_deep_finds_shards_of_two_models(tmp_path):
    one = write_model(tmp_path / "one", random_model(seed=1), size=2)
    other = write_model(tmp_path / "other", random_model(seed=2), size=2)
    shutil.copy(other / "consolidated.01.pth", one / "consolidated.01.pth")

    faults = only(verify(one, deep=True)).faults

    assert any("of two models" in fault for fault in faults)


def test_deep_finds_swapped_shards(mha_unlisted):
    first, second = (mha_unlisted / f"consolidated.0{number}.pth" for number in (2, 5))
    first.rename(mha_unlisted / "aside")
    second.rename(first)
    (mha_unlisted / "aside").rename(second)

    faults = only(verify(mha_unlisted, deep=True)).faults

    assert sum("swapped or renamed" in fault for fault in faults) == 2


def test_deep_finds_a_shard_that_is_there_twice(mha_unlisted):
    shutil.copy(mha_unlisted / "consolidated.02.pth", mha_unlisted / "consolidated.03.pth")

    assert any("copy of" in fault for fault in only(verify(mha_unlisted, deep=True)).faults)


def test_deep_says_when_shards_do_not_tell_their_order(tmp_path):
    folder = write_model(tmp_path / "model", random_model(), size=2)
    for shard in folder.glob("*.pth"):
        tensors = torch.load(shard, weights_only=True)
        with shard.open("wb") as file:
            torch.save(tensors, file)  # a file has no name for torch, so it writes "archive"

    report = only(verify(folder, deep=True))

    assert report.good
    assert any("order of the shards" in sentence for sentence in report.not_checked)


def test_deep_finds_key_value_copies_that_differ(tmp_path):
    folder = write_model(tmp_path / "model", random_model(), size=4)
    params = json.loads((folder / "params.json").read_text())
    (folder / "params.json").write_text(json.dumps(params | {"n_kv_heads": 2}))

    faults = only(verify(folder, deep=True)).faults  # 4 different heads are no copies of 2

    assert any("same key/value heads" in fault for fault in faults)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_deep_counts_what_is_no_number(tmp_path, dtype):
    folder = write_model(
        tmp_path / "model", {k: v.astype(dtype) for k, v in random_model().items()}, size=2
    )

    def spoil(tensors):
        tensors["layers.1.attention.wq.weight"][3, 4] = float("nan")
        tensors["layers.1.attention.wq.weight"][0, 0] = -float("nan")
        tensors["output.weight"][-1, -1] = float("-inf")

    change_shard(folder / "consolidated.01.pth", spoil)

    report = verify(folder, deep=True)

    assert not report.good
    counts = {it.name: (it.nan, it.infinite, it.files) for it in only(report).non_finite}
    assert counts == {
        "layers.1.attention.wq.weight": (2, 0, ("consolidated.01.pth",)),
        "output.weight": (0, 1, ("consolidated.01.pth",)),
    }


def test_deep_counts_in_a_tensor_that_is_a_view(tmp_path):
    weights = random_model()
    weights["output.weight"][2, 3] = float("nan")
    folder = write_model(tmp_path / "model", weights)

    def transpose(tensors):
        tensors["output.weight"] = tensors["output.weight"].t().contiguous().t()

    change_shard(folder / "consolidated.00.pth", transpose)

    (found,) = only(verify(folder, deep=True)).non_finite
    assert (found.name, found.nan) == ("output.weight", 1)


def test_deep_counts_in_a_huge_tensor_over_many_blocks(tmp_path):
    big = torch.zeros(3000, 4001, dtype=torch.float16)
    big[[0, 1500, 2999], [0, 77, 4000]] = float("nan")
    torch.save({"big": big}, tmp_path / "consolidated.00.pth")
    (tmp_path / "params.json").write_text("{}")

    (found,) = only(verify(tmp_path, deep=True)).non_finite

    assert (found.name, found.nan, found.infinite) == ("big", 3, 0)


def test_deep_finds_a_tokenizer_of_another_model(mha_unlisted, tmp_path):
    folder = write_model(tmp_path / "small", random_model())  # 24 rows
    shutil.copy(mha_unlisted.parent / "tokenizer.model", folder)  # 576 tokens

    assert any("576 tokens" in fault for fault in only(verify(folder, deep=True)).faults)


def test_deep_runs_nothing_of_a_hostile_pickle(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    folder = write_model(tmp_path / "model", random_model())
    torch.save({"norm.weight": Evil()}, folder / "consolidated.00.pth")

    report = verify(folder, deep=True)

    assert not report.good
    assert any("nothing was run" in fault for fault in only(report).faults)
    assert not (tmp_path / "ran").exists()


def test_a_huggingface_folder(tmp_path, mha):
    from safetensors.numpy import load_file, save_file

    from llamakit import export

    export(mha, tmp_path / "hf")
    report = verify(tmp_path / "hf", deep=True)
    assert report.good
    assert any("safetensors" in sentence for sentence in only(report).not_checked)

    tensors = load_file(tmp_path / "hf" / "model.safetensors")
    tensors["model.norm.weight"][7] = np.inf
    save_file(tensors, tmp_path / "hf" / "model.safetensors", metadata={"format": "pt"})

    (found,) = only(verify(tmp_path / "hf", deep=True)).non_finite
    assert (found.name, found.infinite) == ("model.norm.weight", 1)


def test_a_fresh_checklist_is_right(tmp_path):
    folder = write_model(tmp_path / "model", random_model(), size=2)
    write_checklist(folder)

    assert set(statuses(verify(folder), "model").values()) == {"ok"}


def test_a_model_without_a_list_is_read_even_next_to_the_tokenizers_list(tmp_path):
    folder = copy_case(tmp_path / "root", checklist=False)
    for name in ("tokenizer.model", "tokenizer_checklist.chk"):
        shutil.copy(folder.parent / name, folder)

    report = verify(folder)

    found = only(report)
    shards = [file for file in found.files if file.name.startswith("consolidated")]
    assert report.good
    assert all(file.found for file in shards)
    assert any("there is no checklist" in sentence for sentence in found.not_checked)


def test_progress_is_said_with_the_bytes_that_there_are(mha):
    steps = []

    report = verify(mha, progress=steps.append)

    assert {step.total for step in steps} == {report.nbytes}
    assert (steps[0].nbytes, steps[-1].nbytes) == (0, report.nbytes)
