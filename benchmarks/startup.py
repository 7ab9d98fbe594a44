"""How long ``llamakit --help`` takes, against importing the two packages that it is built on.

It is run with the plugins that are installed, and with some third-party packages more, which are
made on the spot: what one of them adds is the second figure. All run in turn in the same session,
so that what else the machine does affects all of them.

    python benchmarks/startup.py [--runs N]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PEER = [sys.executable, "-c", "import click, pluggy"]
SCRIPT = Path(sys.executable).with_name("llamakit")
LLAMAKIT = [str(SCRIPT)] if SCRIPT.exists() else [sys.executable, "-m", "llamakit"]

ENV = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""The first run compiles, as installing does."""

MORE = 20
"""How many packages are added: what a single one takes is lost in the noise."""

PLUGIN = '''"""A plugin of one sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from llamakit.hookspecs import Registrar
    from llamakit.protocols import Sampler, SamplerFactory


def likeliest() -> Sampler:
    """Pick the most likely token."""
    return lambda logits, rows: logits.argmax(dim=-1)


@hookimpl
def register_samplers(samplers: Registrar[SamplerFactory]) -> None:
    """Offer the sampler."""
    samplers.register("{name}", likeliest, help="the most likely token")
'''


def install_plugins(folder: Path, count: int) -> None:
    """Put packages with one plugin each into a folder, as pip would."""
    for number in range(count):
        name = f"bench-plugin-{number}"
        module = name.replace("-", "_")
        (folder / f"{module}.py").write_text(PLUGIN.replace("{name}", name))
        metadata = folder / f"{module}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[llamakit]\n{name} = {module}\n")


def seconds(command: list[str], env: dict[str, str] = ENV) -> float:
    """Return the wall-clock time of one run."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=env)
    return time.perf_counter() - start


def count_plugins(env: dict[str, str]) -> int:
    """Return how many plugins there are.

    Raises:
        SystemExit: one of them does not work.
    """
    listing = subprocess.run(
        [*LLAMAKIT, "plugins", "--json"], check=True, capture_output=True, text=True, env=env
    ).stdout
    statuses = [plugin["status"] for plugin in json.loads(listing)]
    if set(statuses) != {"ok"}:
        sys.exit(f"of {len(statuses)} plugins only {statuses.count('ok')} are ok")
    return len(statuses)


def report(rounds: list[tuple[float, float, float]], plugins: int) -> None:
    """Print the medians and the ratios.

    Args:
        rounds: seconds of the peer, of ``--help``, and of ``--help`` with ``MORE`` plugins.
        plugins: how many there are without those.
    """
    peer, ours, more = (statistics.median(times) * 1000 for times in zip(*rounds, strict=True))
    one = statistics.median(with_more - without for _, without, with_more in rounds) / MORE * 1000
    print(f"{'python -c ' + repr(PEER[-1]):44}{peer:8.1f} ms")
    print(f"{f'llamakit --help, {plugins} plugins':44}{ours:8.1f} ms{ours / peer:8.2f} of it")
    print(
        f"{f'llamakit --help, {plugins + MORE} plugins':44}{more:8.1f} ms{more / peer:8.2f} of it"
    )
    print(f"{'one more third-party plugin':44}{one:8.2f} ms{one / ours:8.2%} of it")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=30)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        install_plugins(Path(folder), MORE)
        env = {**ENV, "PYTHONPATH": os.pathsep.join(filter(None, (folder, ENV.get("PYTHONPATH"))))}
        ours = [*LLAMAKIT, "--help"]
        seconds(PEER), seconds(ours), seconds(ours, env)  # warm: compiled and in the page cache
        plugins = count_plugins(ENV)
        assert count_plugins(env) == plugins + MORE

        rounds = [(seconds(PEER), seconds(ours), seconds(ours, env)) for _ in range(runs)]

    report(rounds, plugins)


if __name__ == "__main__":
    main()
