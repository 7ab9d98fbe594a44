import numpy as np
import pytest
from safetensors.numpy import save_file

from llamakit.checkpoint.chunked_tensor import Chunk, join_chunks, stored_chunk
from llamakit.checkpoint.safetensors_reader import SafetensorsFile
from llamakit.errors import DamagedFileError

WHOLE = np.arange(42, dtype="float32").reshape(6, 7)
BOXES = {"rows": [(0, 2, 0, 7), (2, 6, 0, 7)]}
BOXES["columns"] = [(0, 6, 0, 3), (0, 6, 3, 7)]
BOXES["blocks"] = [(0, 4, 0, 3), (4, 6, 0, 3), (0, 4, 3, 7), (4, 6, 3, 7)]
BOXES["an empty one too"] = [(0, 6, 0, 7), (6, 6, 0, 7)]


@pytest.fixture
def chunks_of(tmp_path):
    """Store boxes of the whole, each ``(top, bottom, left, right)``, in a file each."""

    def store(boxes):
        chunks = []
        for number, (top, bottom, left, right) in enumerate(boxes):
            path = tmp_path / f"{number}.safetensors"
            save_file({"a": WHOLE[top:bottom, left:right].copy()}, path)
            chunks.append(stored_chunk(SafetensorsFile.open(path), "a", (top, left)))
        return chunks

    return store


@pytest.mark.parametrize("boxes", BOXES.values(), ids=BOXES)
@pytest.mark.parametrize("axis", [0, 1])
def test_any_slice_is_that_of_the_whole(chunks_of, boxes, axis):
    tensor = join_chunks("a", WHOLE.shape, "float32", chunks_of(boxes))

    for start in range(WHOLE.shape[axis]):
        for stop in range(start, WHOLE.shape[axis] + 1):
            part = tensor.read(axis, start, stop)
            np.testing.assert_array_equal(part, WHOLE.take(range(start, stop), axis))


def test_regions_are_named_where_the_chunks_follow_one_another(chunks_of):
    rows = join_chunks("a", WHOLE.shape, "float32", chunks_of(BOXES["rows"]))

    regions = rows.regions(0)

    read = [
        np.fromfile(it.path, "float32", it.shape[0] * 7, offset=it.offset) for it in regions or ()
    ]
    assert np.concatenate(read).tolist() == WHOLE.ravel().tolist()
    assert rows.regions(1) is None


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([(0, 2, 0, 7)], "they have 14 values"),
        ([(0, 4, 0, 7), (2, 4, 0, 7)], "two of them overlap"),
        ([(0, 3, 0, 7), (2, 5, 0, 7)], "two of them overlap"),
        ([], "they have 0 values"),
    ],
)
def test_chunks_that_do_not_cover_the_whole_are_refused(chunks_of, boxes, message):
    with pytest.raises(DamagedFileError, match=rf"do not make up its shape \(6, 7\): {message}"):
        join_chunks("a", WHOLE.shape, "float32", chunks_of(boxes))


def test_a_chunk_of_another_shape_or_dtype_than_said_is_refused(chunks_of):
    (chunk,) = chunks_of([(0, 6, 0, 7)])
    stored = chunk.stored

    wrong = join_chunks("a", (7, 6), "float32", [Chunk((0, 0), (7, 6), chunk.file, lambda: stored)])
    cast = join_chunks("a", (6, 7), "float16", [chunk])

    with pytest.raises(DamagedFileError, match=r"shape \(6, 7\) where its index says \(7, 6\)"):
        wrong.read(0, 0, 1)
    with pytest.raises(DamagedFileError, match="a tensor of float32 where its index says float16"):
        cast.read(0, 0, 1)
