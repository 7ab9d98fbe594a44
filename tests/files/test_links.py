"""Links of other users are not followed when something is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from other_user import OTHER, VICTIM, as_user, sticky

from llamakit.errors import DestinationError
from llamakit.files.atomic_file import write_atomically
from llamakit.files.links import follow_own_links, leads_outside, make_folders

__all__ = ["sticky"]


def test_a_link_that_another_user_planted_is_not_written_through(sticky):
    victims = sticky / "precious"
    as_user(VICTIM, lambda: victims.write_text("precious"))
    as_user(OTHER, lambda: (sticky / "chat.json").symlink_to(victims))

    def save():
        with pytest.raises(DestinationError, match=r"link that another user \(uid 65534\)"):
            write_atomically(sticky / "chat.json", b"x")

    as_user(VICTIM, save)
    assert victims.read_text() == "precious"


def test_a_leftover_that_another_user_planted_stays(sticky):
    left = sticky / f".file.llamakit-{'0' * 16}"
    as_user(OTHER, lambda: left.write_text("theirs"))

    write_atomically(sticky / "file", b"x")

    assert left.read_text() == "theirs"


def test_a_folder_that_another_user_planted_is_not_downloaded_into(sticky):
    as_user(OTHER, (sticky / "llama-2-7b").mkdir)

    with pytest.raises(DestinationError, match="belongs to another user"):
        make_folders(sticky, Path("llama-2-7b"))


def test_a_link_to_a_folder_that_another_user_planted_is_not_downloaded_into(sticky, tmp_path):
    (tmp_path / "precious").mkdir()
    as_user(OTHER, lambda: (sticky / "llama-2-7b").symlink_to(tmp_path / "precious"))

    with pytest.raises(DestinationError, match="another user"):
        make_folders(sticky, Path("llama-2-7b/inside"))

    assert not list((tmp_path / "precious").iterdir())


def test_a_colleagues_folder_is_used_where_not_everybody_can_write(tmp_path):
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o011)
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o770)
    (shared / "llama-2-7b").mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to another user")
    os.chown(shared / "llama-2-7b", OTHER, OTHER)

    assert make_folders(shared, Path("llama-2-7b")) == shared / "llama-2-7b"


def test_own_links_are_followed_and_folders_made(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "models").symlink_to("disk")

    assert follow_own_links(tmp_path / "models") == tmp_path / "disk"
    assert make_folders(tmp_path, Path("models/a/b")) == tmp_path / "disk" / "a" / "b"
    assert (tmp_path / "disk" / "a" / "b").is_dir()


def test_where_the_links_of_a_checkpoint_lead(tmp_path):
    model = tmp_path / "llama-2-7b"
    model.mkdir()
    (tmp_path / "tokenizer.model").write_text("")
    (tmp_path / "private").write_text("")
    (model / "tokenizer.model").symlink_to("../tokenizer.model")
    (model / "params.json").symlink_to("../private")
    (model / "inner").symlink_to("params.json")
    (tmp_path / "alias").symlink_to(model)

    led = {it.name: leads_outside(it, tmp_path / "alias") for it in model.iterdir()}

    private = tmp_path / "private"
    assert led == {"tokenizer.model": None, "params.json": private, "inner": private}


def test_the_links_of_a_hugging_face_cache_are_its_own(tmp_path):
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "aa").write_text("")
    (blobs / "bb").symlink_to("/etc/passwd")
    (snapshot / "config.json").symlink_to("../../blobs/aa")
    (snapshot / "tokenizer.json").symlink_to("../../blobs/bb")

    assert leads_outside(snapshot / "config.json", snapshot) is None
    assert leads_outside(snapshot / "tokenizer.json", snapshot) == Path("/etc/passwd")
