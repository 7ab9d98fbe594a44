"""Bytes reach their places whatever the system takes of them at a time."""

from __future__ import annotations

import os

from llamakit.files.system_calls import write_all


def test_what_the_system_takes_in_parts_is_written_in_order(tmp_path, monkeypatch):
    path, write = tmp_path / "part", os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: write(file, data[:3], at))

    with path.open("wb") as file:
        write_all(file.fileno(), memoryview(b"0123456789"), 5)

    assert path.read_bytes() == bytes(5) + b"0123456789"
