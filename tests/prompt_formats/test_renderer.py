"""The process that renders templates: its limits, its life, and what it cannot see."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from jinja2.defaults import DEFAULT_FILTERS

from llamakit.plugins.prompt_formats.jinja import framing
from llamakit.plugins.prompt_formats.jinja.renderer import (
    Limits,
    Renderer,
    RenderingError,
    Watch,
    checked_reply,
    resident_nbytes,
    shared_renderer,
)

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def renderer() -> Iterator[Renderer]:
    one = Renderer()
    yield one
    one.close()


def request_for(template: str, content: str = "hello") -> dict[str, Any]:
    return {
        **{"template": template, "names": {}, "tools": None},
        "messages": [{"role": "user", "content": content}],
        **{"special": [], "answer": True, "now": "2026-11-30T12:00:00"},
    }


CONTENT = "{{ messages[0].content }}"


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def state(pid: int) -> str:
    """One letter of /proc, or nothing for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_the_process_is_started_once(renderer: Renderer):
    assert renderer.pid is None

    first = renderer.render(request_for(CONTENT)), renderer.pid
    second = renderer.render(request_for("{{ bos_token }}!")), renderer.pid

    assert (first[0], second[0]) == (["hello"], ["!"])
    assert first[1] == second[1] is not None


@LINUX
def test_it_sees_no_secrets_no_files_and_no_terminal(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("LLAMAKIT_API_KEY", "hidden")
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        renderer.render(request_for(CONTENT))

    proc = Path(f"/proc/{renderer.pid}")
    assert b"hidden" not in (proc / "environ").read_bytes()
    descriptors = {it.name: str(it.readlink()) for it in (proc / "fd").iterdir()}
    assert set(descriptors) == {"0", "1", "2"}
    assert descriptors["2"] == os.devnull
    assert os.getsid(renderer.pid or 0) == renderer.pid
    limits = (proc / "limits").read_text()
    assert re.search(r"Max open files +3 +3 ", limits)
    assert re.search(r"Max file size +0 +0 ", limits)
    assert re.search(rf"Max data size +{2**28} +{2**28} ", limits)


@LINUX
def test_it_imports_jinja_and_nothing_heavy(renderer: Renderer):
    renderer.render(request_for(CONTENT))

    mapped = Path(f"/proc/{renderer.pid}/maps").read_text()
    assert "torch" not in mapped
    assert "numpy" not in mapped


def test_every_filter_works_where_no_file_can_be_opened(renderer: Renderer):
    failures = {name: failure(renderer, f"| {name}") for name in DEFAULT_FILTERS}

    assert {name for name, message in failures.items() if "open files" in message} == set()
    assert failure(renderer, "~ lipsum(n=1) ~ '\\x41\\N{BULLET}'") == ""


def failure(renderer: Renderer, rest: str) -> str:
    try:
        renderer.render(request_for("{{ messages[0].content " + rest + " }}"))
    except RenderingError as error:
        return str(error)
    return ""


@LINUX
def test_a_process_that_was_killed_is_replaced_and_leaves_no_zombie(renderer: Renderer):
    renderer.render(request_for(CONTENT))
    old = renderer.pid or 0

    os.kill(old, signal.SIGKILL)
    wait_until(lambda: state(old) == "Z")

    assert renderer.render(request_for(CONTENT)) == ["hello"]
    assert renderer.pid != old
    assert state(old) == ""


@LINUX
def test_a_process_that_hangs_is_killed():
    renderer = Renderer(Limits(seconds=0.5))
    wait_until(lambda: is_rendered(renderer))
    old = renderer.pid or 0
    os.kill(old, signal.SIGSTOP)

    with pytest.raises(RenderingError, match=r"gave no answer within 0\.5 s"):
        renderer.render(request_for(CONTENT))

    assert state(old) == ""
    wait_until(lambda: is_rendered(renderer))
    renderer.close()


def is_rendered(renderer: Renderer) -> bool:
    """Whether it is, on a machine that may take longer to start a process than a test allows."""
    try:
        return renderer.render(request_for(CONTENT)) == ["hello"]
    except RenderingError:
        return False


def test_the_clock_and_the_memory_are_watched_where_the_kernel_does_not():
    if not resident_nbytes(os.getpid()):
        pytest.skip("there is no ps")
    program = "import time; x = b'x' * 400_000_000; time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", program])

    with Watch(process, Limits(), bounds_memory=True) as watch:
        process.wait()

    assert watch.reason == "needs more than 256 MB of memory"
    assert process.returncode == -signal.SIGKILL


def test_threads_get_their_own_answers(renderer: Renderer):
    with ThreadPoolExecutor(8) as pool:
        texts = pool.map(lambda n: renderer.render(request_for(CONTENT, str(n))), range(200))

    assert list(texts) == [[str(n)] for n in range(200)]


def test_an_interrupted_rendering_is_not_the_next_ones_answer(renderer: Renderer):
    renderer.render(request_for(CONTENT))
    endless = request_for("{% for a in range(9999) if range(9999) | sum < 0 %}{% endfor %}")
    interrupt = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))

    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        renderer.render(endless)

    assert renderer.render(request_for(CONTENT)) == ["hello"]


@LINUX
@pytest.mark.parametrize("template", [CONTENT, "{{ 9 ** 999999999 }}"], ids=["idle", "busy"])
def test_it_ends_with_its_parent(template: str):
    program = (
        "import sys, threading\n"
        "from llamakit.plugins.prompt_formats.jinja.renderer import Limits, Renderer\n"
        "renderer = Renderer(Limits(cpu_seconds=1))\n"
        f"ready, request = {request_for(CONTENT)!r}, {request_for(template)!r}\n"
        "renderer.render(ready)\n"
        "print(renderer.pid, flush=True)\n"
        "renderer.render(request)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()

    wait_until(lambda: state(worker) in ("", "Z"))  # where nobody reaps orphans, it stays as one


@LINUX
def test_a_fork_has_a_process_of_its_own():
    ours = shared_renderer()
    ours.render(request_for(CONTENT))
    pid = os.fork()
    if pid == 0:
        theirs = shared_renderer()
        is_good = theirs.render(request_for(CONTENT)) == ["hello"] and theirs is not ours
        theirs.close()
        os._exit(0 if is_good else 1)

    assert os.waitpid(pid, 0)[1] == 0
    assert ours.render(request_for(CONTENT, "again")) == ["again"]


def test_an_interpreter_that_cannot_be_started_is_a_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    with pytest.raises(RenderingError, match=r"cannot be started: .*/nowhere/python"):
        Renderer().render(request_for(CONTENT))


def test_a_worker_that_cannot_import_says_so(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "path", [it for it in sys.path if "-packages" not in it])

    with pytest.raises(RenderingError, match=r"exit status 1"):
        Renderer().render(request_for(CONTENT))

    assert "ModuleNotFoundError" in capfd.readouterr().err


@pytest.mark.parametrize(
    "reply",
    [
        None,
        {},
        {"failure": 1, "message": "x"},
        ["x", "</s>", None],
        ["x", "<not special>", ""],
    ],
)
def test_what_is_no_reply_is_not_taken_for_one(reply: object):
    with pytest.raises(ValueError, match="not a reply"):
        checked_reply(reply, ["</s>"])


def test_messages_are_bounded_and_whole(tmp_path: Path):
    file = tmp_path / "pipe"
    with file.open("wb") as stream:
        framing.write_message(stream, {"text": "\ud800 \U0001f600"})
        framing.write_message(stream, "x" * 100)

    with file.open("rb") as stream:
        assert framing.read_message(stream) == {"text": "\ud800 \U0001f600"}
        with pytest.raises(ValueError, match="102 bytes"):
            framing.read_message(stream, largest=100)
    file.write_bytes(file.read_bytes()[:-1])
    with file.open("rb") as stream:
        framing.read_message(stream)
        with pytest.raises(EOFError):
            framing.read_message(stream)
