"""A second user: what another uid does in a child process, in a folder as /tmp is."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

OTHER, VICTIM = 65534, 65533
"""Two uids without files or rights."""


def as_user(uid: int, act: Callable[[], object]) -> None:
    """Do something as another user, in a forked child; fail if it fails there.

    Skips the test where that is not permitted.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can act as two users (os.setuid)")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            act()
            status = 0
        except BaseException:  # noqa: BLE001 - a child that goes on would run the other tests
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.fixture
def sticky(tmp_path: Path) -> Path:
    """A folder that everybody can write to, as /tmp is, and that other users can reach."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.is_relative_to(tempfile.gettempdir()) and folder.stat().st_uid == os.geteuid():
            folder.chmod(folder.stat().st_mode | 0o011)
    place = tmp_path / "sticky"
    place.mkdir()
    place.chmod(0o1777)
    return place
