"""No bytes of others make the reader raise anything but a sentence."""

import logging
import shutil
from random import Random

import pytest
from llamakit_dcp.reader import open_dcp

from llamakit import LlamakitError

ODD = (
    b"",
    b"\xff" * 8,
    b"\0" * 8,
    b".",
    b"}",
    b"](",
    b"\x94",
    b"\x93",
    b"R",
    b"b",
    b"\x81",
    b"a" * 300,
)


def mutated(data, random):
    """Return the bytes with up to three places changed."""
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(data))
        length = random.choice((0, 1, 1, 2, 8, 40))
        data = data[:at] + random.choice((*ODD, random.randbytes(2))) + data[at + length :]
    return data


def refusal_of(folder):
    """Return the sentence by which a folder is refused; None if all of it can be read."""
    try:
        checkpoint = open_dcp(folder)
        for parameter in checkpoint.parameters:
            checkpoint.read(parameter)
    except LlamakitError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", [".metadata", "__1_0.distcp"])
def test_mutated_files_are_read_or_refused_in_a_sentence(recorded, tmp_path, caplog, name):
    folder = shutil.copytree(recorded("fsdp-tp"), tmp_path / "copy")
    whole = (folder / name).read_bytes()
    caplog.set_level(logging.CRITICAL, "llamakit")

    refusals = []
    for number in range(30):
        (folder / name).write_bytes(mutated(whole, Random(number)))
        refusals.append(refusal_of(folder))

    said = [refusal for refusal in refusals if refusal is not None]
    assert len(said) > 15
    assert all(20 < len(it) < 2000 and it.isprintable() for it in said)
