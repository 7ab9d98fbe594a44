"""A model is fetched into another format: the bytes of two steps, without the source's."""

from __future__ import annotations

import shutil
import zipfile
from fnmatch import fnmatch
from types import SimpleNamespace

import pytest
from faults import close, corrupt, hang, ignore_range, no_ranges, other_etag, reset, status
from into_kit import DATA, content, fetch, hidden, list_files, serve, session, two_steps
from server import Server

from llamakit.download.catalog import Model
from llamakit.download.events import Arrived, Converted
from llamakit.download.link import read_link
from llamakit.download_into.target_format import read_target_format
from llamakit.errors import (
    DamagedFileError,
    DestinationError,
    DownloadError,
    LinkExpiredError,
    NoSpaceError,
    OptionError,
    UnevenSplitError,
    UnsupportedModelError,
)
from llamakit.plugin_manager.registry import Entry, Registry, Source

SHARDS = "*/consolidated.*"
LLAMA_2, LLAMA_3 = DATA / "reference-cases", DATA / "reference-cases-llama3"
CASES = {
    LLAMA_2 / "gqa-mp1": ("reshard:1", "reshard:2", "hf"),
    LLAMA_2 / "mha-mp8": ("reshard:1", "reshard:2", "reshard:8", "hf", "safetensors"),
    LLAMA_3 / "llama3-gqa-mp1": ("reshard:4", "hf"),
    LLAMA_3 / "llama31-mp8": ("reshard:1", "reshard:2", "reshard:8", "hf"),
    LLAMA_3 / "llama4-moe-mp2": ("reshard:1",),
}
QUICK = {("mha-mp8", "reshard:1"), ("llama31-mp8", "hf"), ("llama4-moe-mp2", "reshard:1")}
"""The others are soak runs."""


def fetched(server, path=SHARDS):
    return sum(one.nbytes for one in server.requests if fnmatch(one.path, path))


@pytest.mark.parametrize(
    ("model", "target"),
    [
        pytest.param(model, to, marks=[] if (model.name, to) in QUICK else pytest.mark.soak)
        for model, targets in CASES.items()
        for to in targets
    ],
    ids=lambda it: it if isinstance(it, str) else it.name,
)
def test_the_bytes_are_those_of_two_steps(tmp_path, out, model, target):
    served = serve(tmp_path / "served", model, model.parent / "tokenizer.model")
    with Server(served) as server:
        events = fetch(server, out, target, model=model.name)

    destination = next(out.iterdir())
    assert content(destination) == two_steps(served, model.name, target, tmp_path / "two")
    assert list(out.iterdir()) == [destination]
    converted = next(event for event in events if isinstance(event, Converted))
    assert {name for name, _, _ in converted.files} == set(content(destination))


@pytest.mark.parametrize("target", ["reshard:2", pytest.param("hf", marks=pytest.mark.soak)])
def test_a_file_that_torch_has_written_is_opened_from_a_few_ranges(tmp_path, out, whole, target):
    served = serve(tmp_path / "served", whole, LLAMA_2 / "tokenizer.model")
    with Server(served) as server:
        fetch(server, out, target, model="llama-2-7b", connections=1)
        asked = [one.range for one in server.requests if fnmatch(one.path, SHARDS)]

    assert content(next(out.iterdir())) == two_steps(served, whole.name, target, tmp_path / "two")
    nbytes = (whole / "consolidated.00.pth").stat().st_size
    index = [(0, 1), (0, 256 << 10), (nbytes - (256 << 10), nbytes)]
    assert asked == [*index, (0, nbytes)]


def test_the_source_is_never_stored(server, out, folder):
    run = session("llama-2-70b", out, "reshard:2")
    most = 0
    for event in run.run(read_link(server.link)):
        if isinstance(event, Arrived):
            files = [path.stat() for path in out.rglob("*") if path.is_file()]
            most = max(most, sum(status.st_blocks * 512 for status in files))

    result = sum(path.stat().st_size for path in run.destination.iterdir())
    assert most < result + 4 * (1 << 20)  # the indexes are 0.5 MB a shard at most
    source = sum(path.stat().st_size for path in (folder / "llama-2-70b").iterdir())
    assert most < result + source


def test_faults_are_mended_as_in_any_download(server, out, expected):
    for fault in (reset(after=300_000), close(after=400_000), hang(after=500_000)):
        server.fault(fault, path=SHARDS)
    for fault in (status(500, retry_after=0), other_etag(), ignore_range()):
        server.fault(fault, path=SHARDS, skip=12)
    server.fault(corrupt(700_000), path="*/consolidated.03.pth")

    fetch(server, out, timeout=0.5)

    assert content(out / "llama-2-70b-mp2") == expected
    assert {one.fault.partition("(")[0] for one in server.requests if one.fault} == {
        *("reset", "close", "hang", "status", "other_etag", "ignore_range", "corrupt"),
    }


def test_a_link_that_ends_midway_is_followed_by_another(server, out, expected, folder):
    server.fault(status(403), path=SHARDS, skip=13)

    with pytest.raises(LinkExpiredError):
        fetch(server, out, connections=1)
    before = fetched(server)
    assert not (out / "llama-2-70b-mp2").exists()
    fetch(server, out)

    assert content(out / "llama-2-70b-mp2") == expected
    shard = (folder / "llama-2-70b" / "consolidated.00.pth").stat().st_size
    assert fetched(server) - before < 3.2 * shard  # the first is there, and all indexes


def test_a_shard_that_is_wrong_twice_is_named_and_nothing_appears(server, out, expected):
    server.fault(corrupt(700_000), path="*/consolidated.02.pth", times=2)

    with pytest.raises(DamagedFileError, match=r"consolidated\.02\.pth: expected MD5 .*, twice"):
        fetch(server, out)
    assert not (out / "llama-2-70b-mp2").exists()
    before = fetched(server, "*/consolidated.00.pth")
    fetch(server, out)

    assert content(out / "llama-2-70b-mp2") == expected
    assert fetched(server, "*/consolidated.00.pth") == before + 1  # the size is asked for again


def test_a_damaged_index_is_fetched_again(server, out, expected):
    server.fault(corrupt(200), path="*/consolidated.01.pth")

    fetch(server, out)

    assert content(out / "llama-2-70b-mp2") == expected


def stopped_after(server, out, nshards):
    """Run until so many shards are verified."""
    events = session("llama-2-70b", out, "reshard:2", connections=1).run(read_link(server.link))
    arrived = 0
    for event in events:
        arrived += isinstance(event, Arrived) and "consolidated" in event.path
        if arrived == nshards:
            break
    events.close()


def test_what_is_fetched_needs_no_link_to_be_completed(server, out, expected):
    stopped_after(server, out, 4)
    before = len(server.requests)

    events = list(session("llama-2-70b", out, "reshard:2").verify_local())

    assert content(out / "llama-2-70b-mp2") == expected
    assert isinstance(events[-2], Converted)
    assert len(server.requests) == before


@pytest.mark.parametrize("nsteps", [pytest.param(1, marks=pytest.mark.soak), 2])
def test_completing_that_was_stopped_is_done_again(server, out, expected, nsteps):
    stopped_after(server, out, 4)
    events = session("llama-2-70b", out, "reshard:2").verify_local()
    for _ in range(nsteps):
        next(events)
    events.close()

    fetch(server, out)

    assert content(out / "llama-2-70b-mp2") == expected


def test_what_is_not_all_fetched_needs_a_link(server, out):
    assert list(session("llama-2-70b", out, "reshard:2").verify_local()) == []
    server.fault(status(403), path="*/consolidated.03.pth", skip=3)  # all but the index
    with pytest.raises(LinkExpiredError):
        fetch(server, out)

    assert list(session("llama-2-70b", out, "reshard:2").verify_local()) == []

    assert not (out / "llama-2-70b-mp2").exists()


def test_where_a_file_of_the_result_has_gone_all_begins_anew(server, out, expected):
    stopped_after(server, out, 1)
    (hidden(out) / "llama-2-70b-mp2" / "consolidated.01.pth").unlink()

    fetch(server, out)

    assert content(out / "llama-2-70b-mp2") == expected


def test_a_destination_is_left_as_it_is_and_nothing_is_requested(server, out):
    (out / "llama-2-70b-mp2").mkdir(parents=True)
    (out / "llama-2-70b-mp2" / "mine").write_text("mine")

    with pytest.raises(DestinationError, match="exists already"):
        fetch(server, out)

    assert server.requests == []
    assert content(out / "llama-2-70b-mp2") == {"mine": b"mine"}


def test_what_another_download_has_begun_is_kept_unless_told(server, out, expected):
    stopped_after(server, out, 1)
    hidden(out).rename(hidden(out, "llama-2-70b-mp4"))

    with pytest.raises(DestinationError, match="another download into reshard:2"):
        fetch(server, out, "reshard:4")
    kept = content(hidden(out, "llama-2-70b-mp4") / "source" / "llama-2-70b")
    fetch(server, out, "reshard:4", repair=True)

    assert "consolidated.00.pth.part.verified" in kept
    assert len(content(out / "llama-2-70b-mp4")) == len(expected) + 2


def test_two_runs_to_one_destination_are_refused(server, out):
    first = session("llama-2-70b", out, "reshard:2").run(read_link(server.link))
    next(first)

    with pytest.raises(DestinationError, match="another llamakit is downloading"):
        fetch(server, out)

    first.close()


def test_a_planted_folder_of_others_is_not_used(server, out):
    hidden(out).mkdir(parents=True)
    hidden(out).chmod(0o777)

    with pytest.raises(DestinationError, match="can be written to by other users"):
        fetch(server, out)


def test_a_planted_link_is_not_followed(server, out, tmp_path):
    out.mkdir()
    (tmp_path / "elsewhere").mkdir()
    hidden(out).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(DestinationError, match="is no folder"):
        fetch(server, out)

    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_too_small_a_disk_is_refused_before_the_shards_are_fetched(server, out, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))

    with pytest.raises(NoSpaceError, match=r"GB more"):
        fetch(server, out)

    assert max(one.nbytes for one in server.requests if "consolidated" in one.path) <= 256 << 10
    assert not (out / "llama-2-70b-mp2").exists()


def test_a_size_that_does_not_fit_leaves_nothing(server, out):
    with pytest.raises(UnevenSplitError):
        fetch(server, out, "reshard:3")

    assert list(out.iterdir()) == []


def test_values_that_are_computed_are_refused_with_what_to_do(tmp_path, out):
    model = LLAMA_3 / "llama4-moe-mp2"
    served = serve(tmp_path / "served", model, LLAMA_3 / "tokenizer.model")

    with (
        Server(served) as server,
        pytest.raises(UnsupportedModelError, match="Download the model, and convert it then"),
    ):
        fetch(server, out, "hf", model=model.name)

    assert list(out.iterdir()) == []


def test_a_server_without_ranges_is_refused_with_what_to_do(server, out):
    server.fault(no_ranges(length=True), path=SHARDS, times=99)

    with pytest.raises(DownloadError, match="download the model without into, and"):
        fetch(server, out)


@pytest.mark.parametrize("other_bytes", [False, True])
def test_a_shard_of_another_version_is_fetched_again(server, out, expected, other_bytes):
    stopped_after(server, out, 1)
    server.touch("llama-2-70b/consolidated.00.pth", other_bytes=other_bytes)

    if other_bytes:
        with pytest.raises((DamagedFileError, DestinationError)):
            fetch(server, out)
        assert not (out / "llama-2-70b-mp2").exists()
    else:
        fetch(server, out)
        assert content(out / "llama-2-70b-mp2") == expected


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("reshard", "such as reshard:2"),
        ("reshard:0", "such as reshard:2"),
        ("reshard:two", "such as reshard:2"),
        ("reshard:-1", "such as reshard:2"),
        ("hf:2", "expected reshard:N, hf or safetensors"),
        ("reshard:²", "such as reshard:2"),
        ("nothing", "expected reshard:N, hf or safetensors"),
        ("", "expected reshard:N, hf or safetensors"),
    ],
)
def test_what_is_no_format_is_refused(out, target, message):
    with pytest.raises(OptionError, match=message):
        session("llama-2-70b", out, target)


def test_an_exporter_that_reads_in_its_own_order_is_refused_by_name():
    exporters = Registry("exporter")
    source = Source("gguf", "llamakit-gguf", "1", builtin=False)
    exporters.add(Entry("exporter", "gguf", object(), "", source))

    with pytest.raises(OptionError, match="llamakit export SRC DST --format gguf"):
        read_target_format("gguf", exporters)


def test_an_index_that_is_not_the_files_own_is_found_before_anything_appears(tmp_path, out, whole):
    served = serve(tmp_path / "served", whole, LLAMA_2 / "tokenizer.model")
    model = served / whole.name
    with zipfile.ZipFile(model / "consolidated.00.pth") as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
        later = next(it for it in archive.infolist() if it.header_offset > largest.header_offset)
    data = bytearray((model / "consolidated.00.pth").read_bytes())
    data[later.header_offset + 28] -= 2  # what pads its values: they begin 2 bytes before
    (model / "consolidated.00.pth").write_bytes(data)
    list_files(model, "checklist.chk", [model / "consolidated.00.pth", model / "params.json"])

    with Server(served) as server:
        with pytest.raises(DamagedFileError, match="in other places than the server said"):
            fetch(server, out, model=whole.name)
        assert not (out / "llama-2-7b-mp2").exists()
        fetch(server, out, model=whole.name, repair=True)

    steps = two_steps(served, whole.name, "reshard:2", tmp_path / "two")
    assert content(out / "llama-2-7b-mp2") == steps


def test_a_model_without_a_checklist_is_converted_as_it_comes(tmp_path, out, whole):
    served = serve(tmp_path / "served", whole, LLAMA_2 / "tokenizer.model")
    (served / whole.name / "checklist.chk").unlink()
    files = ("params.json", "consolidated.00.pth")
    model = Model("7B", (), whole.name, files=files, has_checklist=False)
    with Server(served) as server:
        fetch(server, out, model=model)

    steps = two_steps(served, model, "reshard:2", tmp_path / "two")
    assert content(out / "llama-2-7b-mp2") == steps
