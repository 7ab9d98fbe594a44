"""From any valid number of shards to any other."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import subprocess
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from lazy_torch import needs_torch, torch

from llamakit.api import diff, open_checkpoint, plan_reshard, reshard
from llamakit.checkpoint.params import hidden_dim
from llamakit.checkpoint.pth_reader import PthFile
from llamakit.checkpoint.shard_plan import valid_sizes
from llamakit.convert import disk
from llamakit.convert.source_checksums import read_in_order
from llamakit.errors import (
    DamagedFileError,
    DestinationError,
    NoSpaceError,
    OptionError,
    ParametersError,
    PluginError,
    UnevenSplitError,
)

pytestmark = pytest.mark.filterwarnings("error")

GQA = {"dim": 16, "n_layers": 2, "n_heads": 8, "n_kv_heads": 2, "vocab_size": 24} | {
    "multiple_of": 16,
    "norm_eps": 1e-5,
}


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@st.composite
def models(draw):
    kv_heads = draw(st.sampled_from([1, 2, 3, 4]))
    heads = kv_heads * draw(st.sampled_from([1, 2, 4]))
    head_dim = 2 * draw(st.integers(1, 3))
    params = {
        "dim": heads * head_dim,
        "n_layers": draw(st.integers(1, 2)),
        "n_heads": heads,
        "n_kv_heads": kv_heads,
        "vocab_size": heads * draw(st.integers(1, 5)),
        "multiple_of": heads * draw(st.integers(1, 3)),
        "norm_eps": 1e-5,
    }
    sizes = [size for size in range(1, heads + 1) if _fits(params, size)]
    return (
        params,
        draw(st.lists(st.sampled_from(sizes), min_size=2, max_size=3)),
        draw(st.sampled_from([0, 1])),
        draw(st.sampled_from(["float32", "float16", "bfloat16"])),
        draw(st.booleans()),
    )


def _fits(params, size):
    hidden = hidden_dim(params["dim"], params["multiple_of"])
    kv_heads = params["n_kv_heads"]
    whole = (params["n_heads"], params["vocab_size"], hidden)
    return not any(it % size for it in whole) and (not kv_heads % size or not size % kv_heads)


@settings(max_examples=25)
@given(model=models())
def test_there_and_back_keeps_every_byte(make_meta, model):
    params, (first, *others), axis, dtype, freqs = model
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = make_meta(folder / "0", params, first, axis=axis, dtype=dtype, freqs=freqs)
        if first == 1 and axis == 0:
            (source / "reshard.json").write_text('{"embedding_axis": 0}')
        (source / "tokenizer.model").write_bytes(b"a tokenizer")

        at = source
        for number, size in enumerate([*others, first], 1):
            reshard(at, folder / str(number), size)
            at = folder / str(number)
            expected = make_meta(folder / f"e{number}", params, size, axis=axis, dtype=dtype)
            for shard in expected.glob("*.pth"):
                want = torch.load(shard)
                for mmap in (False, True):
                    got = torch.load(at / shard.name, weights_only=True, mmap=mmap)
                    assert ("rope.freqs" in got) == freqs
                    for parameter, tensor in want.items():
                        assert got[parameter].dtype == tensor.dtype
                        assert torch.equal(got[parameter], tensor), parameter

        reshard(at, folder / "again", first)
        assert files(at) == files(folder / "again") or _only_origin_differs(at, folder / "again")


def _only_origin_differs(one, other):
    """The origin names the folder that was read, and the checklist has the origin's sum."""
    ones, others = files(one), files(other)
    told = ("llamakit.json", "checklist.chk")
    return {k: v for k, v in ones.items() if k not in told} == {
        k: v for k, v in others.items() if k not in told
    }


@pytest.fixture
def source(make_meta, tmp_path):
    folder = make_meta(tmp_path / "model" / "eight", GQA, 8)
    (folder.parent / "tokenizer.model").write_bytes(b"a tokenizer")
    return folder


def test_the_same_source_gives_the_same_bytes(source, tmp_path):
    reshard(source, tmp_path / "one", 4)
    reshard(source, tmp_path / "other", 4)

    assert files(tmp_path / "one") == files(tmp_path / "other")


def test_every_way_to_a_size_gives_the_same_shards(source, tmp_path):
    reshard(source, tmp_path / "direct", 1)
    reshard(source, tmp_path / "four", 4)
    reshard(tmp_path / "four", tmp_path / "indirect", 1)

    assert _only_origin_differs(tmp_path / "direct", tmp_path / "indirect")


def test_the_checklist_is_what_md5sum_says(source, tmp_path):
    report = reshard(source, tmp_path / "out", 2)

    check = subprocess.run(["md5sum", "-c", "checklist.chk"], cwd=tmp_path / "out", check=False)
    assert check.returncode == 0
    listed = {line[34:] for line in (tmp_path / "out" / "checklist.chk").read_text().splitlines()}
    assert listed == set(files(tmp_path / "out")) - {"checklist.chk"}
    sums = {file["name"]: file["md5"] for file in report["files"]}
    for name, data in files(tmp_path / "out").items():
        assert sums[name] in (None, hashlib.md5(data).hexdigest())


def test_every_zip_is_whole(source, tmp_path):
    reshard(source, tmp_path / "out", 2)

    for path in (tmp_path / "out").glob("*.pth"):
        assert zipfile.ZipFile(path).testzip() is None


def test_the_plan_is_what_comes_true(source, tmp_path):
    plan = plan_reshard(source, tmp_path / "out", 4)
    expected = plan.files
    report = reshard(source, tmp_path / "out", 4)

    assert {name: len(data) for name, data in files(tmp_path / "out").items()} == expected
    assert report["nbytes"] == plan.nbytes == sum(expected.values())
    assert report["nbytes_read"] == plan.nbytes_read


def test_params_and_tokenizer_come_along(source, tmp_path):
    reshard(source, tmp_path / "out", 2)

    assert json.loads((tmp_path / "out" / "params.json").read_text()) == GQA
    assert (tmp_path / "out" / "tokenizer.model").read_bytes() == b"a tokenizer"


def test_no_tokenizer_is_a_warning(make_meta, tmp_path, caplog):
    source = make_meta(tmp_path / "deep" / "model", GQA, 2)

    reshard(source, tmp_path / "out", 1)

    assert "no tokenizer.model" in caplog.text


@pytest.mark.parametrize("axis", [0, 1])
def test_one_shard_remembers_how_the_embedding_is_split(make_meta, tmp_path, axis, tensor_bytes):
    source = make_meta(tmp_path / "two", GQA, 2, axis=axis)
    (source / "tokenizer.model").write_bytes(b"a tokenizer")

    reshard(source, tmp_path / "one", 1)
    reshard(tmp_path / "one", tmp_path / "back", 2)

    assert open_checkpoint(tmp_path / "one").embedding_axis == axis
    assert tensor_bytes(open_checkpoint(tmp_path / "back")) == tensor_bytes(open_checkpoint(source))
    for path in source.glob("*.pth"):
        back = torch.load(tmp_path / "back" / path.name)
        assert all(torch.equal(back[name], it) for name, it in torch.load(path).items())


@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("wanted", ["float32", "float16", "bfloat16"])
def test_a_cast_is_torchs(make_meta, tmp_path, stored, wanted):
    source = make_meta(tmp_path / "two", GQA, 2, dtype=stored)
    (source / "tokenizer.model").write_bytes(b"a tokenizer")

    reshard(source, tmp_path / "out", 2, dtype=wanted)

    for path in source.glob("*.pth"):
        cast = torch.load(tmp_path / "out" / path.name)
        for name, tensor in torch.load(path).items():
            assert torch.equal(cast[name], tensor.to(getattr(torch, wanted)))


def test_values_that_a_cast_makes_infinite_are_reported(tmp_path, source, caplog):
    shard = torch.load(source / "consolidated.03.pth")
    shard = {name: tensor.float() for name, tensor in shard.items()}
    for path in source.glob("*.pth"):
        torch.save({name: it.float() for name, it in torch.load(path).items()}, path)
    shard["output.weight"][0, 0] = 1e30
    torch.save(shard, source / "consolidated.03.pth")

    reshard(source, tmp_path / "out", 1, dtype="float16")

    assert "output.weight: 1 values were too large" in caplog.text


def test_an_unknown_dtype_is_refused(source, tmp_path):
    with pytest.raises(OptionError, match="int8"):
        reshard(source, tmp_path / "out", 1, dtype="int8")


def test_an_illegal_size_is_refused_with_those_that_fit(source, tmp_path):
    with pytest.raises(UnevenSplitError, match="Sizes that fit: 1, 2, 4, 8"):
        reshard(source, tmp_path / "out", 3)

    assert not (tmp_path / "out").exists()


def test_a_missing_parameter_is_refused(source, tmp_path):
    for path in source.glob("*.pth"):
        shard = torch.load(path)
        del shard["layers.1.attention.wo.weight"]
        torch.save(shard, path)

    with pytest.raises(ParametersError, match=r"layers\.1\.attention\.wo"):
        reshard(source, tmp_path / "out", 1)


def test_an_existing_destination_is_kept_without_force(source, tmp_path):
    reshard(source, tmp_path / "out", 1)
    before = files(tmp_path / "out")

    with pytest.raises(DestinationError, match="pass force=True to replace it"):
        reshard(source, tmp_path / "out", 2)
    assert files(tmp_path / "out") == before

    reshard(source, tmp_path / "out", 2, force=True)
    assert len(open_checkpoint(tmp_path / "out").shards) == 2


def test_force_does_not_replace_the_source(source):
    with pytest.raises(DestinationError, match="would remove"):
        reshard(source, source, 2, force=True)


def test_too_little_space_is_refused_before_anything_is_written(source, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)

    with pytest.raises(NoSpaceError, match="GB free"):
        reshard(source, tmp_path / "out", 2)

    assert not any("out" in path.name for path in tmp_path.iterdir())


@pytest.fixture
def listed(source):
    lines = [
        f"{hashlib.md5(path.read_bytes()).hexdigest()}  ./{path.name}\n"
        for path in sorted(source.iterdir())
    ]
    (source / "checklist.chk").write_text("".join(lines))
    return source


def test_verify_passes_what_is_whole(listed, tmp_path):
    reshard(listed, tmp_path / "out", 2, verify=True)

    assert (tmp_path / "out").is_dir()


def test_verify_passes_without_a_file_that_nobody_serves(listed, tmp_path):
    with (listed / "checklist.chk").open("a") as file:
        file.write(f"{'0' * 32}  ./orig_params.json\n")

    reshard(listed, tmp_path / "out", 2, verify=True)

    assert (tmp_path / "out").is_dir()


@pytest.mark.parametrize("name", ["consolidated.00.pth", "consolidated.07.pth", "params.json"])
def test_verify_notices_a_byte_anywhere(listed, tmp_path, name):
    data = bytearray((listed / name).read_bytes())
    if name == "params.json":
        data += b" "
    else:  # of a parameter that only shard 0's bytes are written of
        data[PthFile.open(listed / name).tensors["norm.weight"].offset] ^= 1
    (listed / name).write_bytes(data)

    with pytest.raises(DamagedFileError, match=rf"{name} .*checklist says"):
        reshard(listed, tmp_path / "out", 2, verify=True)

    assert not (tmp_path / "out").exists()


def test_shards_are_read_in_order_so_that_verifying_costs_no_reading(listed, tmp_path):
    plan = plan_reshard(listed, tmp_path / "out", 2)

    assert read_in_order(plan.moves) == set(listed.glob("*.pth"))


def test_shards_that_are_in_another_order_are_hashed_first(listed, tmp_path):
    for path in listed.glob("*.pth"):
        shard = torch.load(path)
        torch.save(dict(sorted(shard.items())), path)
    first = torch.load(listed / "consolidated.00.pth")
    torch.save(dict(reversed(first.items())), listed / "consolidated.00.pth")

    plan = plan_reshard(listed, tmp_path / "out", 2)
    assert listed / "consolidated.01.pth" not in read_in_order(plan.moves)
    with pytest.raises(DamagedFileError, match="checklist says"):
        reshard(listed, tmp_path / "out", 2, verify=True)


def test_verify_without_a_checklist_is_a_warning(source, tmp_path, caplog):
    reshard(source, tmp_path / "out", 2, verify=True)

    assert "nothing to check the source against" in caplog.text


def test_a_source_that_is_truncated_while_it_is_read_is_noticed(source, tmp_path):
    checkpoint = open_checkpoint(source)
    with (source / "consolidated.02.pth").open("r+b") as file:
        file.truncate(3000)

    with pytest.raises(DamagedFileError, match=r"consolidated\.02\.pth"):
        reshard(checkpoint, tmp_path / "out", 2)

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("direct", [True, False])
def test_with_and_without_the_cache_the_bytes_are_the_same(big_meta, tmp_path, direct):
    reshard(big_meta, tmp_path / "out", 2, direct=direct)
    reshard(big_meta, tmp_path / "expected", 2)

    assert files(tmp_path / "out") == files(tmp_path / "expected")


def test_a_file_system_without_direct_access_goes_through_the_cache(
    big_meta, tmp_path, monkeypatch, tensor_bytes
):
    real = disk.os.preadv

    def picky(descriptor, buffers, offset):
        if disk.os.get_blocking(descriptor) and _is_direct(descriptor):
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(disk.os, "preadv", picky)
    reshard(big_meta, tmp_path / "out", 2, direct=True)

    assert tensor_bytes(open_checkpoint(tmp_path / "out")) == tensor_bytes(
        open_checkpoint(big_meta)
    )


def _is_direct(descriptor):
    import fcntl

    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & disk.os.O_DIRECT)


def test_tensors_that_are_views_are_read_through(tmp_path, make_meta, tensor_bytes):
    source = make_meta(tmp_path / "two", GQA, 2)
    (source / "tokenizer.model").write_bytes(b"a tokenizer")
    before = tensor_bytes(open_checkpoint(source))
    for path in source.glob("*.pth"):
        shard = torch.load(path)
        for name, tensor in shard.items():
            if tensor.ndim == 2:
                shard[name] = tensor.t().contiguous().t()
        torch.save(shard, path)

    for size in (1, 4):
        reshard(source, tmp_path / str(size), size)

        assert tensor_bytes(open_checkpoint(tmp_path / str(size))) == before


class Doubled:
    """A checkpoint of a user's own making: another's, every value times two."""

    form = "doubled"
    nbytes_read = 0

    def __init__(self, checkpoint):
        self.checkpoint = checkpoint
        self.path, self.params = checkpoint.path, checkpoint.params
        self.parameters = checkpoint.parameters

    def read(self, name, *, axis=0, start=0, stop=None):
        return self.checkpoint.read(name, axis=axis, start=start, stop=stop) * np.float16(2)


def test_a_checkpoint_of_ones_own_making_is_written(source, tmp_path):
    reshard(Doubled(open_checkpoint(source)), tmp_path / "out", 4)

    one, out = open_checkpoint(source), open_checkpoint(tmp_path / "out")
    assert all(np.array_equal(out.read(name), 2 * one.read(name)) for name in one.parameters)
    assert valid_sizes(out.params) == valid_sizes(one.params)


class Mistaken(Doubled):
    """A checkpoint of a user's own making that returns something else."""

    form = "mistaken"

    def __init__(self, checkpoint, mistake):
        super().__init__(checkpoint)
        self.mistake = mistake

    def read(self, name, **bounds):
        return self.mistake(self.checkpoint.read(name, **bounds))


def fail(array):
    raise ValueError("no such\ntensor")


@needs_torch
@pytest.mark.parametrize(
    ("mistake", "found"),
    [
        pytest.param(lambda _: None, "NoneType, which is no numpy array", id="nothing"),
        pytest.param(lambda _: 1.0, "float, which is no numpy array", id="a number"),
        pytest.param(lambda array: array.tolist(), "list, which is no numpy array", id="a list"),
        pytest.param(lambda array: array[:1], "float16 (1, 16)", id="a shape that spreads"),
        pytest.param(lambda array: array.T, "float16 (16, 24)", id="the other way round"),
        pytest.param(lambda _: np.float16(1), "float16 ()", id="a scalar"),
        pytest.param(lambda array: array.astype("f4"), "float32 (24, 16)", id="another dtype"),
    ],
)
def test_a_checkpoint_that_reads_something_else_is_reported(source, tmp_path, mistake, found):
    checkpoint = Mistaken(open_checkpoint(source), mistake)
    expected = re.escape(
        f"the checkpoint of the format 'mistaken' (opened by {__name__}) read "
        f"tok_embeddings.weight as {found}; its index says float16 (24, 16): tell the author"
    )

    for write in (lambda: reshard(checkpoint, tmp_path / "out", 1), lambda: loaded(checkpoint)):
        with pytest.raises(ParametersError, match=expected):
            write()

    assert not (tmp_path / "out").exists()


@needs_torch
def test_a_checkpoint_that_fails_to_read_is_named_with_the_parameter(source, tmp_path):
    checkpoint = Mistaken(open_checkpoint(source), fail)
    expected = (
        r"the checkpoint of the format 'mistaken' \(opened by test_reshard\) failed to read "
        "tok_embeddings.weight: ValueError: no such tensor"
    )

    for write in (lambda: reshard(checkpoint, tmp_path / "out", 1), lambda: loaded(checkpoint)):
        with pytest.raises(PluginError, match=expected):
            write()

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("mistake", "error", "sentence"),
    [
        (lambda _: None, ParametersError, "NoneType, which is no numpy array; its index says"),
        (lambda array: array[:1], ParametersError, r"its index says float16 \("),
        (fail, PluginError, "ValueError: no such tensor"),
    ],
)
def test_a_comparison_checks_what_is_read_as_well(source, mistake, error, sentence):
    checkpoint = Mistaken(open_checkpoint(source), mistake)

    # several parameters are compared at the same time: whichever comes first is named
    for compare in (lambda: diff(checkpoint, source), lambda: diff(source, checkpoint)):
        with pytest.raises(error, match=rf"of the format 'mistaken' .* \S+\.weight.*{sentence}"):
            compare()


def loaded(checkpoint):
    from llamakit.runtime.loader import load

    return load(checkpoint, dtype=torch.float32, device=torch.device("cpu"))


def test_tied_embeddings_stay_one(make_meta, tmp_path):
    params = {key: value for key, value in GQA.items() if key != "n_kv_heads"}
    source = make_meta(tmp_path / "one", params | {"use_scaled_rope": True}, 1, axis=0)
    (source / "tokenizer.model").write_bytes(b"a tokenizer")
    shard = torch.load(source / "consolidated.00.pth")
    shard["output.weight"] = shard["tok_embeddings.weight"]
    torch.save(shard, source / "consolidated.00.pth")

    reshard(source, tmp_path / "two", 2)
    reshard(tmp_path / "two", tmp_path / "back", 1)

    back = torch.load(tmp_path / "back" / "consolidated.00.pth")
    assert back["output.weight"].data_ptr() == back["tok_embeddings.weight"].data_ptr()
    assert torch.equal(back["output.weight"], shard["output.weight"])


def test_a_tokenizer_of_gigabytes_is_not_read_into_memory(make_meta, tmp_path):
    source = tmp_path / "one"
    make_meta(source, GQA, 1)
    (source / "tokenizer.model").write_bytes(b"")
    os.truncate(source / "tokenizer.model", 200 << 20)  # without blocks on the disk
    tracemalloc.start()

    reshard(source, tmp_path / "two", 2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 100 << 20
    assert (tmp_path / "two" / "tokenizer.model").stat().st_size == 200 << 20


def test_a_plan_counts_the_bytes_of_each_parameter_once(reference_cases, tmp_path):
    plan = plan_reshard(reference_cases / "mha-mp8", tmp_path / "out", 2)

    parameters = open_checkpoint(reference_cases / "mha-mp8").parameters.values()
    assert plan.nbytes_read == sum(2 * math.prod(it.shape) for it in parameters)
