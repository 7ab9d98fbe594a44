"""Random damage to a real checkpoint is noticed, whatever it is and wherever it falls."""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tools_kit import PAGE, REFERENCE_CASES, copy_case

from llamakit import open_checkpoint, verify
from llamakit.errors import LlamakitError

CASES = ("mha-mp8", "gqa-mp1")
PAGES = [PAGE, b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", b"", b"\0" * 512]


@functools.cache
def nbytes(case, file):
    return (REFERENCE_CASES / case / file).stat().st_size


def shards(case):
    return sorted(path.name for path in (REFERENCE_CASES / case).glob("*.pth"))


@st.composite
def damages(draw, *, only_shards=False):
    """Choose a case, and a list of things to do to its files."""
    case = draw(st.sampled_from(CASES))
    files = shards(case) if only_shards else [*shards(case), "params.json"]
    file = draw(st.sampled_from(files))
    end = nbytes(case, file) - 1
    # Headers and directories are a small part of a file, and hold most of what can go wrong.
    place = (
        st.integers(0, end) | st.integers(0, min(end, 4096)) | st.integers(max(0, end - 6000), end)
    )
    kinds = [
        st.tuples(st.just("flip"), st.just(file), place, st.integers(0, 7)),
        st.tuples(st.just("cut"), st.just(file), place),
        st.tuples(st.just("append"), st.just(file), st.binary(min_size=1, max_size=40)),
        st.tuples(st.just("become"), st.just(file), st.sampled_from(PAGES)),
        st.tuples(st.just("delete"), st.just(file)),
    ]
    if len(shards(case)) > 1:
        others = st.sampled_from([it for it in shards(case) if it != shards(case)[0]])
        kinds.append(st.tuples(st.just("swap"), st.just(shards(case)[0]), others))
    return case, draw(st.one_of(kinds))


def do(folder, kind, file, *how):
    path = folder / file
    data = bytearray(path.read_bytes())
    if kind == "flip":
        data[how[0]] ^= 1 << how[1]
    elif kind == "cut":
        del data[how[0] :]
    elif kind == "append":
        data += how[0]
    elif kind == "become":
        data = how[0]
    elif kind == "swap":
        data, other = (folder / how[0]).read_bytes(), bytes(data)
        (folder / how[0]).write_bytes(other)
    if kind == "delete":
        path.unlink()
    else:
        path.write_bytes(data)


@functools.cache
def original(case):
    checkpoint = open_checkpoint(REFERENCE_CASES / case)
    return {name: checkpoint.read(name).tobytes() for name in checkpoint.parameters}


def reads_as_before(folder, case):
    """Say whether every parameter still has the bytes that it had."""
    try:
        checkpoint = open_checkpoint(folder)
        return {
            name: np.ascontiguousarray(checkpoint.read(name)).tobytes()
            for name in checkpoint.parameters
        } == original(case)
    except LlamakitError:
        return False


def damaged(case, damage, *, checklist):
    root = Path(tempfile.mkdtemp(prefix="llamakit-damage-"))
    folder = copy_case(root, case, checklist=checklist)
    do(folder, *damage)
    return root, folder


@settings(max_examples=40)
@given(damages())
def test_any_damage_is_noticed_by_a_checklist(damage):
    case, what = damage
    root, folder = damaged(case, what, checklist=True)

    report = verify(folder)

    shutil.rmtree(root)
    assert not report.good


@settings(max_examples=60)
@given(damages(only_shards=True))
def test_without_a_checklist_deep_notices_all_that_changes_a_weight(damage):
    check_deep(damage)


@pytest.mark.soak
@settings(max_examples=5000)
@given(damages(only_shards=True))
def test_deep_notices_each_of_many(damage):
    check_deep(damage)


def check_deep(damage):
    case, what = damage
    root, folder = damaged(case, what, checklist=False)

    report = verify(folder, deep=True)

    noticed_or_harmless = not report.good or reads_as_before(folder, case)
    shutil.rmtree(root)
    assert noticed_or_harmless


@settings(max_examples=30)
@given(damages(), st.booleans())
def test_verify_never_fails_but_with_an_error_of_its_own(damage, checklist):
    case, what = damage
    root, _ = damaged(case, what, checklist=checklist)

    try:
        verify(root, deep=True)
    except LlamakitError:
        raise AssertionError("a damaged file is a finding, not an error") from None
    finally:
        shutil.rmtree(root)
