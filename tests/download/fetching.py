"""A download in this process or by the real command, and what has to be true at its end."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatch

from download_kit import make_model

from llamakit.download.catalog import Model
from llamakit.download.fetcher import DownloadSettings
from llamakit.download.link import read_link
from llamakit.download.retry import RetryPolicy
from llamakit.download.session import Download

MB = 1 << 20
SHARDS = "*/consolidated.*"
MODEL = Model("7B", (), "llama-2-7b", family="Llama 2", hosts=("download.llamameta.net",))
SHARDED = replace(MODEL, name="70B", folder="llama-2-70b", shards=8)
FAST = ("--retry-wait", "0.05", "--timeout", "60")
"""A test that waits for a silent server says how long; no other should depend on it."""


def fetch(server, out, *, link=None, model=MODEL, **settings):
    """Download in this process; return what happened."""
    return list(steps(server, out, link=link, model=model, **settings))


def steps(server, out, *, link=None, model=MODEL, **settings):
    """Download in this process as far as the events are asked for."""
    settings = {"retry_policy": RetryPolicy(4, 0.02), "timeout": 60.0} | settings
    run = Download([model], out, DownloadSettings(**settings))
    return run.run(read_link(link or server.link))


def assert_whole(out, served):
    """Check that everything has its name, holds the bytes that are served, and nothing else."""
    assert files_in(out) == files_in(served)
    for name in files_in(served):
        assert (out / name).read_bytes() == (served / name).read_bytes(), name


def files_in(folder):
    """List what is in a folder, but for the records of downloads, which no server has."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "llamakit.json")
    return sorted(str(path.relative_to(folder)) for path in files)


def kinds(events):
    return [type(event).__name__ for event in events]


def asked(server, path=SHARDS):
    """Return the ranges of a file's requests that were more than a probe."""
    return [one.range for one in server.requests if fnmatch(one.path, path) and one.range != (0, 1)]


def serve_model(folder, shards=1, nbytes=1 * MB, name="llama-2-7b"):
    make_model(folder, name, shards, nbytes)
    return folder
