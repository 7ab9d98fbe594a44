"""The server has other files and another list than when the list here was fetched."""

from __future__ import annotations

import pytest
from faults import status
from fetching import SHARDED, asked, assert_whole, fetch, files_in, kinds, serve_model, steps
from server import Server

from llamakit.download.checksums import checksum_of
from llamakit.download.events import Finished, Restarted
from llamakit.errors import DamagedFileError, DownloadError, LinkExpiredError

SHARD = "llama-2-7b/consolidated.00.pth"
LIST = "llama-2-7b/checklist.chk"


def change(served, *names):
    """Put other bytes into files of a folder, and their sums into its lists."""
    for name in names:
        old = (served / name).read_bytes()
        new = bytes(reversed(old))
        (served / name).write_bytes(new)
        for checklist in (served / name).parent.glob("*.chk"):
            text = checklist.read_text()
            checklist.write_text(text.replace(checksum_of(old, None), checksum_of(new, None)))


def test_a_file_of_another_version_is_not_taken_without_being_asked_to(server, out):
    fetch(server, out)
    old = (out / LIST).read_bytes()
    change(server.folder, SHARD)
    (out / SHARD).unlink()
    before = len(asked(server))

    for _ in range(2):
        with pytest.raises(DamagedFileError, match=r"server's checklist has changed too.*repair="):
            fetch(server, out)

    assert (out / LIST).read_bytes() == old
    assert not (out / SHARD).exists()
    assert len(asked(server)) == before + 1  # what came is kept


def test_repair_takes_the_new_list_and_fetches_nothing_twice(server, out):
    fetch(server, out)
    change(server.folder, SHARD)
    (out / SHARD).write_bytes(b"damaged" + (out / SHARD).read_bytes())
    before = len(asked(server))

    events = fetch(server, out, repair=True)

    assert_whole(out, server.folder)
    assert len(asked(server)) == before + 1
    assert [event.path for event in events if isinstance(event, Restarted)] == [LIST]
    assert kinds(events).count("Finished") == 1
    assert isinstance(events[-1], Finished)


def test_what_was_refused_before_is_taken_by_repair_without_another_request(server, out):
    fetch(server, out)
    change(server.folder, SHARD)
    (out / SHARD).unlink()
    with pytest.raises(DamagedFileError):
        fetch(server, out)
    before = len(asked(server))

    fetch(server, out, repair=True)

    assert_whole(out, server.folder)
    assert len(asked(server)) == before


def test_all_that_the_new_list_names_is_fetched(tmp_path, out):
    folder = serve_model(tmp_path / "changing", 8, 70_000, "llama-2-70b")
    names = [f"llama-2-70b/consolidated.{number:02d}.pth" for number in range(8)]
    with Server(folder) as server:
        fetch(server, out, model=SHARDED)
        change(folder, *names, "llama-2-70b/params.json")
        (out / names[3]).unlink()

        fetch(server, out, model=SHARDED, repair=True)

        assert_whole(out, folder)
        lists = [one for one in server.requests if one.path.endswith("/checklist.chk")]
        assert len(lists) == 1 + 2  # at first; compared; kept


def test_one_request_for_the_list_tells_of_all_files(tmp_path, out):
    folder = serve_model(tmp_path / "changing", 8, 70_000, "llama-2-70b")
    names = [f"llama-2-70b/consolidated.{number:02d}.pth" for number in range(8)]
    with Server(folder) as server:
        fetch(server, out, model=SHARDED)
        change(folder, *names)
        for name in names:
            (out / name).unlink()
        before = len(server.requests)

        with pytest.raises(DownloadError, match="repair=True") as caught:
            list(steps(server, out, model=SHARDED))

        assert str(caught.value).count("has changed too") == 8
        assert len(asked(server)) == 8 + 8
        new = [one.path for one in server.requests[before:]]
        assert new.count("/llama-2-70b/checklist.chk") == 1


@pytest.mark.parametrize("repair", [True, False])
def test_a_small_file_of_another_version_is_reported_too(server, out, repair):
    fetch(server, out)
    change(server.folder, "tokenizer.model")
    (out / "tokenizer.model").unlink()

    if repair:
        fetch(server, out, repair=True)
        assert_whole(out, server.folder)
        return
    with pytest.raises(DamagedFileError, match=r"than tokenizer_checklist\.chk on disk.*repair="):
        fetch(server, out)
    assert "tokenizer.model" not in files_in(out)


def test_a_list_that_cannot_be_had_changes_nothing(server, out):
    fetch(server, out)
    change(server.folder, SHARD)
    (out / SHARD).unlink()
    server.fault(status(404), path=f"/{LIST}", times=9)
    before = len(asked(server))

    with pytest.raises(DamagedFileError, match="twice: the server's file is damaged"):
        fetch(server, out, repair=True)

    assert len(asked(server)) == before + 2


def test_a_link_that_ends_at_the_list_costs_nothing_of_what_came(large, out):
    fetch(large, out)
    (out / SHARD).unlink()
    right = (out / LIST).read_text()
    (out / LIST).write_text(
        right.replace(checksum_of((large.folder / SHARD).read_bytes(), None), "0" * 32)
    )
    large.fault(status(403), path=f"/{LIST}")
    with pytest.raises(LinkExpiredError):
        fetch(large, out, repair=True)
    before = len(asked(large))

    fetch(large, out, repair=True)

    assert_whole(out, large.folder)
    assert len(asked(large)) == before
