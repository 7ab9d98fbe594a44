"""What is shown of a download: lines in a log, and the words in them."""

from __future__ import annotations

import pytest

from llamakit.cli.download_progress import PlainLines, SpeedMeter, TerminalBars, line_for
from llamakit.cli.terminal import format_nbytes
from llamakit.download.events import (
    Arrived,
    Checked,
    Checking,
    Failed,
    FilePlan,
    FileProgress,
    LinkEnded,
    Planned,
    Progress,
    Restarted,
    Retrying,
)


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (13_476_925_163, "13.5 GB"),
        (999_999, "1 MB"),
        (10**13, "10 TB"),
    ],
)
def test_sizes_are_for_people(nbytes, text):
    assert format_nbytes(nbytes) == text


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            Planned((FilePlan("a", 1000, "part", 400), FilePlan("b", 5, "there", 5)), 10**10),
            "files to fetch: 1, 600 B (on disk already: 1); 10 GB are free",
        ),
        (
            Planned((FilePlan("b", 5, "there", 5),), 10**10),
            "1 of 1 files are on disk and verified; nothing to fetch",
        ),
        (Checked("a", 5, good=True), None),
        (Checked("a", 5, good=False, note="it is empty"), "a is on disk but wrong: it is empty"),
        (Checking(5, 9), None),
        (Progress(()), None),
        (Retrying("a", "HTTP 500", 1.26), "a: HTTP 500; retrying in 1.3 s"),
        (Restarted("a", "it changed"), "a is fetched again: it changed"),
        (Arrived("a", 2000, "0" * 32), "a: 2 kB, MD5 verified"),
        (Arrived("LICENSE", 20, None), "LICENSE: 20 B"),
        (Failed("a", "gone"), "a failed: gone"),
        (LinkEnded("It ended."), "It ended. Responses that have begun are still read."),
    ],
)
def test_an_event_is_a_line_or_none(event, line):
    assert line_for(event) == line


def test_a_log_gets_lines_and_no_progress_in_the_first_seconds(capsys):
    display = PlainLines()

    display.show(Progress((FileProgress("a", 10, 5, 5),)))
    display.show(Arrived("a", 10, None))
    display.close()

    assert capsys.readouterr().err == "llamakit: a: 10 B\n"


def test_a_speed_needs_two_moments():
    speed = SpeedMeter()
    speed.add(500)

    assert speed.line(500, 1000) == "500 B of 1 kB (50%)"


def test_bars_come_and_go_with_their_files():
    display = TerminalBars()

    display.show(Checking(5, 9))
    before = [(task.description, task.completed, task.total) for task in display._bars.tasks]
    display.show(Progress((FileProgress("a", 10, 5, 0), FileProgress("b", 10, 10, 4))))
    during = [task.description for task in display._bars.tasks]
    display.show(Progress((FileProgress("a", 10, 5, 0), FileProgress("b", 10, 10, 10))))
    after = [task.description for task in display._bars.tasks]
    display.close()

    assert before == [("verifying files on disk", 5, 9)]
    assert during == ["all", "a", "b (checksum)"]
    assert after == ["all", "a"]
