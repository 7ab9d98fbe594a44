"""Fixtures that all tests share."""

from __future__ import annotations

import gc
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import hypothesis
import pytest
from fork_server import can_be_forked, fork_server, run_forked, write_program

from llamakit.cores import wait_briefly

Run = Callable[..., "subprocess.CompletedProcess[str]"]

INHERITED = ("LLAMAKIT_", "MASTER_", "TORCHELASTIC_")
hypothesis.settings.register_profile("busy machine", deadline=None)  # two tests run at a time
hypothesis.settings.load_profile("busy machine")
TORCHRUN = ["-m", "torch.distributed.run", "--standalone"]
LLAMAKIT = ["-m", "llamakit"]
PACKAGES = Path(__file__).parent / "plugin_packages"
DISK = "llamakit-tests-"  # and the process that mounted it
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
RANKS = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "COLUMNS", "PYTHONPATH"}


def pytest_configure() -> None:
    """Let programs that are started hear Ctrl-C, and share the cores with the other worker.

    A shell may have these tests in the background, where Ctrl-C is ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    wait_briefly()  # as the commands do: nothing has loaded torch yet
    if "PYTEST_XDIST_WORKER" in os.environ:  # as many threads as there are cores, but no more
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the garbage collector from what collecting the tests makes: it stays to the end.

    Looking through all of it again and again took more than half of the time that collecting takes.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def reference_cases() -> Path:
    """The two small checkpoints, and what the reference implementation answered with them."""
    return Path(__file__).parent / "data" / "reference-cases"


@pytest.fixture(scope="session")
def reference_cases_llama3() -> Path:
    """Small checkpoints of Llama 3, and what Meta's reference implementation answered."""
    return Path(__file__).parent / "data" / "reference-cases-llama3"


@pytest.fixture(scope="session")
def lean() -> dict[str, str]:
    """Variables for the programs that tests start.

    One thread for each program, as for this one; and pytest without the plugins that it would load
    of itself, which takes longer than the tests that it is to run.
    """
    threads = {name: it for name, it in os.environ.items() if name == "OMP_NUM_THREADS"}
    return {**threads, "PYTEST_ADDOPTS": "-p no:anyio -p no:hypothesispytest -p no:schemathesis"}


@pytest.fixture
def isolated(tmp_path: Path, lean: dict[str, str]) -> dict[str, str]:
    """An environment without settings of whoever runs the tests, and with a home of its own."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(INHERITED) and name not in RANKS
    }
    places = dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"), str(home))
    own = {**places, "PYTHONUTF8": "1", "LLAMAKIT_SLOW_PLUGIN": "600"}  # a busy machine is no fault
    return {**kept, **own, **lean}


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where processes are to be had in which torch is imported already."""
    with fork_server(tmp_path_factory.mktemp("forks")) as address:
        yield address


@pytest.fixture(scope="session")
def forked_python(forks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that is ``python``, from a process in which torch is imported already."""
    return write_program(tmp_path_factory.mktemp("forked") / "python", forks)


@pytest.fixture
def run_script(forks: Path, isolated: dict[str, str], tmp_path: Path) -> Run:
    """Run ``python`` with these words, in a process that has torch already."""

    def run(
        *words: str, env: Mapping[str, str] | None = None, cwd: Path = tmp_path
    ) -> subprocess.CompletedProcess[str]:
        settings = {"env": {**isolated, **(env or {})}, "cwd": cwd, "stdin": "", "timeout": 300}
        return run_forked(forks, words, **settings)

    return run


@pytest.fixture
def torchrun(run_script: Run, forked_python: Path) -> Run:
    """Run ``torchrun``; it and its ranks are forked from a process that has torch."""

    def run(ranks: int, *words: str) -> subprocess.CompletedProcess[str]:
        command = [*TORCHRUN, "--nproc_per_node", str(ranks), *words]
        return run_script(*command, env={"PYTHON_EXEC": str(forked_python)})

    return run


@pytest.fixture
def port() -> int:
    """A free port below those that the kernel gives to others before a program binds it."""
    while True:
        number = 20_000 + secrets.randbelow(12_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", number)):
            return number


@pytest.fixture
def run_llamakit(isolated: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest) -> Run:
    """Run ``llamakit`` in a process of its own, with ``tmp_path`` as its folder.

    Where it would load torch it is forked from one that has: see ``fork_server``. Tests that start
    ``python -m llamakit`` themselves pay for the whole start.
    """

    def run(
        *args: str | os.PathLike[str],
        env: Mapping[str, str] | None = None,
        stdin: str = "",
        timeout: float = 180,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        words, env, cwd = [*map(os.fspath, args)], env or {}, cwd or tmp_path
        if can_be_forked(words, env):
            settings = {"env": {**isolated, **env}, "cwd": cwd, "stdin": stdin, "timeout": timeout}
            return run_forked(request.getfixturevalue("forks"), LLAMAKIT + words, **settings)
        return subprocess.run(
            [sys.executable, *LLAMAKIT, *words],
            env={**isolated, **env},
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout,
            cwd=cwd,
            check=False,
        )

    return run


def unmount_left_behind() -> None:
    """Unmount the small disks of runs that were killed: pytest cannot remove their folders."""
    for mounted in Path("/proc/mounts").read_text().splitlines():
        source, place = mounted.split()[:2]
        pid = source.removeprefix(DISK)
        if pid != source and not Path("/proc", pid).exists():
            subprocess.run(["umount", "--lazy", place], check=False)  # or another run has just


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Make file systems of so many bytes and files; skip where mounting is not permitted."""
    places: list[Path] = []
    unmount_left_behind()

    def make(nbytes: int, nfiles: int = 1000) -> Path:
        place = tmp_path / f"disk{len(places)}"
        place.mkdir()
        options = f"size={nbytes},nr_inodes={nfiles + 1}"  # its root is one
        command = ["mount", "-t", "tmpfs", "-o", options, f"{DISK}{os.getpid()}", place]
        try:
            subprocess.run(command, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"a small disk cannot be mounted: {getattr(error, 'stderr', error)}")
        places.append(place)
        return place

    yield make
    for place in places:
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture(scope="session")
def install(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Install one of ``tests/plugin_packages``, once a session; return its folder.

    Its wheel is built and unpacked as pip does it, which takes pip four times as long.
    """
    places: dict[str, Path] = {}

    def install_one(name: str) -> Path:
        if name not in places:
            source = tmp_path_factory.mktemp("source") / name
            shutil.copytree(PACKAGES / name, source)
            place = tmp_path_factory.mktemp(name)
            build = [sys.executable, "-c", BUILD, source.parent]
            subprocess.run(build, cwd=source, check=True, capture_output=True)
            (wheel,) = source.parent.glob("*.whl")
            shutil.unpack_archive(wheel, place, "zip")
            places[name] = place
        return places[name]

    return install_one


@pytest.fixture
def plugins(install: Callable[[str], Path]) -> Callable[..., dict[str, str]]:
    """Return the environment in which these packages are installed too."""

    def environment(*names: str) -> dict[str, str]:
        return {"PYTHONPATH": os.pathsep.join(str(install(name)) for name in names)}

    return environment
