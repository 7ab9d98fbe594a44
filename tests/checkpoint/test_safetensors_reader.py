import json
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from llamakit.checkpoint import safetensors_reader
from llamakit.checkpoint.safetensors_reader import SafetensorsFile
from llamakit.errors import DamagedFileError, LlamakitError

relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture
def saved(path):
    tensors = {"a": torch.arange(12.0).view(3, 4), "b": torch.ones(5).half()}
    save_file(tensors, path, {"format": "pt"})
    return path


def write(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(dtype="U8", shape=(2,), offsets=(0, 2)):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn),
        *(torch.float8_e5m2, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8),
        *(torch.bool, torch.uint16),
    ],
)
def test_every_dtype_is_read_as_its_own_library_reads_it(path, dtype):
    save_file({"a": torch.arange(24).view(4, 6).to(dtype), "empty": torch.zeros(0, 3)}, path)

    file = SafetensorsFile.open(path)

    with safe_open(path, "pt") as theirs:
        tensor = theirs.get_tensor("a")
    assert f"torch.{file.tensors['a'].dtype}" == str(dtype)
    assert file.array("a").tobytes() == tensor.view(torch.uint8).numpy().tobytes()
    assert file.array("empty").shape == (0, 3)


def test_a_slice_is_that_of_the_whole(saved):
    file = SafetensorsFile.open(saved)

    assert np.array_equal(file.read("a", axis=1, start=1, stop=3), file.array("a")[:, 1:3])
    assert np.array_equal(file.read("a", start=2), file.array("a")[2:])


def test_metadata_is_kept_beside_the_tensors(saved):
    file = SafetensorsFile.open(saved)

    assert file.metadata == {"format": "pt"}
    assert set(file.tensors) == {"a", "b"}
    assert all(tensor.contiguous for tensor in file.tensors.values())


@relaxed
@given(data=st.data())
def test_a_file_cut_anywhere_is_refused(data, saved, tmp_path):
    whole = saved.read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])

    with pytest.raises(DamagedFileError):
        SafetensorsFile.open(cut)


def test_a_file_cut_in_its_values_is_said_to_be_with_both_sizes(saved):
    whole = saved.read_bytes()
    saved.write_bytes(whole[:-3])

    with pytest.raises(DamagedFileError) as caught:
        SafetensorsFile.open(saved)

    assert f"has {len(whole) - 3} bytes and its header describes {len(whole)}" in str(caught.value)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"", "not a whole .safetensors"),
        (b"[]", "its header is not an object"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a": 1, "a": 2}', "a key twice"),
        (b"\xff", "not a whole .safetensors"),
        ({"a": 1}, "does not describe a"),
        ({"a": {"dtype": "U8"}}, "does not describe a"),
        ({"a": entry(dtype="Q4")}, "is of dtype Q4, which is not known here"),
        ({"a": entry(shape=[-2])}, "is no count"),
        ({"a": entry(shape=[2.0])}, "is no count"),
        ({"a": entry(shape=[True, 2])}, "is no count"),
        ({"a": entry(shape=[0, 2**70], offsets=[0, 0])}, "impossible shape"),
        ({"a": entry(shape=[1] * 40, offsets=[0, 1])}, "impossible shape"),
        ({"a": entry(shape=[3])}, "a has 2 bytes, its shape needs 3"),
        ({"a": entry(offsets=[2, 0])}, "a has -2 bytes"),
        ({"a": entry(), "b": entry(offsets=[1, 3])}, "overlap or leave a gap at byte"),
        ({"a": entry(), "b": entry()}, "overlap or leave a gap"),
        ({"a": entry(offsets=[1, 3])}, "overlap or leave a gap"),
        ({"a": entry(offsets=[2**80, 2**80 + 2])}, "overlap or leave a gap"),
        ({"__metadata__": []}, "its metadata is not an object"),
    ],
)
def test_a_wrong_header_is_damage_and_says_what(path, header, said):
    write(path, header, b"\0\0\0")

    with pytest.raises(DamagedFileError) as caught:
        SafetensorsFile.open(path)

    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_header_longer_than_the_file_or_the_limit_is_refused(path, monkeypatch):
    path.write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    with pytest.raises(DamagedFileError, match="a header of 4611686018427387904 bytes"):
        SafetensorsFile.open(path)

    monkeypatch.setattr(safetensors_reader, "MAX_HEADER_NBYTES", 1)
    with pytest.raises(DamagedFileError, match="a header of 2 bytes"):
        SafetensorsFile.open(write(path, {}))


def test_bytes_after_the_last_tensor_are_refused(saved):
    saved.write_bytes(saved.read_bytes() + b"x")

    with pytest.raises(DamagedFileError, match="its header describes"):
        SafetensorsFile.open(saved)


def test_a_page_or_a_pointer_is_called_what_it_is(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\n")

    with pytest.raises(DamagedFileError, match="a Git LFS pointer"):
        SafetensorsFile.open(path)


def test_an_absent_file_is_refused(path):
    with pytest.raises(DamagedFileError, match="cannot be read"):
        SafetensorsFile.open(path)


@relaxed
@given(data=st.data())
def test_changed_bytes_raise_nothing_foreign(data, saved, tmp_path):
    whole = bytearray(saved.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "changed.safetensors"
    path.write_bytes(whole)

    with suppress(LlamakitError):
        file = SafetensorsFile.open(path)
        for name in file.tensors:
            file.array(name).tobytes()


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
ANY_ENTRY = st.fixed_dictionaries(
    {"dtype": st.sampled_from(["U8", "F16"]) | ANY_JSON}
    | {"shape": st.lists(st.integers(-1, 3)) | ANY_JSON}
    | {"data_offsets": st.lists(st.integers(-1, 9), min_size=2, max_size=2) | ANY_JSON}
)


@relaxed
@given(header=st.dictionaries(st.text(max_size=5), ANY_ENTRY | ANY_JSON), size=st.integers(0, 9))
def test_arbitrary_headers_raise_nothing_foreign(tmp_path, header, size):
    write(tmp_path / "any.safetensors", header, bytes(size))

    with suppress(LlamakitError):
        SafetensorsFile.open(tmp_path / "any.safetensors")
