"""``llamakit download --into`` as it is typed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from faults import corrupt, echoes, html, other_etag, reset, status
from fetching import SHARDS
from into_kit import content, hidden, session
from server import Server
from test_secret import QUERY, secrets_in, written_below

from llamakit import api
from llamakit.cli.main import run
from llamakit.download.events import Converted
from llamakit.download.link import read_link

RESULT = "llama-2-70b-mp2"
INDEX_NBYTES = 256 << 10
"""What is fetched of a shard at most, to know what is in it."""


@pytest.fixture
def download(out, capsys, monkeypatch):
    """Run the command in this process; return its exit status and what it has printed."""

    def run_words(*words, link=None, model="70B"):
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.delenv("LLAMAKIT_URL", raising=False)
        if link:
            monkeypatch.setenv("LLAMAKIT_URL", link)
        words = ["download", model, *words, "--output-dir", str(out), "--retry-wait", "0.02"]
        return run(words), *capsys.readouterr()

    return run_words


def test_the_command_says_where_the_result_is(server, download, out, expected):
    exit_status, stdout, stderr = download("--into", "reshard:2", link=server.link)

    assert exit_status == 0, stderr
    assert stdout == f"Everything is verified and converted: {out / RESULT}\n"
    assert "consolidated.03.pth: " in stderr
    assert content(out / RESULT) == expected


def test_the_same_command_has_nothing_to_do_once_it_is_done(server, download, out):
    download("--into", "reshard:2", link=server.link)
    before = len(server.requests)

    exit_status, stdout, _ = download("--into", "reshard:2")

    assert exit_status == 0
    assert stdout == f"Everything is verified and converted: {out / RESULT}\n"
    assert len(server.requests) == before


def test_where_the_last_of_several_cannot_be_written_none_is_fetched(server, download, out):
    (out / RESULT).mkdir(parents=True)
    (out / RESULT / "mine").touch()

    exit_status, _, stderr = download("13B,70B", "--into", "reshard:2", link=server.link)

    assert exit_status == 2
    assert f"{out / RESULT} exists already" in stderr
    assert server.requests == []


def test_a_model_that_the_server_lacks_leaves_no_hidden_folder(server, download, out):
    exit_status, _, stderr = download("--into", "hf", link=server.link, model="13B")

    assert exit_status != 0
    assert "has no llama-2-13b/checklist.chk" in stderr
    assert list(out.iterdir()) == []


def test_events_end_with_what_was_written(server, download, out):
    exit_status, stdout, _ = download("--into", "reshard:2", "--json", link=server.link)

    *_, converted, finished = map(json.loads, stdout.splitlines())
    assert exit_status == 0
    assert converted["event"] == "converted"
    assert converted["destination"] == str(out / RESULT)
    assert {"name": "checklist.chk", "md5": None} in [
        {key: file[key] for key in ("name", "md5")} for file in converted["files"]
    ]
    assert finished["event"] == "finished"


def test_a_plan_has_exact_sizes_and_writes_nothing(server, download, out, expected):
    exit_status, stdout, _ = download("--into", "reshard:2", "--plan", "--json", link=server.link)

    plan = json.loads(stdout.splitlines()[-1])
    assert exit_status == 0
    assert {file["name"]: file["nbytes"] for file in plan["files"]} == {
        name: len(data) for name, data in expected.items()
    }
    assert plan["refusals"] == []
    assert not out.exists()
    assert max(one.nbytes for one in server.requests) <= 256 << 10


def test_a_plan_that_cannot_be_executed_ends_with_status_1(server, download, out):
    (out / RESULT).mkdir(parents=True)
    (out / RESULT / "mine").touch()

    exit_status, stdout, _ = download("--into", "reshard:2", "--dry-run", link=server.link)

    assert exit_status == 1
    assert f"refused: {out / RESULT} exists already" in stdout


def test_without_a_link_a_plan_has_the_sizes_of_the_catalog(download):
    exit_status, stdout, _ = download("--into", "hf", "--plan")

    assert exit_status == 0
    assert "about 138 GB to fetch" in stdout


@pytest.mark.parametrize(
    ("words", "model", "message"),
    [
        (("--into", "reshard"), "70B", "such as reshard:2"),
        (("--into", "zip"), "70B", "expected reshard:N, hf or safetensors"),
        (("--into", "hf"), "hf:owner/name", "not the hub"),
    ],
)
def test_usage_errors_end_with_status_2(download, out, words, model, message):
    exit_status, _, stderr = download(*words, link="http://127.0.0.1:9/*", model=model)

    assert exit_status == 2
    assert message in stderr
    assert not out.exists()


def test_a_link_that_has_ended_ends_with_status_3(server, download, out):
    server.fault(status(403), path=SHARDS, skip=13)

    exit_status, _, stderr = download("--into", "reshard:2", link=server.link)

    assert exit_status == 3
    assert "run the same command with a new link" in stderr
    assert hidden(out).exists()


def in_flight(fault):
    """Let a fault wait for a request of a shard's bytes: those for indexes are shorter."""
    return replace(fault, wants=lambda ask: ask.nbytes > INDEX_NBYTES)


def test_the_secret_is_nowhere(folder, download, out, tmp_path):
    faults = [reset(after=INDEX_NBYTES), status(500, retry_after=0), html(), other_etag()]
    faults += [*echoes(), corrupt(700_000)]
    texts, between = [], b""
    with Server(folder, query=QUERY) as server:
        for fault in faults:
            server.fault(in_flight(fault), path=SHARDS)
            server.fault(fault, path=SHARDS, skip=2)
        for _ in faults:
            exit_status, *printed = download("--into", "reshard:2", "--json", link=server.link)
            texts += printed
            if exit_status == 0:
                break
            between = written_below(tmp_path)
        texts += download("--into", "hf", "--plan", link=server.link)[1:]
    long = [one for one in server.requests if one.range and one.range[1] > INDEX_NBYTES]

    assert exit_status == 0
    assert {fault.name for fault in echoes()[:4]} <= {one.fault for one in long}
    for text in (*texts, between, written_below(tmp_path)):
        assert secrets_in(text) == []


def test_a_shard_that_repeats_the_link_is_not_written(folder, download, out):
    (echo,) = (fault for fault in echoes() if fault.name == "echo as a file")
    with Server(folder, query=QUERY) as server:
        server.fault(in_flight(echo), path=SHARDS, times=99)

        exit_status, _, stderr = download("--into", "reshard:2", link=server.link)

    assert exit_status == 1
    assert "sent parts of the link instead of llama-2-70b/consolidated.0" in stderr
    assert hidden(out).exists()
    assert secrets_in(written_below(out)) == []


def test_python_has_it_too(server, out, expected):
    events = []

    finished = api.download_models(
        "70B", link=server.link, output_dir=out, into="reshard:2", on_event=events.append
    )

    assert content(out / RESULT) == expected
    assert [event.destination for event in events if isinstance(event, Converted)] == [
        str(out / RESULT)
    ]
    assert finished.nfiles == 8


def test_only_its_user_can_enter_the_hidden_folder(server, out):
    events = session("llama-2-70b", out, "reshard:2").run(read_link(server.link))
    next(events)

    assert hidden(out).stat().st_mode & 0o777 == 0o700

    events.close()
