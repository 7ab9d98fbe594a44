"""From Meta's format through each pair of formats and back: every bit is as it was.

``data/formats_held.json`` says by reference case which format holds it: nothing, or what is said
where it is refused. The table of ``docs/reference/formats.md`` is made of it.
"""

from __future__ import annotations

import json
import subprocess
from itertools import pairwise, product
from pathlib import Path

import pytest
from plugin_packages import good
from round_trips import FORMATS

HERE = Path(__file__).parent
HELD = json.loads((HERE / "data" / "formats_held.json").read_text("utf-8"))
NAMES = list(FORMATS)


@pytest.fixture
def differences(environment, isolated, reference_cases, reference_cases_llama3, tmp_path):
    """Take a case there and back; all pairs in one process, for starting it takes longest."""

    def run(case, pairs):
        folders = (reference_cases / case, reference_cases_llama3 / case)
        source = next(folder for folder in folders if folder.is_dir())
        done = subprocess.run(
            [
                *(environment.python, HERE / "round_trips.py", tmp_path),
                json.dumps([[str(source), pairs]]),
            ],
            env=isolated,
            cwd=tmp_path,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        return json.loads(good(done))[case]

    return run


def assert_kept_or_refused(case, pairs, found):
    """Assert that what both formats hold is as it was, and that the rest is refused by name."""
    assert list(found) == [f"{first} {second}" for first, second in pairs]
    for first, second in pairs:
        refused = HELD[case][first] or HELD[case][second]
        said = found[f"{first} {second}"]
        assert refused in said[0] if refused else said == [], (case, first, second, said)


def test_each_format_gives_back_what_came_from_another(differences):
    pairs = list(pairwise([*NAMES, NAMES[0]]))

    found = differences("gqa-mp1", pairs)

    assert_kept_or_refused("gqa-mp1", pairs, found)


def test_what_a_format_cannot_hold_is_refused_by_name(differences):
    pairs = [("meta", name) for name in NAMES]

    found = differences("llama4-moe-mp2", pairs)

    assert_kept_or_refused("llama4-moe-mp2", pairs, found)
    assert sum(said != [] for said in found.values()) == sum(
        map(bool, HELD["llama4-moe-mp2"].values())
    )


@pytest.mark.soak
@pytest.mark.parametrize("case", HELD)
def test_each_pair_of_formats_keeps_every_bit_of_each_case(differences, case):
    pairs = list(product(NAMES, NAMES))

    found = differences(case, pairs)

    assert_kept_or_refused(case, pairs, found)
