"""The file of typed lines: the user's alone, and never a reason for a chat to stop."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llamakit.cli.chat.line_history import PrivateHistory


def lines(history: PrivateHistory) -> list[str]:
    return list(history.load_history_strings())


@pytest.mark.parametrize("umask", [0o022, 0o000])
def test_a_new_file_is_the_users_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        PrivateHistory(tmp_path / "state" / "history").append_string("hello")
    finally:
        os.umask(before)

    assert (tmp_path / "state" / "history").stat().st_mode & 0o777 == 0o600


def test_a_file_of_an_earlier_version_becomes_the_users_alone_and_keeps_its_lines(
    tmp_path: Path,
) -> None:
    file = tmp_path / "history"
    file.write_text("\n# 2026-01-01\n+old\n")
    file.chmod(0o644)

    history = PrivateHistory(file)

    assert lines(history) == ["old"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_two_chats_append_to_one_file(tmp_path: Path) -> None:
    one, two = PrivateHistory(tmp_path / "history"), PrivateHistory(tmp_path / "history")

    one.append_string("first")
    two.append_string("second\nof two lines")
    one.append_string("third")

    assert lines(PrivateHistory(tmp_path / "history")) == ["third", "second\nof two lines", "first"]


def a_file_in_the_way(place: Path) -> Path:
    (place / "state").write_text("")
    return place / "state" / "history"


def a_fifo(place: Path) -> Path:
    os.mkfifo(place / "history")
    return place / "history"


def a_folder(place: Path) -> Path:
    (place / "history").mkdir()
    return place / "history"


def a_loop_of_links(place: Path) -> Path:
    (place / "history").symlink_to("history")
    return place / "history"


def no_home(_place: Path) -> Path:
    return Path("~/history")


@pytest.mark.parametrize("put", [a_file_in_the_way, a_fifo, a_folder, a_loop_of_links, no_home])
def test_a_place_that_cannot_be_written_is_told_once_and_lines_stay_in_memory(
    tmp_path: Path, put: Callable[[Path], Path]
) -> None:
    history = PrivateHistory(put(tmp_path))
    told = [history.take_problem()]
    history.append_string("hello")
    told.append(history.take_problem())

    assert told[0].startswith("what you type is not kept for later chats: ")
    assert told[1] == ""
    assert history.get_strings() == ["hello"]


def test_a_disk_that_fills_up_is_told_once(small_disk: Callable[..., Path]) -> None:
    place = small_disk(8 << 10)
    history = PrivateHistory(place / "history")
    history.append_string("fits")
    (place / "rest").write_bytes(b"x" * (4 << 10))

    history.append_string("x" * 8000)
    history.append_string("after")

    assert "No space left on device" in history.take_problem()
    assert history.take_problem() == ""
    assert history.get_strings()[-1] == "after"
