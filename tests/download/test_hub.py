"""Repositories of the hub, through the real huggingface_hub, from a server on loopback."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
from download_kit import write_random
from faults import close, corrupt
from fetching import files_in, kinds
from hub_server import COMMIT, Hub

from llamakit.checkpoint.provenance_reader import read_steps
from llamakit.cli.main import run
from llamakit.download.events import Arrived, Restarted
from llamakit.download.exposure import exposure
from llamakit.download.fetcher import DownloadSettings
from llamakit.download.hub import HubDownload
from llamakit.download.hub_repo import HubLink, parse_repo
from llamakit.download.retry import RetryPolicy
from llamakit.errors import DamagedFileError, DownloadError, MissingExtraError, UsageError

constants = pytest.importorskip("huggingface_hub.constants")
NBYTES = 9_000_000  # above what is fetched with one request
TOKEN = "hf_" + "Zq7Xw9Lm2Kp4Rt6Vb8" * 2
ORIGINAL = [f"Tiny/original/{name}" for name in ("consolidated.00.pth", "params.json")]


@pytest.fixture(autouse=True)
def hub_settings(tmp_path, monkeypatch):
    """A user's settings of the hub's tools, with nothing in them."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("LLAMAKIT_URL", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "repo"
    (folder / "original").mkdir(parents=True)
    write_random(folder / "original" / "consolidated.00.pth", NBYTES)
    (folder / "original" / "params.json").write_text("{}")
    (folder / "README.md").write_text("<!-- a page --><html>")
    (folder / "empty.txt").write_text("")
    write_random(folder / "model.safetensors", 1000, seed="1")
    return folder


@pytest.fixture
def start(folder, monkeypatch):
    """Start hubs of the folder, and point the user's environment at them."""
    started = []

    def start_one(**settings):
        hub = Hub(folder, **settings).__enter__()
        started.append(hub)
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        return hub

    yield start_one
    for hub in started:
        hub.__exit__()


def fetch(out, name="hf:meta-llama/Tiny", include=(), **settings):
    settings = {"retry_policy": RetryPolicy(2, 0.02), "connections": 2} | settings
    download = HubDownload(parse_repo(name), out, DownloadSettings(**settings), include)
    return list(download.run())


def test_the_folder_of_metas_format_is_fetched_and_verified(start, folder, out):
    hub = start()

    events = fetch(out)

    assert files_in(out) == ORIGINAL
    (step,) = read_steps(out / "Tiny" / "original")
    (source,) = step.sources
    assert (source.name, source.form) == ("meta-llama/Tiny", "hub")
    assert source.revision == COMMIT
    known = {file.name: (len(file.checksum), file.origin) for file in source.files}
    assert known["consolidated.00.pth"] == (64, "hub")
    assert known["params.json"] == (32, "read")
    for name in ORIGINAL:
        assert (out / name).read_bytes() == (folder / name.removeprefix("Tiny/")).read_bytes()
    (shard,) = [it for it in events if isinstance(it, Arrived) and it.nbytes == NBYTES]
    assert (shard.md5, len(shard.sha256)) == (None, 64)
    assert hub.requests[0][0].startswith("/api/models/meta-llama/Tiny?")
    assert set(hub.resolved) == {name.removeprefix("Tiny/") for name in ORIGINAL}


@pytest.mark.parametrize(
    ("include", "names"),
    [
        (["*"], ["README.md", "empty.txt", "model.safetensors", *ORIGINAL]),
        (["original/params.json", "*.txt"], ["empty.txt", ORIGINAL[1]]),
        (["original/"], ORIGINAL),
    ],
)
def test_other_files_are_chosen_by_patterns_pages_and_empty_ones_too(start, out, include, names):
    start()

    fetch(out, include=include)
    again = fetch(out, include=include)

    assert files_in(out) == sorted(f"Tiny/{name.removeprefix('Tiny/')}" for name in names)
    assert "Arrived" not in kinds(again)


def test_a_repository_without_such_a_folder_is_fetched_as_a_whole(start, folder, out):
    shutil.rmtree(folder / "original")
    start()

    fetch(out)

    assert files_in(out) == [
        f"Tiny/{name}" for name in ("README.md", "empty.txt", "model.safetensors")
    ]


@pytest.mark.parametrize("revision", ["v1", COMMIT])
def test_a_revision_is_asked_for(start, out, revision):
    hub = start()

    fetch(out, name=f"hf:meta-llama/Tiny@{revision}")

    assert hub.requests[0][0].startswith(f"/api/models/meta-llama/Tiny/revision/{revision}?")


@pytest.mark.parametrize("stored", [True, False], ids=["in its file", "HF_TOKEN"])
def test_the_users_token_goes_to_the_hub_and_to_nobody_else(
    start, out, tmp_path, monkeypatch, capfd, stored
):
    hub = start(token=TOKEN)
    if stored:
        (tmp_path / "token").write_text(TOKEN)
    else:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
    logging.getLogger("httpcore").setLevel(logging.DEBUG)

    fetch(out)
    logging.getLogger("httpcore").setLevel(logging.NOTSET)

    assert {token for _, token in hub.requests} == {f"Bearer {TOKEN}"}
    assert len(hub.cdn.requests) > 0
    assert not any("authorization" in map(str.lower, it.headers) for it in hub.cdn.requests)
    assert TOKEN not in "".join(capfd.readouterr())


def test_what_has_arrived_is_kept_and_not_asked_for_again(start, out):
    hub = start()
    hub.cdn.fault(close(after=3_000_000))
    with pytest.raises(DownloadError, match="run the same command again"):
        fetch(out, retry_policy=RetryPolicy(0, 0.02), connections=1)
    before = hub.cdn.nbytes

    fetch(out)

    assert files_in(out) == ORIGINAL
    assert hub.cdn.nbytes - before < NBYTES - 2_000_000


def test_a_large_file_that_arrives_damaged_is_fetched_once_more(start, out):
    hub = start()
    hub.cdn.fault(corrupt(5000))

    events = fetch(out)

    (restarted,) = [it for it in events if isinstance(it, Restarted)]
    assert "expected SHA-256" in restarted.reason
    assert files_in(out) == ORIGINAL


def test_a_large_file_that_is_always_damaged_is_not_kept(start, out):
    hub = start()
    hub.cdn.fault(corrupt(5000), times=99)

    with pytest.raises(DamagedFileError, match=r"expected SHA-256 .* twice"):
        fetch(out)

    assert not list(out.rglob("*.pth*"))


def test_what_is_wrong_on_disk_is_left_alone_unless_it_is_to_be_repaired(start, out):
    start()
    fetch(out)
    (out / ORIGINAL[1]).write_text("[]")

    with pytest.raises(DamagedFileError, match="expected Git SHA-1"):
        fetch(out)
    fetch(out, repair=True)

    assert (out / ORIGINAL[1]).read_text() == "{}"


@pytest.mark.parametrize("right", [True, False], ids=["right", "damaged"])
def test_the_hubs_cache_is_read_and_not_filled(start, folder, out, tmp_path, right):
    hub = start()
    snapshot = tmp_path / "cache" / "models--meta-llama--Tiny" / "snapshots" / COMMIT / "original"
    snapshot.mkdir(parents=True)
    shutil.copy(folder / "original" / "consolidated.00.pth", snapshot)
    if not right:
        (snapshot / "consolidated.00.pth").write_bytes(b"x" * NBYTES)
    before = files_in(tmp_path / "cache")

    fetch(out)

    assert files_in(out) == ORIGINAL
    assert (out / ORIGINAL[0]).read_bytes() == (folder / "original" / ORIGINAL[0][14:]).read_bytes()
    assert bool(hub.cdn.requests) is not right
    assert files_in(tmp_path / "cache") == before


@pytest.mark.parametrize("has_token", [True, False])
def test_a_gated_repository_says_what_to_do(start, out, monkeypatch, has_token):
    start(gated=True)
    if has_token:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
    advice = "that your token may read" if has_token else "set HF_TOKEN, or run hf auth login"

    with pytest.raises(DownloadError, match=f"accept its terms on the page .*{advice}") as caught:
        fetch(out)

    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "include", "said"),
    [
        ("hf:meta-llama/Tinny", (), "no repository meta-llama/Tinny .* set HF_TOKEN or run hf"),
        ("hf:meta-llama/Tiny@v2", (), "has no revision v2; name a branch"),
        ("hf:meta-llama/Tiny", ("*.gguf",), r"no file that matches \*.gguf; it has README.md, "),
    ],
)
def test_what_is_not_there_is_said(start, out, name, include, said):
    start()

    with pytest.raises(DownloadError, match=said):
        fetch(out, name=name, include=include)

    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("original/mp8/consolidated.00/consolidated-00001-of-00005.pth", "does not join them"),
        ("original/../../outside.json", "expected a printable path inside"),
        ("original/a\\b.json", "expected a printable path inside"),
        ("original/a\x1b[2J.json", "expected a printable path inside"),
    ],
)
def test_files_that_would_not_be_a_checkpoint_are_refused_before_any_is_fetched(
    start, out, name, said
):
    hub = start(names=(name,))

    with pytest.raises(DownloadError, match=said):
        fetch(out)

    assert len(hub.requests) == 1


def test_a_plan_has_all_sizes_and_writes_nothing(start, out, capsys):
    hub = start()

    assert run(["download", "hf:meta-llama/Tiny", "--dry-run", "--output-dir", str(out)]) == 0

    said = capsys.readouterr().out
    assert "Tiny/original/consolidated.00.pth  9 MB" in said
    assert "\n9 MB to fetch" in said
    assert len(hub.requests) == 1
    assert not out.exists()


def test_the_command_prints_the_events_of_any_download(start, out, capsys):
    start()
    words = ["download", "hf:meta-llama/Tiny", "--json", "--output-dir", str(out)]

    assert run(words) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert run([*words, "--include", "*.gguf"]) == 1
    error = json.loads(capsys.readouterr().out.splitlines()[-1])

    assert lines[-1]["event"] == "finished"
    assert lines[-1]["nbytes_fetched"] == NBYTES
    assert {"planned", "arrived"} <= {line["event"] for line in lines}
    assert (error["event"], error["exit_status"]) == ("error", 1)


def test_a_hub_that_does_not_answer_is_asked_again(start, out, monkeypatch):
    start()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")

    with pytest.raises(DownloadError, match=r"no answer from the hub .*3 times in a row"):
        fetch(out)


def test_offline_mode_is_said(out, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE is set"):
        fetch(out)


def test_without_the_extra_the_command_says_what_installs_it(out, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)

    with pytest.raises(MissingExtraError, match=r"huggingface_hub.*\[hub\]"):
        fetch(out)


@pytest.mark.parametrize("name", ["hf:", "hf:Tiny", "hf:../x", "hf:a/..", "hf:a/b/c", "hf:a/b@"])
def test_a_name_of_another_pattern_is_a_usage_error(name):
    with pytest.raises(UsageError, match="expected hf:owner/name"):
        parse_repo(name)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hf:a/b", "7B"], "downloaded alone"),
        (["hf:a/b", "--url-file", "link.txt"], "without a link"),
        (["7B", "--include", "*"], "--include chooses files of a hub's repository"),
    ],
)
def test_words_that_do_not_go_together_end_with_status_2(words, said, capsys):
    assert run(["download", *words]) == 2
    assert said in capsys.readouterr().err


def test_an_endpoint_without_encryption_is_warned_of():
    link = HubLink("mirror.example", None, "http://mirror.example/", "", "a/b", "b", TOKEN)

    assert "can read your token" in exposure(link, "HF_ENDPOINT", "your token")
    assert TOKEN not in repr(link)
