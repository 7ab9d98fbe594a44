"""Ctrl-C, whenever it comes, ends all ranks, says nothing technical and gives status 130."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LLAMAKIT = Path(sys.executable).with_name("llamakit")
"""What users type. Under ``python -m`` CPython itself ends by the signal, whatever status it is
given, when Ctrl-C came while it evaluated text (a namedtuple); a shell shows 130 both ways."""


def test_an_interrupt_that_comes_in_a_callback_is_not_lost() -> None:
    program = """if True:
        import signal, time, weakref
        from llamakit.cli.lost_interrupts import repeat_lost_interrupts
        repeat_lost_interrupts()
        kept = lambda: None
        reference = weakref.ref(kept, lambda _: signal.raise_signal(signal.SIGINT))
        try:
            del kept  # CPython ignores what the callback raises
            time.sleep(50)
        except KeyboardInterrupt:
            print("interrupted")
    """

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.stdout, done.stderr) == ("interrupted\n", "")


@pytest.mark.parametrize(
    ("ranks", "seconds"),
    [
        *((1, 0.2), (1, 1), (1, 2.5), (2, 1), (2, 2.5)),  # ranks are not started before 0.2 s
        *(
            pytest.param(ranks, seconds, marks=pytest.mark.soak)
            for ranks in (1, 2)
            for seconds in (0.5, 1.5, 4)
        ),
        pytest.param(2, 0.2, marks=pytest.mark.soak),
    ],
)
def test_ctrl_c_at_any_moment(
    ranks: int, seconds: float, reference_cases: Path, isolated: dict[str, str], tmp_path: Path
) -> None:
    """The moments are seconds of processor time: a busy machine is not at an earlier step then."""
    mark = f"mark-{os.getpid()}-{ranks}-{seconds}"
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(
            [LLAMAKIT, "generate", *map(str, range(500))]
            + ["-m", str(reference_cases / "mha-mp8"), "--model-parallel-size", str(ranks)]
            + ["--max-seq-len", "200000"],
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={**isolated, "LLAMAKIT_TEST_MARK": mark, "OMP_NUM_THREADS": "1"},
        )
    while processor_seconds(process.pid) < seconds:
        assert process.poll() is None
        time.sleep(0.005)

    process.send_signal(signal.SIGINT)

    try:
        status = process.wait(180)
    finally:
        process.kill()
        process.wait()
    said = (tmp_path / "errors").read_text()
    assert status == 130, said
    assert "Traceback" not in said
    deadline = time.monotonic() + 180
    while left := processes_with(mark):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def processor_seconds(pid: int) -> float:
    """Return how long a process has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # user's and system's


def processes_with(mark: str) -> list[str]:
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in environment.read_bytes():
                found.append(environment.parent.name)
        except OSError:  # it has just ended
            continue
    return found
