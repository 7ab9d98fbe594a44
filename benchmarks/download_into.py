"""What ``download --into`` saves: disk, memory and seconds against a download and a reshard.

    python benchmarks/download_into.py                # a 2 GB checkpoint, 8 shards
    python benchmarks/download_into.py --shape tiny --rate 50

Both ways end with the same folder of 2 shards, which is compared byte for byte, from a server on
loopback that gives each connection ``--rate`` MB/s. `disk` is the most that the files took at a
time, `anonymous` the peak of RssAnon in /proc/PID/status: memory that is no cache of a file.
"""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from convert import SHAPES, children, make_checkpoint, rss_anon

LAYER_OF_70B = {"dim": 8192, "n_heads": 64, "n_kv_heads": 8, "ffn_dim_multiplier": 1.3}
SHAPES = {
    "tiny": SHAPES["tiny"],
    "2gb": LAYER_OF_70B | {"n_layers": 1, "vocab_size": 8192, "multiple_of": 4096},
}
"""One layer of 70B, for the speed depends on how long rows are."""
MODEL, RESULT = "llama-2-70b", "llama-2-70b-mp2"
CHUNK = 1 << 16
SERVE = "--serve"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="2gb")
    parser.add_argument("--folder", type=Path, help="a folder on the disk to measure")
    parser.add_argument("--rate", type=float, default=25, help="MB/s of each connection")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="llamakit-bench-") as name:
        folder = Path(name)
        nbytes = make_served(folder / "served", arguments.shape)
        print(f"{nbytes / 1e9:.2f} GB in 8 shards, {os.cpu_count()} cores", flush=True)
        command = [sys.executable, __file__, SERVE, folder / "served", str(arguments.rate)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            link = f"http://127.0.0.1:{server.stdout.readline().strip()}/*"
            try:
                compare(folder, link)
            finally:
                server.kill()


def compare(folder: Path, link: str) -> None:
    steps, into = folder / "steps", folder / "into"
    steps.mkdir()
    download = ["download", "70B", "--output-dir"]
    ways = {
        "download, reshard": [
            [*download, steps],
            ["reshard", steps / MODEL, steps / RESULT, "-n", "2"],
        ],
        "download --into": [[*download, into, "--into", "reshard:2"]],
    }
    for name, commands in ways.items():
        peak = Peak(steps if commands is ways["download, reshard"] else into)
        started = time.perf_counter()
        for words in commands:
            peak.run([sys.executable, "-m", "llamakit", *words], link)
        took = time.perf_counter() - started
        print(
            f"{name:18} {took:6.1f} s  disk {peak.disk / 1e9:5.2f} GB  "
            f"anonymous {peak.anonymous / 1e6:4.0f} MB",
            flush=True,
        )
    names = sorted(path.name for path in (steps / RESULT).iterdir())
    _, wrong, errors = filecmp.cmpfiles(steps / RESULT, into / RESULT, names, shallow=False)
    print(f"the same {len(names)} files" if not (wrong or errors) else f"DIFFERENT: {wrong}")


class Peak:
    """The most disk and memory that programs take, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk = self.anonymous = 0

    def run(self, command: list[str | Path], link: str) -> None:
        """Run a program to its end."""
        env = {**os.environ, "LLAMAKIT_URL": link, "NO_PROXY": "127.0.0.1"}
        with subprocess.Popen(
            command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while process.poll() is None:
                pids = [process.pid, *children(process.pid)]
                self.anonymous = max(self.anonymous, sum(map(rss_anon, pids)))
                self.disk = max(self.disk, allocated(self.folder))
                time.sleep(0.1)
        if process.returncode:
            raise SystemExit(f"{command} failed")


def allocated(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_blocks * 512 if path.is_file() else 0
        except OSError:  # renamed meanwhile
            continue
    return total


def make_served(folder: Path, shape: str) -> int:
    folder.mkdir()
    nbytes = make_checkpoint(folder / MODEL, SHAPES[shape])
    for name in ("LICENSE", "USE_POLICY.md"):
        (folder / name).write_text(name)
    (folder / "tokenizer.model").write_bytes(bytes(1000))
    md5 = hashlib.md5(bytes(1000)).hexdigest()
    (folder / "tokenizer_checklist.chk").write_text(f"{md5}  tokenizer.model\n")
    return nbytes


class Handler(BaseHTTPRequestHandler):
    """Answers requests for ranges, at a rate."""

    protocol_version = "HTTP/1.1"
    folder: Path
    rate: float

    def do_GET(self) -> None:
        """Send a file, or a range of it."""
        path = self.folder / self.path.lstrip("/")
        nbytes = path.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, stop = (int(asked[1]), int(asked[2]) + 1) if asked else (0, nbytes)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("ETag", f'"{nbytes}"')
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{nbytes}")
        self.end_headers()
        due = time.monotonic()
        # A client may end a response before its end.
        with path.open("rb") as file, contextlib.suppress(ConnectionError):
            for begin in range(start, stop, CHUNK):
                at = begin
                end = min(begin + CHUNK, stop)
                due += (end - begin) / self.rate
                while at < end:
                    at += os.sendfile(self.connection.fileno(), file.fileno(), at, end - at)
                time.sleep(max(0.0, due - time.monotonic()))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def serve(folder: Path, rate: float) -> None:
    Handler.folder, Handler.rate = folder, rate * 1e6
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    if sys.argv[1:2] == [SERVE]:
        serve(Path(sys.argv[2]), float(sys.argv[3]))
    else:
        main()
