"""What is secret about a link is written nowhere, whatever goes wrong."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import subprocess
import sys
import threading
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from download_kit import SIGNATURE, signed_query
from faults import (
    close,
    corrupt,
    echoes,
    gzip,
    hang,
    html,
    ignore_range,
    longer,
    other_etag,
    redirect,
    reset,
    status,
    surplus,
    wrong_range,
)
from fetching import FAST, SHARDS, assert_whole, fetch, steps
from server import Server

from llamakit.errors import LlamakitError

OTHER = "ANOTHER" + SIGNATURE[7:-60][::-1] + "__"
QUERY = signed_query("http://127.0.0.1:*", datetime(2031, 2, 3, tzinfo=timezone.utc), OTHER)
POLICY = QUERY.partition("&")[0].partition("=")[2]
PIECES = {text[at : at + 12].encode() for text in (OTHER, POLICY) for at in range(len(text) - 11)}
"""So short that a part of the link is found too, wherever it was cut."""
RUNS = re.compile(b"[%s]{12,}" % re.escape(bytes(sorted(set(b"".join(PIECES))))))
"""Where a piece can be: a search of megabytes for each of them takes seconds."""

FAULTS = {
    "none": [],
    "connection": [reset(), close(), reset(after=1000), hang(after=1000)],
    "status": [status(500), status(429, retry_after=0), status(404)],
    "ended": [status(403)],
    "pages": [html(), redirect("/login"), redirect(), redirect("https://127.0.0.1:1/*?x")],
    "redirects": [redirect() for _ in range(40)],
    "bytes": [gzip(), wrong_range(), other_etag(), longer(5), surplus(9), ignore_range()],
    "echoes": echoes(),
    "damaged": [corrupt(1000) for _ in range(3)],
}


def secrets_in(text):
    if isinstance(text, str):
        text = text.encode("utf-8", "surrogateescape")
    decoded = unquote_to_bytes(text) if b"%" in text else b""
    runs = b"\0".join(RUNS.findall(text) + RUNS.findall(decoded))
    return [piece for piece in PIECES if piece in runs]


def written_below(*folders):
    """Return everything that is in folders, names included."""
    found = b""
    for folder in folders:
        for path in sorted(Path(folder).rglob("*")):
            found += os.fsencode(path)
            if path.is_file():
                found += path.read_bytes()
    return found


def modes_of_state(folder):
    """Return the modes of what llamakit writes down for itself."""
    files = [*folder.rglob("*.state*"), *folder.rglob(".llamakit-*")]
    return {path.stat().st_mode & 0o777 for path in files}


class Watcher(threading.Thread):
    """Reads the command lines of all processes, again and again."""

    def __init__(self):
        super().__init__(daemon=True)
        self.seen = set()
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(0.02):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    self.seen.add(path.read_bytes())


@pytest.fixture
def watcher():
    watcher = Watcher()
    watcher.start()
    yield watcher
    watcher.over.set()
    watcher.join()


@pytest.fixture
def secret_server(folder):
    with Server(folder, query=QUERY) as server:
        yield server


def schedule(server, faults):
    for fault in faults:
        server.fault(fault, path=SHARDS)
        server.fault(fault, path="/tokenizer.model")
        server.fault(fault, path="*/checklist.chk")
        server.fault(fault, path="/LICENSE")


@pytest.mark.parametrize(
    ("way", "kinds"),
    [
        ("environment", ["connection", "pages", "damaged"]),
        ("file", ["redirects"]),
        ("stdin", ["status", "bytes"]),
        ("json", ["bytes", "ended"]),
        ("file", ["echoes"]),
        ("json", ["echoes", "damaged"]),
    ],
)
def test_the_command_writes_the_secret_nowhere(
    secret_server, isolated, tmp_path, out, watcher, way, kinds
):
    schedule(secret_server, [fault for kind in kinds for fault in FAULTS[kind]])
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    env = {**isolated, "LLAMAKIT_DEBUG": "1", "TMPDIR": str(scratch), "NO_PROXY": "127.0.0.1"}
    words = ["download", "7B", "--output-dir", out, *FAST, "--timeout", "0.4"]
    text = ""
    if way in ("environment", "json"):
        env["LLAMAKIT_URL"] = secret_server.link
        words += ["--json"] if way == "json" else []
    elif way == "file":
        (tmp_path / "link.txt").write_text(secret_server.link)
        words += ["--url-file", tmp_path / "link.txt"]
    else:
        text = secret_server.link
        words += ["--url-file", "-"]

    done = subprocess.run(
        [sys.executable, "-m", "llamakit", *words],
        env=env,
        input=text,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )

    assert done.returncode in (0, 1, 3)
    assert (done.returncode == 0) <= out.exists()
    assert secrets_in(done.stdout + done.stderr) == []
    assert secrets_in(written_below(out, isolated["HOME"], scratch)) == []
    assert modes_of_state(out) <= {0o600}
    assert len(watcher.seen) > 1
    assert secrets_in(b"\0".join(watcher.seen)) == []


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_the_log_records_of_httpx_hold_no_secret(secret_server, out, caplog, faults):
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "httpcore.http11", "httpcore.connection"):
        caplog.set_level(logging.DEBUG, logger=name)
    schedule(secret_server, faults)

    with contextlib.suppress(LlamakitError):
        fetch(secret_server, out, timeout=0.4)

    assert "127.0.0.1" in caplog.text  # they are switched on
    assert secrets_in(caplog.text) == []
    assert secrets_in(" ".join(str(vars(record)) for record in caplog.records)) == []
    assert secrets_in(written_below(out)) == []


def test_a_crash_shows_no_secret(secret_server, isolated, tmp_path, out, plugins):
    """A plugin's bug, in the middle of a download: the traceback is all there is."""
    env = {**isolated, **plugins("models"), "LLAMAKIT_URL": secret_server.link}

    done = subprocess.run(
        [sys.executable, "-m", "llamakit", "download", "7B", "--output-dir", out, "--json"],
        env={**env, "BREAK_JSON": "1", "LLAMAKIT_DEBUG": "1", "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )

    assert "Traceback" in done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert secrets_in(done.stdout + done.stderr) == []


def test_an_error_and_its_traceback_hold_no_secret(secret_server, out):
    import traceback

    secret_server.fault(redirect("https://127.0.0.1:1/*?" + QUERY), times=9)

    with pytest.raises(LlamakitError) as caught:
        fetch(secret_server, out)

    shown = "".join(traceback.format_exception(caught.value))
    assert secrets_in(shown) == []


def test_a_typed_link_is_warned_of_and_kept_nowhere(secret_server, download, out, isolated):
    done = download("--url", secret_server.link)

    assert done.returncode == 0
    assert "--url puts the link into the shell's history and the process list" in done.stderr
    assert secrets_in(done.stdout + done.stderr) == []
    assert secrets_in(written_below(out, isolated["HOME"])) == []
    assert_whole(out, secret_server.folder)


def test_an_etag_that_echoes_the_link_is_not_in_the_state(secret_server, out):
    (echo,) = (fault for fault in echoes() if fault.name == "echo as an ETag")
    secret_server.fault(echo, path=SHARDS, times=99)

    stopped = steps(secret_server, out, limit_rate=500_000)  # so that it is seen unfinished
    next(event for event in stopped if list(out.rglob("*.state")))
    stopped.close()

    (state,) = out.rglob("*.state")
    assert b'"validator": "[secret]' in state.read_bytes()
    assert secrets_in(written_below(out)) == []
    assert modes_of_state(out) == {0o600}
    fetch(secret_server, out)
    assert_whole(out, secret_server.folder)


def test_a_body_that_repeats_the_link_in_small_pieces_is_not_written(secret_server, out):
    (echo,) = (fault for fault in echoes() if fault.name == "echo as a file, in pieces")
    secret_server.fault(echo, path=SHARDS, times=99)

    with pytest.raises(LlamakitError, match="sent parts of the link"):
        fetch(secret_server, out)

    assert secrets_in(written_below(out)) == []


def test_what_is_searched_for_is_found_where_it_is(tmp_path):
    """The search itself: a part of the signature in a file's middle or in a name."""
    (tmp_path / "log").write_bytes(b"\0x" + OTHER[40:90].encode() + b"\n")

    assert secrets_in(written_below(tmp_path))
    assert secrets_in(f"GET /x?{QUERY}")
    assert not secrets_in("Policy=eyJ&Signature=abc&Key-Pair-Id=K15")
