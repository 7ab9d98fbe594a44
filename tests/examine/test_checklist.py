"""checklist.chk: what is read, what is refused, and that what is written is read back."""

from __future__ import annotations

import string
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamakit.checkpoint.checklist import format_checklist, read_checklist
from llamakit.errors import DamagedFileError

ONE, TWO = "0" * 31 + "1", "abcdef0123456789" * 2


@pytest.fixture
def write(tmp_path):
    def write(data):
        path = tmp_path / "checklist.chk"
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    return write


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"{ONE}  b.pth\n{TWO}  a.json\n", id="as md5sum writes it"),
        pytest.param(f"{ONE}  b.pth\r\n{TWO}  a.json\r\n", id="CRLF"),
        pytest.param(f"{ONE} *b.pth\n{TWO} *a.json\n", id="binary marks"),
        pytest.param(f"{ONE}  ./b.pth\n{TWO}  .//a.json\n", id="names that begin with ./"),
        pytest.param(f"{ONE}  b.pth\n\n{TWO}  a.json", id="a blank line and no last line end"),
        pytest.param(f"\ufeff{ONE}  b.pth\n{TWO.upper()}  a.json\n", id="a BOM and capitals"),
        pytest.param(f"{ONE}  b.pth\n{ONE}  ./b.pth\n{TWO}  a.json\n", id="said twice, alike"),
    ],
)
def test_a_checklist_is_read_in_order(write, text):
    checklist = read_checklist(write(text))

    assert list(checklist.entries.items()) == [("b.pth", ONE), ("a.json", TWO)]


@pytest.mark.parametrize(
    "name",
    [
        *("../a.pth", "/etc/passwd", "sub/../../a.pth", "..", "./..", "."),
        *("..\\a.pth", "C:\\a.pth", "C:a.pth", "sub/.."),
    ],
)
def test_a_name_outside_the_folder_is_refused(write, name):
    with pytest.raises(DamagedFileError, match=r"line 2 names .* not inside the list's folder"):
        read_checklist(write(f"{ONE}  a.pth\n{TWO}  {name}\n"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(
            f"{ONE}  a\n{ONE[:-1]}  b\n",
            "line 2: .* is of 31 hex digits",
            id="short",
        ),
        pytest.param(f"{ONE}\n", "line 1 is .*expected 32 hex", id="no name"),
        pytest.param(f"a {ONE}\n", "line 1 is .*expected 32 hex", id="the other way round"),
        pytest.param(f"{ONE}  a\n{TWO}  ./a\n", "one MD5 in line 1 and .*line 2", id="both"),
        pytest.param("", "is empty", id="empty"),
        pytest.param("\r\n\r\n", "is empty", id="blank"),
        pytest.param("<html><title>Sign in</title>", 'an HTML page .*"Sign in"', id="HTML"),
        pytest.param(
            '<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
            'an XML error page .*"AccessDenied"',
            id="XML",
        ),
        pytest.param(b"\x00\xff\xfe binary", "not text|line 1", id="binary"),
        pytest.param(f"{ONE}  a\x1b[2J\n", "printable", id="control characters"),
    ],
)
def test_what_is_no_checklist_is_refused_with_a_reason(write, data, words):
    with pytest.raises(DamagedFileError, match=words):
        read_checklist(write(data))


def test_a_checklist_that_is_not_there_is_our_own_error(tmp_path):
    with pytest.raises(DamagedFileError, match="cannot be read: No such file"):
        read_checklist(tmp_path / "checklist.chk")


NAMES = st.text(string.ascii_letters + string.digits + "._- é", min_size=1).filter(
    lambda name: name not in (".", "..")
)


@given(st.dictionaries(NAMES, st.text("0123456789abcdef", min_size=32, max_size=32), min_size=1))
def test_what_is_written_is_read_back(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("list") / "checklist.chk"

    path.write_text(format_checklist(entries), encoding="utf-8")

    assert list(read_checklist(path).entries.items()) == list(entries.items())


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("list") / "checklist.chk"
    path.write_bytes(data)

    try:
        entries = read_checklist(path).entries
    except DamagedFileError:
        return

    assert entries


def test_md5sum_takes_what_is_written(tmp_path, reference_cases):
    from llamakit.checkpoint.hashing import md5_files

    shards = sorted((reference_cases / "mha-mp8").glob("*.pth"))
    sums = {path.name: md5 for path, md5 in md5_files(shards).items()}
    (tmp_path / "list").write_text(format_checklist(sums))

    done = subprocess.run(
        ["md5sum", "-c", "--strict", tmp_path / "list"], cwd=shards[0].parent, check=False
    )

    assert done.returncode == 0


@pytest.mark.parametrize("name", ["../a", "/a", "a\nb", "./a", ""])
def test_a_name_that_could_not_be_read_back_is_not_written(name):
    with pytest.raises(ValueError, match=r"inside|printable|read back|expected"):
        format_checklist({name: ONE})
