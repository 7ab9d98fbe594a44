"""On a terminal: the link is asked for and not shown, models are chosen, a new link continues."""

from __future__ import annotations

import pytest
from download_kit import SIGNATURE, make_model, signed_query
from faults import status
from fetching import MB, SHARDS, assert_whole, fetch, files_in
from server import Server
from terminals import ended

NAMES = ["7b", "7b-chat", "13b", "13b-chat", "70b", "70b-chat"]


def test_a_link_is_asked_for_and_not_shown(server, terminal, out):
    child = terminal("7B")

    child.expect(r"Link \(it is not shown\): ")
    child.sendline(f"'{server.link}'")

    assert ended(child) == 0
    assert_whole(out, server.folder)
    shown = str(child.logfile_read)
    assert "Everything is there and verified" in shown
    assert not [part for part in server.link.partition("?")[2].split("&") if part[-40:] in shown]


def test_no_bar_is_left_where_the_last_line_is(server, terminal, out):
    fetch(server, out)
    child = terminal("7B")

    assert ended(child) == 0
    shown = str(child.logfile_read)
    assert "verifying files on disk" in shown
    last = shown.rpartition("\x1b[2K")[2]  # what follows when the bar's line was erased
    assert "checking" not in last
    assert "Everything is there and verified" in last


def test_the_link_is_asked_for_where_no_bar_is_drawn_any_more(server, terminal, out):
    fetch(server, out)
    next(out.rglob("params.json")).unlink()
    child = terminal("7B")

    child.expect(r"Link \(it is not shown\): ")

    before = str(child.logfile_read)
    assert "verifying files on disk" in before
    assert before.rindex("\x1b[?25h") > before.rindex("verifying files on disk")  # cursor is back
    child.sendline(server.link)
    assert ended(child) == 0


def test_when_the_link_ends_a_new_one_is_asked_for_and_nothing_is_fetched_twice(
    large, terminal, out
):
    large.fault(status(403), path=SHARDS, skip=3)
    child = terminal("7B", "--connections", "2", LLAMAKIT_URL=large.link)
    child.expect("the link has expired")
    child.expect(r"New link \(it is not shown\): ")
    new = signed_query("http://127.0.0.1:*", signature="NEW" + SIGNATURE[3:])
    large.revoke(new)

    child.sendline("https://download6.llamameta.net/*?" + signed_query())  # of another family
    child.expect("the link is for Llama 3")
    child.expect("New link")
    child.sendline(large.link)

    assert ended(child) == 0
    assert_whole(out, large.folder)
    assert large.nbytes < 20 * MB + 100_000
    shown = str(child.logfile_read)
    assert new[-60:] not in shown
    assert SIGNATURE[:40] not in shown
    assert SIGNATURE[-40:] not in shown


def test_ctrl_c_instead_of_a_link_ends_with_130(server, terminal):
    child = terminal("7B")
    child.expect("Link")

    child.sendintr()

    assert ended(child) == 130
    assert server.requests == []


@pytest.fixture(scope="module")
def all_models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("all") / "served"
    for name in NAMES:
        shards = 8 if "70b" in name else 2 if "13b" in name else 1
        make_model(folder, f"llama-2-{name}", shards, nbytes=5000)
    return folder


def test_enter_at_the_list_of_models_means_all_of_the_links_family(all_models, terminal, out):
    with Server(all_models) as server:
        child = terminal(LLAMAKIT_URL=server.link)
        child.expect(r"13B-chat +26 GB")
        child.expect(r"Models \(Enter: all of the link's family\): ")

        child.sendline("")

        child.expect("all means the family that a link of Meta's is for")
        assert ended(child) == 2


def test_models_are_typed_at_the_list(all_models, terminal, out):
    with Server(all_models) as server:
        child = terminal(LLAMAKIT_URL=server.link)
        child.expect("Models")

        child.sendline("7B, 13b-chat")

        assert ended(child) == 0
    folders = {name.partition("/")[0] for name in files_in(out) if "/" in name}
    assert folders == {"llama-2-7b", "llama-2-13b-chat"}
