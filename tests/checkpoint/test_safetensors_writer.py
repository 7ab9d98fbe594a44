"""Files laid out by ``SafetensorsLayout``, judged by safetensors itself."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors import safe_open

from llamakit.checkpoint.file_layout import TensorSpec
from llamakit.checkpoint.safetensors_reader import SafetensorsFile
from llamakit.checkpoint.safetensors_writer import SafetensorsLayout
from llamakit.errors import UnsupportedModelError

ARRAYS = {
    "w": np.arange(6, dtype=np.float16).reshape(2, 3),
    "größe": np.arange(3, dtype=np.float32),
    "none": np.zeros((0, 2), np.float32),
}


@pytest.fixture
def written(tmp_path):
    specs = [TensorSpec(name, str(array.dtype), array.shape) for name, array in ARRAYS.items()]
    layout = SafetensorsLayout(specs)
    path = tmp_path / "x.safetensors"
    path.write_bytes(layout.head + b"".join(array.tobytes() for array in ARRAYS.values()))
    assert path.stat().st_size == layout.nbytes
    return path


def test_safetensors_opens_what_was_written(written):
    with safe_open(written, "numpy") as file:
        assert file.metadata() == {"format": "pt"}
        assert set(file.keys()) == set(ARRAYS)
        for name, array in ARRAYS.items():
            assert np.array_equal(file.get_tensor(name), array)


def test_our_reader_reads_what_our_writer_wrote(written):
    file = SafetensorsFile.open(written)

    assert {name: file.array(name).tobytes() for name in ARRAYS} == {
        name: array.tobytes() for name, array in ARRAYS.items()
    }


def test_a_dtype_that_the_format_lacks_is_refused():
    with pytest.raises(UnsupportedModelError, match="complex128"):
        SafetensorsLayout([TensorSpec("w", "complex128", (2,))])
