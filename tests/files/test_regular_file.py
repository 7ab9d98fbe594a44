"""Only regular files are opened, and nothing waits."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from llamakit.errors import FileFormatError, NotRegularFileError
from llamakit.files.regular_file import open_regular, read_bytes


@pytest.fixture(params=["folder", "FIFO", "socket", "device", "link to a FIFO"])
def irregular(request, tmp_path, monkeypatch):
    """Something that is no regular file, and what it is called."""
    monkeypatch.chdir(tmp_path)  # a socket's path may have 100 characters
    path = Path("params.json")
    if request.param == "folder":
        path.mkdir()
    elif request.param == "FIFO":
        os.mkfifo(path)
    elif request.param == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    elif request.param == "device":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo("pipe")
        path.symlink_to("pipe")
    return path, request.param.removeprefix("link to a ")


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_what_is_not_regular_is_refused_by_its_name(irregular):
    path, kind = irregular

    with pytest.raises(NotRegularFileError, match=f"it is a {kind}; expected a regular file") as it:
        open_regular(path)

    assert it.value.filename == str(path)


def test_a_regular_file_and_a_link_to_one_are_read(tmp_path):
    (tmp_path / "file").write_bytes(b"bytes")
    (tmp_path / "link").symlink_to("file")

    assert read_bytes(tmp_path / "file") == read_bytes(tmp_path / "link") == b"bytes"


def test_a_file_that_is_not_there_is_an_os_error_as_ever(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "file")


def test_a_file_that_is_too_large_to_be_read_as_a_whole_is_refused(tmp_path):
    path = tmp_path / "tokenizer.model"
    path.touch()
    os.truncate(path, 10**12)  # without blocks on the disk

    with pytest.raises(FileFormatError, match="has 1000000000000 bytes; expected"):
        read_bytes(path)
