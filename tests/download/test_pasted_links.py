"""A link is pasted at the prompt as a mail client has wrapped it, and none of it is shown."""

from __future__ import annotations

import sys
from datetime import datetime, timezone

import pexpect
import pytest
from download_kit import SIGNATURE, signed_query
from faults import status
from fetching import SHARDS, assert_whole
from terminals import Shown, ended

PROMPT = r"Link \(it is not shown\): "
BEGIN, END = "\x1b[200~", "\x1b[201~"


def wrapped(link, width=76):
    return "\n".join(link[at : at + width] for at in range(0, len(link), width))


def assert_not_shown(child, text):
    """Check that no piece of a string was on the terminal."""
    shown = str(child.logfile_read)
    words = text.partition("?")[2]
    assert not [at for at in range(0, len(words) - 16, 8) if words[at : at + 16] in shown]


@pytest.mark.parametrize("width", [76, 40, 200])
def test_the_lines_of_a_link_are_joined(server, terminal, out, width):
    child = terminal("7B")
    child.expect(PROMPT)

    child.send("> " + wrapped(server.link, width).replace("\n", "\n> ") + "\n")

    assert ended(child) == 0
    assert_whole(out, server.folder)
    assert_not_shown(child, server.link)


def test_a_paste_that_the_terminal_marks_ends_with_enter_only(server, terminal, out):
    child = terminal("7B")
    child.expect_exact("\x1b[?2004h")
    child.expect(PROMPT)

    child.send(BEGIN + wrapped(server.link)[:300])
    child.send(wrapped(server.link)[300:] + "\nKind regards,\nMeta\n" + END)
    child.send("\n")
    child.expect_exact("\x1b[?2004l")

    assert ended(child) == 0
    assert_whole(out, server.folder)
    assert_not_shown(child, server.link)


def test_what_is_not_the_whole_link_is_asked_on_for(server, terminal, out):
    child = terminal("7B")
    child.expect(PROMPT)

    for part in server.link.replace("&", " &").split():
        child.sendline(part)
        if "Key-Pair-Id" not in part:
            child.expect(
                "The link is incomplete: paste the rest, or press Enter to use it as it is: "
            )

    assert ended(child) == 0
    assert_whole(out, server.folder)
    assert_not_shown(child, server.link)


def test_enter_leaves_a_link_as_it_is(server, terminal):
    child = terminal("7B")
    child.expect(PROMPT)
    child.sendline(server.link.partition("&")[0])
    child.expect("The link is incomplete")

    child.send(BEGIN + END + "\n")

    child.expect("the link is incomplete: it has no Signature and no Key-Pair-Id")
    assert ended(child) == 2
    assert server.requests == []
    assert_not_shown(child, server.link)


def test_a_whole_message_on_one_line_is_not_cut(server, terminal, out):
    """A terminal's driver keeps 4095 characters of a line that it edits itself."""
    child = terminal("7B")
    child.expect(PROMPT)
    words = " ".join(["Thank you for your interest in Llama 2."] * 150)
    assert len(words) > 5000

    child.send(f"{words} {server.link} {words}\n")

    assert ended(child) == 0
    assert_whole(out, server.folder)
    assert_not_shown(child, server.link)


def test_what_is_no_message_at_all_is_refused_and_not_shown(server, terminal):
    child = terminal("7B")
    child.expect(PROMPT)
    text = "?secretsecretsecret" * 5000

    child.send(text + "\n")

    child.expect("longer than 64 KiB")
    assert ended(child) == 2
    assert_not_shown(child, text)


def test_keys_that_take_back_do_so(server, terminal, out):
    child = terminal("7B")
    child.expect(PROMPT)

    child.send("nonsense\x15")  # Ctrl-U
    child.send(f"'{server.link}xyz\x7f\x7f\x08\x1b[D\x1bOC'\n")

    assert ended(child) == 0
    assert_whole(out, server.folder)


def test_nothing_is_asked_for_again_and_ctrl_d_gives_up(server, terminal):
    child = terminal("7B")
    child.expect(PROMPT)

    child.sendline("")
    child.expect(PROMPT)
    child.send("\x04")

    child.expect("llamakit: aborted")
    assert ended(child) == 1
    assert server.requests == []


def test_a_new_link_may_have_many_lines_too(large, terminal, out):
    large.fault(status(403), path=SHARDS, skip=1)
    child = terminal("7B", LLAMAKIT_URL=large.link)
    child.expect(r"New link \(it is not shown\): ")
    ends = datetime(2031, 2, 3, tzinfo=timezone.utc)
    query = signed_query("http://127.0.0.1:*", ends, "NEW" + SIGNATURE[3:])
    large.revoke(query)

    child.send(wrapped(large.link) + "\n")

    assert ended(child) == 0
    assert_whole(out, large.folder)
    assert_not_shown(child, large.link)


@pytest.mark.parametrize("keys", ["\x03", "\x04", "nonsense\n"], ids=["ctrl-c", "ctrl-d", "a word"])
def test_the_terminal_is_left_as_it_was(isolated, tmp_path, keys):
    command = f"trap : INT; {sys.executable} -m llamakit download 7B; stty -a"
    child = pexpect.spawn(
        "/bin/sh", ["-c", command], env=isolated | {"TERM": "xterm"}, cwd=tmp_path, encoding="utf-8"
    )
    child.logfile_read = Shown()
    child.expect(PROMPT, timeout=180)

    child.send(keys)

    child.expect(pexpect.EOF, timeout=180)
    child.close()
    settings = str(child.logfile_read).replace(";", " ").split()
    assert {"icanon", "echo", "iexten"} <= set(settings)
