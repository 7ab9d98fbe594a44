import datetime
import os
import pickle

import pytest

from llamakit.checkpoint.pickle_records import MAX_NBYTES, Name, Record, read_records
from llamakit.errors import DamagedFileError, UnsafePickleError

DAY = pickle.dumps({"a": [datetime.timedelta(7), datetime.timedelta, (1, None, True)]})


def test_named_classes_become_records_and_are_not_called():
    read = read_records(DAY, "x", ["datetime.timedelta"])

    day, name, plain = read["a"]
    assert (day.name, day.arguments) == ("datetime.timedelta", (7, 0, 0))
    assert name == Name("datetime.timedelta")
    assert plain == (1, None, True)


def test_the_state_of_an_object_and_objects_as_keys_are_kept():
    error = OSError("gone")
    error.note = "x"

    (key, value), *_ = read_records(pickle.dumps({error: 1}), "x", ["builtins.OSError"]).items()

    assert isinstance(key, Record)
    assert (key.arguments, key.state, value) == (("gone",), {"note": "x"}, 1)


def test_as_many_operations_as_allowed_are_read():
    data = b"](" + b"N" * 60_000 + b"e" + (b"(" + b"N" * 60_000 + b"e") * 4 + b"."

    assert len(read_records(data, "x", [], extra_operations=60_000)) == 300_000
    with pytest.raises(DamagedFileError, match="over 250000 operations"):
        read_records(data, "x", [])


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "torch.Size"])
def test_any_other_name_is_refused(name):
    module, _, attribute = name.rpartition(".")
    data = f"c{module}\n{attribute}\n.".encode()

    with pytest.raises(UnsafePickleError, match=f"asks for {name}"):
        read_records(data, "x", ["datetime.timedelta"])


def test_nothing_is_run(tmp_path):
    class Runs:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'run'}",)

    with pytest.raises(UnsafePickleError, match=r"asks for posix\.system"):
        read_records(pickle.dumps(Runs()), "x", [])

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DAY[:-9], "is damaged: "),
        (b"}" * 100_000 + b".", "over 65536 values wait on its stack"),
        (b"}K\1K\1s.", "a key is neither text nor an object"),
        (b"\x80\4K\1)\x81.", "something is called that is no function"),
        (bytes(MAX_NBYTES + 1), f"expected at most {MAX_NBYTES}"),
    ],
)
def test_what_is_malformed_or_too_large_is_refused(data, message):
    with pytest.raises(DamagedFileError, match=message):
        read_records(data, "x", ["datetime.timedelta"])
