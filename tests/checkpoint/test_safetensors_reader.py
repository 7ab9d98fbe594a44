import importlib
import json
import re
from collections import Counter
from contextlib import suppress
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lazy_torch import torch
from safetensors import SafetensorError, safe_open

from llamakit.checkpoint import safetensors_reader
from llamakit.checkpoint.dtypes import SAFETENSORS
from llamakit.checkpoint.safetensors_reader import SafetensorsFile
from llamakit.errors import DamagedFileError, LlamakitError, UnsupportedModelError


def safetensors_torch():
    torch.float32  # noqa: B018  # skips where there is no torch
    return importlib.import_module("safetensors.torch")


relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture
def saved(path):
    tensors = {"a": torch.arange(12.0).view(3, 4), "b": torch.ones(5).half()}
    safetensors_torch().save_file(tensors, path, {"format": "pt"})
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
        *("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"),
        *("int64", "int32", "int16", "int8", "uint8", "bool", "uint16"),
    ],
)
def test_every_dtype_is_read_as_its_own_library_reads_it(path, dtype):
    safetensors_torch().save_file(
        {"a": torch.arange(24).view(4, 6).to(getattr(torch, dtype)), "empty": torch.zeros(0, 3)},
        path,
    )

    file = SafetensorsFile.open(path)

    with safe_open(path, "pt") as theirs:
        tensor = theirs.get_tensor("a")
    assert file.tensors["a"].dtype == dtype
    assert file.array("a").tobytes() == tensor.view(torch.uint8).numpy().tobytes()
    assert file.array("empty").shape == (0, 3)


def test_a_slice_is_that_of_the_whole(saved):
    file = SafetensorsFile.open(saved)

    assert np.array_equal(file.read("a", axis=1, start=1, stop=3), file.array("a")[:, 1:3])
    assert np.array_equal(file.read("a", start=2), file.array("a")[2:])


def test_metadata_is_no_tensor(saved):
    file = SafetensorsFile.open(saved)

    assert set(file.tensors) == {"a", "b"}
    assert all(tensor.contiguous for tensor in file.tensors.values())


@relaxed
@given(data=st.data())
def test_a_file_truncated_anywhere_is_refused(data, saved, tmp_path):
    whole = saved.read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])

    with pytest.raises(DamagedFileError):
        SafetensorsFile.open(cut)


def test_a_file_truncated_in_its_values_is_said_to_be_with_both_sizes(saved):
    whole = saved.read_bytes()
    saved.write_bytes(whole[:-3])

    with pytest.raises(DamagedFileError) as caught:
        SafetensorsFile.open(saved)

    assert f"has {len(whole) - 3} bytes and its header describes {len(whole)}" in str(caught.value)


DESCRIBED = b'{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}'


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"", "not a complete .safetensors"),
        (b"[]", "invalid JSON in header"),
        (b"[" * 100_000, "invalid JSON in header"),
        (b"\xff", "not a complete .safetensors"),
        (b'{"a": NaN}', "invalid JSON in header"),
        ({"a": 1}, "invalid JSON in header"),
        ({"a": {"dtype": "U8"}}, "missing field"),
        ({"a": entry(dtype="Q" * 10_000, offsets=[0, 8])}, "unknown variant"),
        ({"a": entry(shape=[-2], offsets=[0, 8])}, "invalid value"),
        ({"a": entry(shape=[3], offsets=[0, 8])}, "invalid shape"),
        ({"a": entry(offsets=[2, 0])}, "describes"),
        ({"a": entry(), "b": entry(offsets=[1, 8])}, "invalid offset"),
        ({"a": entry(offsets=[2**60, 2**60 + 2])}, f"describes {2**60 + 2 + 104}"),
        ({"__metadata__": []}, "invalid type"),
        ({"__metadata__": {"a": 1}}, "invalid type"),
        (b'{"__metadata__": {"a": "\\ud800"}}', "invalid JSON in header"),
        (
            DESCRIBED + b',"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}',
            "the key 'a' is there twice",
        ),
        (DESCRIBED + b',"__metadata__":{"b":"","b":""}}', "the key 'b' is there twice"),
        (DESCRIBED[:-1] + b',"b":%s}}' % (b"1" * 300), "a number has 300 digits"),
    ],
)
def test_a_wrong_header_is_damage_and_says_what(path, header, said):
    write(path, header, bytes(8))

    with pytest.raises(DamagedFileError) as caught:
        SafetensorsFile.open(path)

    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 400


@pytest.mark.parametrize(("code", "nbytes"), [("F4", 8), ("F6_E2M3", 12)])
def test_a_dtype_of_which_several_values_share_a_byte_is_refused_by_name(path, code, nbytes):
    header = {"a": entry(dtype=code, shape=[16], offsets=[0, nbytes])}
    write(path, header, bytes(nbytes))

    with pytest.raises(UnsupportedModelError, match=f"a is of dtype {code}, which is not read"):
        SafetensorsFile.open(path)


def test_a_header_longer_than_the_file_or_the_limit_is_refused(path, monkeypatch):
    path.write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    with pytest.raises(DamagedFileError, match="a header of 4611686018427387904 bytes"):
        SafetensorsFile.open(path)

    monkeypatch.setattr(safetensors_reader, "MAX_HEADER_NBYTES", 1)
    with pytest.raises(DamagedFileError, match="a header of 2 bytes"):
        SafetensorsFile.open(write(path, {}))


@pytest.mark.parametrize(
    "header",
    [
        {"__metadata__": None, "a": entry()},
        {"a": entry(shape=[1] * 39 + [2])},
        {"a": ["U8", [2], [0, 2]]},
        {"a": entry(dtype={"U8": None})},
        {"a": entry(), "empty": entry(shape=[0, 2**64 - 1, 2**64 - 1], offsets=[2, 2])},
    ],
)
def test_what_the_package_accepts_is_opened(path, header):
    file = SafetensorsFile.open(write(path, header, b"\1\2"))

    assert (path.stat().st_size - file.tensors["a"].offset, file.tensors["a"].nbytes) == (2, 2)


def test_a_shape_that_no_array_has_is_refused_when_it_is_read(path):
    file = SafetensorsFile.open(write(path, {"a": entry(shape=[1] * 39 + [2])}, b"\1\2"))

    with pytest.raises(DamagedFileError, match="a tensor of an impossible shape"):
        file.array("a")


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


BITS = {"F32": 32, "BF16": 16, "U8": 8, "BOOL": 8, "F64": 64, "C64": 64, "F4": 4, "F8_E8M0": 8}
PARTS = (
    *(b"null", b"NaN", b"Infinity", b"-0", b"1e400", b"1.0", b"true", b'"\\ud800"', b'"\\u0061"'),
    *(b"[]", b"{}", b"[" * 200, b"18446744073709551615", b"18446744073709551616", b"9" * 400),
    *(
        b'"a"',
        b'"dtype"',
        b'"__metadata__"',
        b'"C64"',
        b'"I8"',
        b'{"F32":null}',
        b'["U8",[8],[0,8]]',
    ),
    *(b" ", b",", b":", b"\xff", b"\0", b"0,", b"[0,0]"),
)
TOKEN = re.compile(rb'"[^"]*"|\d+|\[[^\[\]]*\]|.')


def whole_header(random):
    """Describe 16 bytes: one to three tensors, now and then by one name, and unknown keys."""
    members = [f'"{random.choice("abc")}":' + json.dumps(entry("U8", [0], [0, 0]))]
    for at in (0, 8):
        dtype = random.choice([*BITS, "F32", "BF16", "U8"])
        fields = {"dtype": dtype, "shape": [64 // BITS[dtype]], "data_offsets": [at, at + 8]}
        fields |= random.choice([{}, {}, {"more": None}, {"more": [{"a": 1.5e300}]}])
        members.append(f'"{random.choice("abcdefgh")}":{json.dumps(fields)}')
    metadata = random.choice(["null", "{}", '{"format":"pt"}', '{"a":"","a":""}', '{"a":1}', ""])
    members += [f'"__metadata__":{metadata}'] if metadata else []
    random.shuffle(members)
    return ("{" + ",".join(members) + random.choice(["}", "} ", "\n}"])).encode()


def mutated(header, random):
    """Change tokens or single bytes of a header, or nothing."""
    for _ in range(random.choice([0, 1, 1, 2])):
        tokens = TOKEN.findall(header)
        at = random.randrange(len(tokens))
        change = random.randrange(4)
        if change == 0:
            tokens[at] = random.choice(PARTS)
        elif change == 1:
            tokens.insert(at, random.choice([*PARTS, *tokens]))
        elif change == 2:
            tokens[at] = random.choice(tokens)
        else:
            token = bytearray(tokens[at])
            token[random.randrange(len(token))] = random.randrange(256)
            tokens[at] = bytes(token)
        header = b"".join(tokens)
    return header


def judged_by_the_package(path):
    """Return the dtypes that the package finds in a file, or None if it refuses it."""
    try:
        with safe_open(path, "numpy") as file:
            return {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    except SafetensorError:
        return None


def refused_by_llamakit_alone(header):
    """Say whether a name is there twice, or a number is longer than any that means something."""
    faults = []
    json.loads(
        header,
        object_pairs_hook=lambda pairs: faults.append(len(pairs) != len(dict(pairs))),
        parse_int=lambda digits: faults.append(len(digits) > 100),
    )
    return any(faults)


@pytest.mark.parametrize("count", [6_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_mutated_headers_are_judged_as_by_the_package(count, tmp_path):
    random = Random(11)
    headers = [whole_header(random) for _ in range(500)]
    path = tmp_path / "mutant.safetensors"
    verdicts = Counter()

    for number in range(count):
        header = mutated(headers[number % len(headers)], random)
        with path.open("r+b" if number else "wb") as file:  # emptying a file takes long
            file.write(len(header).to_bytes(8, "little") + header + bytes(16))
            file.truncate()
        dtypes = judged_by_the_package(path)
        expected = "refused"
        if dtypes is not None:
            expected = "opened" if dtypes <= SAFETENSORS.keys() else "dtype"
            if refused_by_llamakit_alone(header):
                expected = "here alone"
        try:
            SafetensorsFile.open(path)
            found = "opened"
        except (DamagedFileError, UnsupportedModelError):
            found = "refused"
        verdicts[expected] += 1
        assert found == ("opened" if expected == "opened" else "refused"), (header, expected)

    assert all(verdicts[kind] > 30 for kind in ("refused", "opened", "dtype", "here alone")), (
        verdicts
    )
