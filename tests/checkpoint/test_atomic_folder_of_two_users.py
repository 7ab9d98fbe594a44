"""Another user who can write to the folder above can neither read nor exchange what is written."""

from __future__ import annotations

import os
import stat

import pytest
from other_user import OTHER, VICTIM, as_user, sticky

from llamakit.checkpoint.atomic_folder import atomic_folder, remove_leftovers
from llamakit.errors import DestinationError

__all__ = ["sticky"]


def make(path, text="new"):
    path.mkdir()
    (path / "file").write_text(text)


def replace(destination):
    with atomic_folder(destination, force=True) as folder:
        make(folder)


@pytest.fixture
def precious(sticky):
    """A folder of the victim's."""
    place = sticky / "precious"
    as_user(VICTIM, lambda: make(place, "precious"))
    return place


def test_a_planted_leftover_is_neither_put_back_nor_removed(sticky, precious):
    planted = sticky / ".out.llamakit-00000000"

    def plant():
        planted.mkdir(mode=0o755)
        (planted / "replaced").symlink_to(precious)

    as_user(OTHER, plant)

    as_user(VICTIM, lambda: replace(sticky / "out"))
    as_user(VICTIM, lambda: replace(sticky / "out"))

    assert (precious / "file").read_text() == "precious"
    assert not (sticky / "out").is_symlink()
    assert (planted / "replaced").is_symlink()


def test_an_own_leftover_that_others_could_write_to_stays(sticky, precious):
    left = sticky / ".out.llamakit-00000000"

    def leave():
        left.mkdir()
        left.chmod(0o777)

    as_user(VICTIM, leave)
    as_user(OTHER, lambda: (left / "replaced").symlink_to(precious))

    as_user(VICTIM, lambda: remove_leftovers(sticky / "out"))

    assert left.is_dir()
    assert not os.path.lexists(sticky / "out")
    assert (precious / "file").read_text() == "precious"


def test_a_link_in_an_own_leftover_is_not_put_back(tmp_path):
    make(tmp_path / "precious", "precious")
    (tmp_path / ".out.llamakit-01234567").mkdir()
    (tmp_path / ".out.llamakit-01234567" / "replaced").symlink_to(tmp_path / "precious")

    remove_leftovers(tmp_path / "out")

    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    assert (tmp_path / "precious" / "file").read_text() == "precious"


def test_force_does_not_follow_a_link_that_another_user_planted(sticky, precious):
    as_user(OTHER, lambda: (sticky / "out").symlink_to(precious))

    def force():
        with pytest.raises(DestinationError, match=r"link that another user \(uid 65534\)"):
            replace(sticky / "out")

    as_user(VICTIM, force)

    assert (precious / "file").read_text() == "precious"
    assert sorted(path.name for path in sticky.iterdir()) == ["out", "precious"]


def test_nobody_else_can_enter_the_folder_that_is_written(sticky):
    def write():
        with atomic_folder(sticky / "out") as folder:
            make(folder)
            (sticky / "seen").write_text(folder.parent.name)
            assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700

    as_user(VICTIM, write)

    assert len((sticky / "seen").read_text()) == len(".out.llamakit-") + 16
    assert stat.S_IMODE((sticky / "out").stat().st_mode) == 0o777 & ~_umask()


def test_what_a_link_in_a_leftover_leads_to_stays(tmp_path):
    make(tmp_path / "precious", "precious")
    left = tmp_path / ".out.llamakit-01234567"
    left.mkdir()
    (left / "out").symlink_to(tmp_path / "precious")

    with atomic_folder(tmp_path / "out") as folder:
        assert not left.exists()
        make(folder)

    assert (tmp_path / "precious" / "file").read_text() == "precious"


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_folder_of_the_user_s_that_was_given_a_leftover_s_name_stays(sticky, precious):
    """Where the folder above is not sticky, everybody may rename everything in it."""
    sticky.chmod(0o777)
    taken = sticky / ".out.llamakit-0123456789abcdef"
    as_user(OTHER, lambda: precious.rename(taken))

    as_user(VICTIM, lambda: replace(sticky / "out"))

    assert (taken / "file").read_text() == "precious"
    assert (sticky / "out" / "file").read_text() == "new"
