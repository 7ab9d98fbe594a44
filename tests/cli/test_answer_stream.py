"""``--output`` where it is no file: a stream that is written to, or refused at once."""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
from pathlib import Path

import pytest

from llamakit.cli.answer_file import AnswerFile
from llamakit.cli.answer_stream import AnswerStream, open_answers
from llamakit.errors import DestinationError

ANSWER = {"index": 0, "id": 0, "prompt": "one", "text": "x" * 100_000}


def test_a_fifo_gets_the_answers_as_they_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    read: list[bytes] = []
    opened = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(opened, True)

    def read_all() -> None:
        with os.fdopen(opened, "rb") as file:
            read.append(file.read())

    with open_answers(tmp_path / "fifo") as stream:
        reader = threading.Thread(target=read_all)
        reader.start()
        stream.append(ANSWER)
        stream.append(ANSWER)
    reader.join()

    assert [json.loads(line) for line in read[0].splitlines()] == [ANSWER, ANSWER]


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_is_a_stream(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with open_answers(Path(name)) as stream:
        stream.append({"index": 0})

    assert capfd.readouterr().out == '{"index": 0}\n'


def test_a_pipe_of_a_process_substitution_is_a_stream() -> None:
    reading, writing = os.pipe()
    with open_answers(Path(f"/dev/fd/{writing}")) as stream:
        stream.append({"index": 0})
    os.close(writing)

    with os.fdopen(reading) as file:
        assert file.read() == '{"index": 0}\n'


def test_a_device_takes_answers_or_says_that_it_is_full() -> None:
    with open_answers(Path("/dev/null")) as stream:
        stream.append(ANSWER)
    with open_answers(Path("/dev/full")) as stream, pytest.raises(OSError, match="/dev/full") as e:
        stream.append(ANSWER)

    assert e.value.errno == errno.ENOSPC


def test_what_cannot_be_written_to_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))

        with pytest.raises(DestinationError, match="nobody reads this FIFO"):
            open_answers(tmp_path / "fifo")
        with pytest.raises(DestinationError, match="is a socket"):
            open_answers(tmp_path / "socket")
        with pytest.raises(DestinationError, match="no such open file"):
            open_answers(Path("/dev/fd/999"))


def test_a_file_is_no_stream(tmp_path: Path) -> None:
    with open_answers(tmp_path / "new.jsonl") as new:
        assert isinstance(new, AnswerFile)
    with open_answers(tmp_path / "new.jsonl") as there:
        assert not isinstance(there, AnswerStream)
