"""``llamakit-dcp``, installed, from the shell."""

from __future__ import annotations

import pytest
from plugin_packages import good

import llamakit


@pytest.mark.parametrize("name", ["gqa-mp1", "mha-mp8"])
@pytest.mark.parametrize("names", ["torchtitan", "huggingface"])
def test_there_and_back_keeps_every_byte(run, reference_cases, tmp_path, name, names):
    words = ("--format", "dcp", "--option", f"names={names}", "--option", "shards=3")

    good(run("export", reference_cases / name, "dcp", *words))
    good(run("reshard", "dcp", "back", "-n", "8" if name == "mha-mp8" else "1"))

    before = llamakit.open_checkpoint(reference_cases / name)
    after = llamakit.open_checkpoint(tmp_path / "back")
    assert set(before.parameters) - set(after.parameters) <= {"rope.freqs"}
    for parameter in after.parameters:
        assert after.read(parameter).tobytes() == before.read(parameter).tobytes()


def test_a_program_in_an_index_is_refused_in_one_line(run, tmp_path):
    (tmp_path / "evil").mkdir()
    program = f"cos\nsystem\n(X\x01\x00\x00\x00xtR.{tmp_path}".encode()
    (tmp_path / "evil" / ".metadata").write_bytes(program)

    done = run("inspect", "evil")

    assert done.returncode == 1
    assert done.stderr.startswith("llamakit: error: evil/.metadata asks for os.system")
    assert "Traceback" not in done.stderr
