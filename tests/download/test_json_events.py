"""``--json`` prints one event a line; the last says how it ended."""

from __future__ import annotations

import json

import pytest
from faults import corrupt, other_etag, status
from fetching import SHARDS

from llamakit.cli.main import run

SHARD = "llama-2-7b/consolidated.00.pth"
FIELDS = {
    "planned": {"files", "free_nbytes", "nbytes_missing"},
    "checked": {"path", "nbytes", "good", "note", "is_page"},
    "progress": {"files"},
    "retrying": {"path", "reason", "seconds"},
    "restarted": {"path", "reason"},
    "arrived": {"path", "nbytes", "md5", "sha256"},
    "failed": {"path", "reason"},
    "link-ended": {"reason"},
    "converted": {"destination", "files"},
    "finished": {"nfiles", "nbytes_fetched", "nrequests", "seconds"},
    "error": {"message", "exit_status"},
}


@pytest.fixture
def events_of(out, capsys, monkeypatch):
    """Run the command in this process; return its events, each with the fields of its kind."""

    def run_json(link, *words, expected=0):
        if link:
            monkeypatch.setenv("LLAMAKIT_URL", link)
        else:
            monkeypatch.delenv("LLAMAKIT_URL", raising=False)
        words = ["download", "7B", "--output-dir", str(out), "--retry-wait", "0.02", *words]
        assert run([*words, "--json"]) == expected
        events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        for event in events:
            assert set(event) == {"event", *FIELDS[event["event"]]}
        return events

    return run_json


def kinds(events):
    return [event["event"] for event in events]


def test_a_good_run_arrives_and_finishes(server, events_of):
    events = events_of(server.link)

    assert kinds(events)[-1] == "finished"
    assert events[-1]["nfiles"] == 5
    assert events[-1]["nbytes_fetched"] == 300_000
    assert events[-1]["nrequests"] == len(server.requests)
    assert {event["path"] for event in events if event["event"] == "arrived"} == {
        *("LICENSE", "USE_POLICY.md", "tokenizer.model", "tokenizer_checklist.chk"),
        *(SHARD, "llama-2-7b/params.json", "llama-2-7b/checklist.chk"),
    }
    planned = events[kinds(events).index("planned")]
    shard = next(file for file in planned["files"] if file["path"] == SHARD)
    assert shard == {
        "path": SHARD,
        "nbytes": 300_000,
        "status": "missing",
        "nbytes_there": 0,
        "note": "",
    }


def test_trouble_is_reported_as_it_happens(server, events_of):
    server.fault(status(500), path="/LICENSE")
    server.fault(corrupt(1000), path=SHARDS)

    events = events_of(server.link)

    assert {"retrying", "restarted", "finished"} <= set(kinds(events))
    assert kinds(events)[-1] == "finished"


@pytest.mark.parametrize("with_link", [True, False])
def test_what_is_there_already_finishes_too(server, events_of, with_link):
    events_of(server.link)

    events = events_of(server.link if with_link else None)

    assert set(kinds(events)) <= {"checked", "planned", "finished"}
    assert events[-1]["event"] == "finished"
    assert (events[-1]["nrequests"], events[-1]["nbytes_fetched"]) == (0, 0)


def test_a_dry_run_ends_with_the_plan(server, events_of):
    events = events_of(server.link, "--dry-run")

    assert kinds(events)[-1] == "planned"
    assert events[-1]["nbytes_missing"] >= 300_000


@pytest.mark.parametrize(
    ("fault", "path", "exit_status", "kind"),
    [
        (corrupt(5), SHARDS, 1, "failed"),
        (status(404), SHARDS, 1, None),
        (status(403), "/LICENSE", 3, None),
        (other_etag(), "/tokenizer.model", 1, None),
    ],
    ids=["damaged", "missing", "ended", "damaged small file"],
)
def test_a_failure_ends_with_its_status(server, events_of, fault, path, exit_status, kind):
    server.fault(fault, path=path, times=9)

    events = events_of(server.link, expected=exit_status)

    assert events[-1]["event"] == "error"
    assert events[-1]["exit_status"] == exit_status
    assert kind is None or kind in kinds(events)


def test_a_link_that_ends_midway_is_an_event(server, events_of):
    server.fault(status(403), path=SHARDS, skip=1)

    events = events_of(server.link, expected=3)

    assert kinds(events).count("link-ended") == 1
    assert kinds(events)[-1] == "error"


@pytest.mark.parametrize(
    ("link", "words", "said"),
    [
        ("http://h/*?Policy=eyJ&Signature=x", (), "no Key-Pair-Id"),
        (None, ("8B",), "no model to download is called '8B'"),
        (None, ("--url-file", "absent"), "absent cannot be read"),
        ("http://127.0.0.1/*", ("--output-dir", "/proc/self/x"), "/proc/self/x"),
    ],
)
def test_words_that_are_off_end_with_an_error_too(events_of, link, words, said):
    with_dir = "--output-dir" in words
    events = events_of(link, *words, expected=1 if with_dir else 2)

    assert kinds(events) == ["error"]
    assert said in events[0]["message"]
