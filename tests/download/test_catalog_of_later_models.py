"""Llama 3 and later: other folders on the server than on disk, and checklists with oddities."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace

import pytest
from download_kit import write_random
from fetching import fetch, files_in
from server import Server

from llamakit import verify
from llamakit.cli.main import run
from llamakit.download.catalog import choose, read_catalog
from llamakit.download.link import read_link
from llamakit.errors import DownloadError, LinkExpiredError
from llamakit.plugin_manager.toolkit import default_toolkit


@pytest.fixture(scope="module")
def catalog():
    return read_catalog(default_toolkit().models)


def one(catalog, name):
    (model,) = choose([name], catalog, None)
    return model


def serve(folder, missing=()):
    """Write a folder of one shard, with the checklist that Meta's later models have."""
    folder.mkdir(parents=True)
    lines = []
    for name in ("consolidated.00.pth", "params.json", "tokenizer.model", *missing):
        if name == "params.json":
            (folder / name).write_text("{}")
        else:
            write_random(folder / name, 300_000, seed=name)
        md5 = hashlib.md5((folder / name).read_bytes()).hexdigest()
        lines.append(f"{md5}  ./{name}\n")
    for name in missing:
        (folder / name).unlink()
    (folder / "checklist.chk").write_text("".join(lines))


@pytest.mark.parametrize(
    ("typed", "folder", "shards"),
    [
        ("Llama-3-8B", "8b_pre_trained", 1),
        ("meta-llama/Meta-Llama-3-70B-Instruct", "70b_instruction_tuned", 8),
        ("llama3.1-8b-instruct", "Llama-3.1-8B-Instruct", 1),
        ("Meta-Llama-3.1-70B", "Llama-3.1-70B", 8),
        ("Llama3.1-405B-Instruct:bf16-mp8", "Llama-3.1-405B-Instruct-MP8", 8),
        ("Llama3.1-405B-bf16-mp16", "Llama-3.1-405B-MP16", 16),
        ("Llama3.1-405B", "Llama-3.1-405B", 8),
        ("Llama3.2-3B-Instruct", "Llama-3.2-3B-Instruct", 1),
        ("Llama3.2-1B-Instruct:int4-qlora-eo8", "Llama-3.2-1B-Instruct-QLORA_INT4_EO8", 1),
        (
            "Llama3.2-3B-Instruct-int4-spinquant-eo8",
            "Llama-3.2-3B-Instruct-SpinQuant_INT4_EO8",
            1,
        ),
        ("meta-llama/Llama-3.2-90B-Vision-Instruct", "Llama-3.2-90B-Vision-Instruct", 8),
        ("Llama3.3-70B-Instruct", "Llama-3.3-70B-Instruct", 8),
        ("Llama-4-Maverick-17B-128E-Instruct:fp8", "Llama-4-Maverick-17B-128E-Instruct-FP8", 8),
        ("Llama-Guard-2-8B", "llama-guard-2", 1),
    ],
)
def test_a_model_is_known_by_the_names_of_metas_tool_and_of_the_hub(catalog, typed, folder, shards):
    model = one(catalog, typed)

    assert model.server_folders[0] == folder
    assert model.shards == shards
    assert (model.root_files, model.tokenizer_files) == ((), ())


def test_all_that_a_model_does_not_state_is_marked(catalog):
    stated = [model for model in catalog if "shard_nbytes" not in model.unverified]

    assert len(catalog) > 50
    assert all(model.shard_nbytes for model in stated)
    assert {name for it in catalog for name in it.unverified} <= set(vars(catalog[0]))


def test_the_folder_on_disk_is_metas_tools_and_the_one_on_the_server_the_servers(
    catalog, tmp_path, out
):
    serve(tmp_path / "served" / "Llama-3.1-8B-Instruct")
    model = one(catalog, "Llama3.1-8B-Instruct")

    with Server(tmp_path / "served") as server:
        fetch(server, out, model=model)

    names = ("checklist.chk", "consolidated.00.pth", "params.json", "tokenizer.model")
    assert files_in(out) == [f"Llama3.1-8B-Instruct/{name}" for name in names]
    assert verify(out).good


@pytest.mark.parametrize("there", ["8b_pre_trained", "Llama-3-8B", "Meta-Llama-3-8B"])
def test_a_folder_of_unverified_name_is_found_and_a_resumed_run_finds_it_too(
    catalog, tmp_path, out, there
):
    serve(tmp_path / "served" / there)
    model = one(catalog, "Llama-3-8B")

    with Server(tmp_path / "served") as server:
        fetch(server, out, model=model)
        (out / "Llama-3-8B" / "consolidated.00.pth").unlink()
        fetch(server, out, model=model)

    assert verify(out).good
    tried = [asked.path.split("/")[1] for asked in server.requests if asked.status != 206]
    assert set(tried) <= set(model.server_folders[: model.server_folders.index(there) + 1])


def test_a_link_that_has_expired_is_said_whatever_the_folders_may_be_called(catalog, tmp_path, out):
    serve(tmp_path / "served" / "Llama-3-8B")

    with Server(tmp_path / "served") as server:
        server.revoke()
        with pytest.raises(LinkExpiredError, match=r"refuses Meta-Llama-3-8B/checklist.chk"):
            fetch(server, out, model=one(catalog, "Llama-3-8B"))

    assert len(server.requests) == 3


def test_a_file_of_the_checklist_that_nobody_serves_is_neither_fetched_nor_missed(
    catalog, tmp_path, out, capsys
):
    serve(tmp_path / "served" / "Llama-3.2-3B", missing=("orig_params.json",))

    with Server(tmp_path / "served") as server:
        fetch(server, out, model=one(catalog, "Llama3.2-3B"))

    assert not any("orig_params" in asked.path for asked in server.requests)
    report = verify(out / "Llama3.2-3B")
    statuses = {file.name: file.status for file in report.folders[0].files}
    assert report.good
    assert statuses["orig_params.json"] == "not served"
    assert "4 of 4 MD5s of checklist.chk and llamakit.json are right" in report.folders[0].checked
    assert run(["verify", str(out)]) == 0
    assert "not served" in capsys.readouterr().out


def test_such_a_file_is_checked_where_it_is_there(catalog, tmp_path):
    serve(tmp_path / "Llama3.2-3B", missing=("orig_params.json",))
    (tmp_path / "Llama3.2-3B" / "orig_params.json").write_text("other bytes")

    report = verify(tmp_path / "Llama3.2-3B")

    statuses = {file.name: file.status for file in report.folders[0].files}
    assert statuses["orig_params.json"] == "mismatch"
    assert not report.good


def test_any_other_missing_file_is_still_a_failure(tmp_path):
    serve(tmp_path / "Llama3.2-3B", missing=("extra.json",))

    assert not verify(tmp_path / "Llama3.2-3B").good


def test_a_model_without_a_checklist_is_its_list_of_files(catalog, tmp_path, out):
    folder = tmp_path / "served" / "Prompt-Guard"
    serve(folder)
    model = one(catalog, "Prompt-Guard-86M")
    for name in model.files:
        shutil.copy(folder / "tokenizer.model", folder / name)

    with Server(tmp_path / "served") as server:
        fetch(server, out, model=model)
        assert not any("checklist" in asked.path for asked in server.requests)
        (folder / model.files[1]).unlink()
        shutil.rmtree(out)
        with pytest.raises(DownloadError, match=f"has no Prompt-Guard/{model.files[1]}"):
            fetch(server, out, model=replace(model, server_folders=("Prompt-Guard",)))


def test_a_plan_without_a_link_says_which_sizes_are_not_known(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("LLAMAKIT_URL", raising=False)

    run(["download", "Llama-4-Scout-17B-16E", "--dry-run", "--output-dir", str(tmp_path)])

    said = capsys.readouterr().out
    assert "unknown" in said
    assert "and 8 files of unknown size to fetch" in said


def test_a_link_with_the_host_of_llama_4_is_read(catalog):
    link = read_link("https://llama4.llamameta.net/*?Expires=4000000000&Signature=a&Key-Pair-Id=K")

    assert choose(["Llama-4-Scout-17B-16E", "Llama-Guard-4-12B"], catalog, link)
