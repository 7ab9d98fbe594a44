"""Files of a source that are written where a plan wants them: in any order, and back."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from llamakit import api
from llamakit.convert.export import plan_hf
from llamakit.convert.file_frames import complete_files
from llamakit.convert.meta_format import plan_safetensors, plan_shards
from llamakit.convert.scatter import digest, scatter
from llamakit.convert.source_files import find_tokenizer
from llamakit.errors import UnsupportedModelError
from llamakit.protocols import ToolCommand

PARAMS = {"dim": 64, "n_layers": 2, "n_heads": 8, "vocab_size": 96, "multiple_of": 32}
GROUPED = PARAMS | {"n_kv_heads": 2, "norm_eps": 1e-5}


@pytest.fixture(scope="module")
def sources(make_meta, tmp_path_factory):
    """The same kind of model in several formats; of the grouped one, shards repeat heads."""
    root = tmp_path_factory.mktemp("sources")
    folders = {
        "one": make_meta(root / "one", PARAMS | {"norm_eps": 1e-5}, 1, freqs=True),
        "eight": make_meta(root / "eight", PARAMS | {"norm_eps": 1e-5}, 8),
        "repeated": make_meta(root / "repeated", GROUPED, 8),
        "rows": make_meta(root / "rows", GROUPED, 2, axis=0),
    }
    api.export(folders["repeated"], root / "hf", "hf", max_shard_size="100KB")
    return {name: api.open_checkpoint(path) for name, path in folders.items()} | {
        "hf": api.open_checkpoint(root / "hf")
    }


def planned(checkpoint, target, destination):
    if target == "hf":
        folder, options = checkpoint.path, {"max_shard_size": "100KB"}
        return plan_hf(checkpoint, destination, options, folder, find_tokenizer(folder))[0]
    if target == "safetensors":
        command = ToolCommand("export", {"format": "safetensors"})
        return plan_safetensors(checkpoint, destination, command)
    return plan_shards(checkpoint, destination, target)


def chunks(nbytes, chance):
    """Cut a file into pieces of any length, in any order."""
    ends = sorted({0, nbytes, *(chance.randrange(nbytes) for _ in range(40))})
    spans = list(pairwise(ends))
    chance.shuffle(spans)
    return spans


CASES = [
    *(("one", target) for target in (1, 4, "hf", "safetensors")),
    *(("eight", target) for target in (1, 2, 8, "hf")),
    *(("repeated", target) for target in (1, 4, 8, "hf", "safetensors")),
    *(("rows", target) for target in (1, 8, "hf")),
    *(("hf", target) for target in (1, 8)),
]


@pytest.mark.parametrize(("name", "target"), CASES)
def test_scattered_bytes_are_those_of_the_conversion(sources, tmp_path, name, target):
    checkpoint, chance = sources[name], random.Random(0)
    plan = planned(checkpoint, target, tmp_path / "expected")
    written = [bytearray(file.nbytes) for file in plan.weights]

    for path, file_map in scatter(plan).items():
        data = path.read_bytes()
        for start, stop in chunks(len(data), chance):
            for source, file, offset, nbytes in file_map.pieces(start, stop):
                assert start <= source
                assert source + nbytes <= stop
                written[file][offset : offset + nbytes] = data[source : source + nbytes]

    (tmp_path / "scattered").mkdir()
    for file, content in zip(plan.weights, written, strict=True):
        (tmp_path / "scattered" / file.name).write_bytes(content)
    steps = complete_files(plan.weights, tmp_path / "scattered")
    md5s = finished(steps)
    convert(checkpoint, tmp_path / "expected", target)
    for file in plan.weights:
        expected = (tmp_path / "expected" / file.name).read_bytes()
        assert (tmp_path / "scattered" / file.name).read_bytes() == expected, file.name
    if plan.has_checklist:
        listed = (tmp_path / "expected" / "checklist.chk").read_text()
        assert all(f"{md5}  {name}" in listed for name, md5 in md5s.items())


@pytest.mark.parametrize(("name", "target"), CASES)
def test_every_byte_of_a_source_is_in_the_result_or_in_a_gap(sources, tmp_path, name, target):
    plan = planned(sources[name], target, tmp_path / "result")

    for path, file_map in scatter(plan).items():
        nbytes = path.stat().st_size
        seen = bytearray(nbytes)
        for source, _, _, length in file_map.pieces(0, nbytes):
            seen[source : source + length] = b"\1" * length
        for start, stop in file_map.gaps(0, nbytes):
            assert not any(seen[start:stop])
            seen[start:stop] = b"\1" * (stop - start)
        assert all(seen)


def test_plans_that_write_elsewhere_have_other_digests(sources, tmp_path):
    plans = [planned(sources["eight"], target, tmp_path / "it") for target in (1, 2, 4, "hf", "hf")]

    digests = [digest(scatter(plan), plan) for plan in plans]

    assert len(set(digests)) == 4
    assert digests[-1] == digests[-2]


def test_values_that_are_cast_are_refused(sources, tmp_path):
    plan = plan_shards(sources["eight"], tmp_path / "it", 2, dtype="float32")

    with pytest.raises(UnsupportedModelError, match="Download the model, and convert it then"):
        scatter(plan)


def finished(steps):
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def convert(checkpoint, destination, target):
    if isinstance(target, int):
        api.reshard(checkpoint, destination, target)
    elif target == "hf":
        api.export(checkpoint, destination, "hf", max_shard_size="100KB")
    else:
        api.export(checkpoint, destination, target)
