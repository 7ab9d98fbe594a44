"""How fast ``llamakit download`` is, against wget, curl and aria2c, from nginx on loopback.

    python benchmarks/download.py [--runs N] [--gigabytes N] [--folder FOLDER]
    python benchmarks/download.py --only limited
    python benchmarks/download.py --gigabytes 1 --programs llamakit,httpx,curl

One shard is fetched by each program in turn, the order changing from round to round: first as fast
as nginx gives it, then with 20 MB/s for each connection and 8 connections. That limit is in
front of nginx's HTTP (its stream module) and gives each connection its first second without a
limit. ``limit_rate`` would do so for each request, which flatters whoever asks for small ranges.

The peers only fetch; llamakit fetches Meta's small files too, hashes, and compares with the
checklist. Every result is hashed again here. A program counts twice: until it ends, and until what
it wrote is on the disk, for not all of them wait for that. Memory is that of a program and its
children together: `anonymous` the peak of RssAnon, `in all` the sum of VmHWM. `user` and `sys` are
seconds of processor time, of the program and not of nginx. `httpx` is llamakit with httpx's own
transport, which it uses where a proxy is configured (here one for https, which nothing asks).

Needs Debian's nginx-light, libnginx-mod-stream, wget, curl and aria2; names what is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CONNECTIONS = 8
LIMIT = 20_000_000
MODEL, SHARD = "llama-2-7b", "llama-2-7b/consolidated.00.pth"
OURS, HTTPX = "llamakit", "httpx"
AIMS = {"unlimited": ("curl", 0.9), "limited": ("aria2c", 1.0)}
MEMORY_AIM = 150_000_000
PEERS = {"unlimited": ["wget", "curl", "aria2c"], "limited": ["aria2c"]}
ENV = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}

CONF = """{stream}
worker_processes 2;
pid nginx.pid;
events {{ }}
http {{
    access_log off;
    sendfile on;
    default_type binary/octet-stream;
    client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp;
    uwsgi_temp_path tmp; scgi_temp_path tmp;
    server {{ listen 127.0.0.1:{unlimited}; root {root}; }}
}}
"""
STREAM = """load_module {module};
stream {{ server {{
    listen 127.0.0.1:{limited}; proxy_pass 127.0.0.1:{unlimited}; proxy_download_rate {limit};
}} }}
"""


@dataclass(frozen=True)
class Run:
    """One download: seconds until its end and until the disk had it, of the processor, memory."""

    seconds: float
    synced: float
    user: float
    system: float
    anonymous: int
    in_all: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--folder", type=Path, help="where to make and write the files")
    parser.add_argument("--only", choices=AIMS, help="one of the two servers")
    parser.add_argument("--programs", help="which, such as llamakit,curl; else all")
    arguments = parser.parse_args()
    chosen = arguments.programs.split(",") if arguments.programs else None
    if not shutil.which("nginx"):
        print("nginx is not installed: nothing to download from (apt-get install nginx-light)")
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="llamakit-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # nginx is another user
        md5 = make_model(folder / "served", int(arguments.gigabytes * 1e9))
        with nginx(folder) as ports:
            for kind in [arguments.only] if arguments.only else AIMS:
                if kind not in ports:
                    print(f"{kind}: left out, nginx lacks its stream module (libnginx-mod-stream)")
                    continue
                base = f"http://127.0.0.1:{ports[kind]}"
                compare(kind, base, folder, md5, arguments.runs, chosen)


def make_model(root: Path, nbytes: int) -> str:
    """Write Meta's files with one random shard; return the shard's md5."""
    (root / MODEL).mkdir(parents=True)
    sums = {}
    for name, size in [("tokenizer.model", 500_000), (SHARD, nbytes)]:
        md5 = hashlib.md5()
        with (root / name).open("wb") as file:
            for start in range(0, size, 1 << 22):
                block = os.urandom(min(1 << 22, size - start))
                md5.update(block)
                file.write(block)
        sums[name] = md5.hexdigest()
    params = json.dumps({"dim": 4096, "n_layers": 32, "n_heads": 32, "norm_eps": 1e-5}).encode()
    (root / MODEL / "params.json").write_bytes(params)
    lines = [
        f"{sums[SHARD]}  {Path(SHARD).name}",
        f"{hashlib.md5(params).hexdigest()}  params.json",
    ]
    (root / MODEL / "checklist.chk").write_text("\n".join([*lines, ""]))
    (root / "tokenizer_checklist.chk").write_text(f"{sums['tokenizer.model']}  tokenizer.model\n")
    for name in ("LICENSE", "USE_POLICY.md"):
        (root / name).write_text(f"{name} of the benchmark\n")
    return sums[SHARD]


@contextmanager
def nginx(folder: Path) -> Iterator[dict[str, int]]:
    """Run nginx, not as root, on the served files; yield the port of each kind of server."""
    ports = {"unlimited": free_port()}
    version = subprocess.run(["nginx", "-V"], capture_output=True, text=True, check=True).stderr
    modules = re.search(r"--modules-path=(\S+)", version)
    module = Path(modules[1] if modules else "", "ngx_stream_module.so")
    if module.is_file():
        ports["limited"] = free_port()
    stream = STREAM.format(module=module, limit=LIMIT, **ports) if "limited" in ports else ""
    prefix = folder / "nginx"
    prefix.mkdir()
    conf = CONF.format(stream=stream, root=folder / "served", **ports)
    (prefix / "nginx.conf").write_text(conf)
    user = {}
    if os.geteuid() == 0:
        shutil.chown(prefix, "nobody", "nogroup")
        user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    command = ["nginx", "-e", "stderr", "-p", f"{prefix}/", "-c", "nginx.conf", "-g", "daemon off;"]
    process = subprocess.Popen(command, **user)
    try:
        for port in ports.values():
            wait_for_port(port, process)
        yield ports
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return
    raise SystemExit("nginx did not start")


def compare(
    kind: str, base: str, folder: Path, md5: str, rounds: int, chosen: list[str] | None
) -> None:
    """Let each program that is there download in turn, and print what came of it."""
    programs = commands(kind, base, folder / "result")
    programs = {name: it for name, it in programs.items() if chosen is None or name in chosen}
    nbytes = (folder / "served" / SHARD).stat().st_size
    limit = f", {LIMIT / 1e6:.0f} MB/s a connection" if kind == "limited" else ""
    print(f"{kind}: {nbytes / 1e9:.2f} GB, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
          f"{rounds} rounds, {CONNECTIONS} connections{limit}", flush=True)  # fmt: skip
    runs: dict[str, list[Run]] = {name: [] for name in programs}
    for number in range(rounds):
        names = list(programs)
        turn = number % max(1, len(names))
        for name in names[turn:] + names[:turn]:
            runs[name].append(measure(programs[name], base, folder / "result", md5))
            print(f"  {name}: {runs[name][-1].seconds:.2f} s", flush=True)
    report(kind, runs, nbytes)


def commands(kind: str, base: str, result: Path) -> dict[str, list[str]]:
    """Return how each program is called that is installed; say which are not."""
    url, shard = f"{base}/{SHARD}", result / SHARD
    count = f"{CONNECTIONS}"
    peers = {
        "wget": ["wget", "-q", "--no-config", "-O", f"{shard}", url],
        "curl": ["curl", "-q", "-s", "-f", "-o", f"{shard}", url],
        "aria2c": [
            *("aria2c", "--no-conf", "-q", "-x", count, "-s", count, "--file-allocation=none"),
            *("-d", f"{shard.parent}", "-o", shard.name, url),
        ],
    }
    ours = [sys.executable, "-m", "llamakit", "download"]
    programs = {}
    if subprocess.run([*ours, "--help"], capture_output=True, check=False).returncode:
        print(f"{OURS}: left out, it has no command download")
    else:
        programs[OURS] = [*ours, "7B", "--output-dir", f"{result}", "--connections", count]
        programs[HTTPX] = ["env", "https_proxy=http://127.0.0.1:9", *programs[OURS]]
    for name in PEERS[kind]:
        if shutil.which(name):
            programs[name] = peers[name]
        else:
            print(f"{name}: left out, it is not installed")
    return programs


def measure(command: list[str], base: str, result: Path, md5: str) -> Run:
    """Download into an empty folder with nothing left to write from before."""
    shutil.rmtree(result, ignore_errors=True)
    (result / MODEL).mkdir(parents=True)
    os.sync()
    anonymous, high_water = 0, {}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        env=ENV | {"LLAMAKIT_URL": f"{base}/*"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None:
        memory = {pid: memory_of(pid) for pid in family(process.pid)}
        anonymous = max(anonymous, sum(it.get("RssAnon", 0) for it in memory.values()))
        high_water |= {pid: it["VmHWM"] for pid, it in memory.items() if "VmHWM" in it}
        time.sleep(0.01)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    os.sync()
    synced = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"{command} ended with status {process.returncode}")
    shard = result / SHARD
    found = subprocess.run(["md5sum", shard], capture_output=True, text=True, check=True).stdout
    if found.split()[0] != md5:
        raise SystemExit(f"{command} wrote a file whose md5 is wrong")
    return Run(seconds, synced, user, system, anonymous, sum(high_water.values()))


def family(pid: int) -> list[int]:
    """Return a process and all that it has started."""
    pids = [pid]
    for parent in pids:  # grows meanwhile
        for path in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                pids += map(int, path.read_text().split())
            except OSError:  # it has ended
                continue
    return pids


def memory_of(pid: int) -> dict[str, int]:
    """Return how many bytes of each kind of memory a process has; nothing if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return {}
    found = re.findall(r"^(RssAnon|VmHWM):\s+(\d+) kB", status, re.MULTILINE)
    return {name: int(value) << 10 for name, value in found}


def report(kind: str, runs: dict[str, list[Run]], nbytes: int) -> None:
    print(
        f"{'':10}{'seconds':>23}{'MB/s':>7}{'on the disk':>23}{'user':>7}{'sys':>6}"
        f"{'anonymous':>11}{'in all':>9}"
    )
    for name, taken in runs.items():
        seconds = [run.seconds for run in taken]
        print(
            f"{name:10}{spread(seconds):>23}{nbytes / 1e6 / statistics.median(seconds):7.0f}"
            f"{spread([run.synced for run in taken]):>23}"
            f"{statistics.median(run.user for run in taken):7.2f}"
            f"{statistics.median(run.system for run in taken):6.2f}"
            f"{max(run.anonymous for run in taken) / 1e6:8.0f} MB"
            f"{max(run.in_all for run in taken) / 1e6:6.0f} MB"
        )
    if ours := runs.get(OURS):
        for peer, theirs in runs.items():
            if peer != OURS:
                report_speed(kind, peer, ours, theirs)
        peak = max(run.in_all for run in ours)
        print(f"memory of {OURS}: {verdict(peak <= MEMORY_AIM)} {MEMORY_AIM / 1e6:.0f} MB")


def report_speed(kind: str, peer: str, ours: list[Run], theirs: list[Run]) -> None:
    """Print how many times as fast as a peer we are, from round to round."""
    ratios = [b.seconds / a.seconds for a, b in zip(ours, theirs, strict=True)]
    synced = [b.synced / a.synced for a, b in zip(ours, theirs, strict=True)]
    aim = ""
    if AIMS[kind][0] == peer:
        target = AIMS[kind][1]
        aim = f"   {verdict(statistics.median(ratios) >= target)} {target}"
    print(f"speed / {peer:8}{spread(ratios):>20}, on the disk {spread(synced)}{aim}")


def verdict(is_met: bool) -> str:
    return "meets the aim of" if is_met else "MISSES the aim of"


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
