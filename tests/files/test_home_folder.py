from pathlib import Path

from llamakit.files.home_folder import expand_home


def test_a_tilde_becomes_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")

    assert expand_home("~/a") == Path("/somewhere/a")


def test_a_user_that_there_is_not_stays_as_written():
    assert expand_home("~no-such-user/a") == Path("~no-such-user/a")
