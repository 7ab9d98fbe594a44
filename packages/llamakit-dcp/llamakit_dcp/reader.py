"""Opens a folder that ``torch.distributed.checkpoint.save`` has written, by its index alone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path

from llamakit.checkpoint.chunked_tensor import Chunk, ChunkedTensor, join_chunks
from llamakit.checkpoint.named_tensors import NamedTensors, open_named_tensors
from llamakit.checkpoint.saved_tensors import SavedTensors
from llamakit.errors import DamagedFileError, MissingShardError
from llamakit.printable import listed
from llamakit_dcp.metadata import METADATA, Index, TensorEntry, read_metadata


def open_dcp(path: Path) -> NamedTensors | None:
    """Open a distributed checkpoint of a Llama.

    Returns:
        The checkpoint, or None if the folder is in another format.

    Raises:
        MissingShardError: a file that the index names is absent.
        DamagedFileError: the index or a file is damaged.
        UnsafePickleError: the index asks for something that none needs; nothing was run.
        ParametersError: it holds no Llama.
        ParamsError: the numbers of the model are not there, or wrong.
    """
    if not (path / METADATA).is_file():
        _check_not_interrupted(path)
        return None
    index = read_metadata(path / METADATA)
    files = _open_files(path, index)
    _check_nbytes(path, index, files)
    _check_apart(path, index)
    tensors = {name: _tensor(name, entry, files) for name, entry in index.tensors.items()}
    return open_named_tensors(path, "dcp", tensors, index.others)


def _check_not_interrupted(path: Path) -> None:
    files = list(path.glob("*.distcp"))
    if files:
        raise MissingShardError(
            f"{path} has {len(files)} files .distcp but no {METADATA}, which torch writes last: "
            "the save was interrupted, or each rank has written an index of its own. Take another "
            "step, or copy the file too."
        )


def _open_files(path: Path, index: Index) -> dict[str, SavedTensors]:
    names = sorted({chunk.file for entry in index.tensors.values() for chunk in entry.chunks})
    absent = [name for name in names if not (path / name).is_file()]
    if absent:
        raise MissingShardError(
            f"{path} lacks {listed(absent)} of the {len(names)} files that its {METADATA} names. "
            "Each rank has written its own: bring them all into one folder."
        )
    return {name: SavedTensors.open(path / name) for name in names}


def _check_nbytes(path: Path, index: Index, files: Mapping[str, SavedTensors]) -> None:
    """Refuse an index that describes more than the files hold."""
    described = sum(entry.nbytes for entry in index.tensors.values())
    stored = sum(file.nbytes for file in files.values())
    if described > stored:
        raise DamagedFileError(
            f"{path / METADATA} describes {described} bytes of values, its files {stored}. "
            "A file is truncated, or the index is of another save; copy the folder again."
        )


def _check_apart(path: Path, index: Index) -> None:
    """Refuse chunks that share bytes: a small file would keep the reader busy for long.

    What is before the values of a chunk is read for each place. Tensors that torch has saved as
    safetensors share one place.
    """
    chunks = [chunk for entry in index.tensors.values() for chunk in entry.chunks]
    places = sorted((chunk.file, chunk.offset, chunk.nbytes) for chunk in chunks)
    for (file, offset, nbytes), (other, begin, _) in pairwise(places):
        if file == other and offset < begin < offset + nbytes:
            raise DamagedFileError(
                f"{path / METADATA} says that two chunks are at byte {begin} of {file}. The index "
                "is damaged, or of another save; copy the folder again."
            )


def _tensor(name: str, entry: TensorEntry, files: dict[str, SavedTensors]) -> ChunkedTensor:
    chunks = [
        Chunk(
            place.offsets,
            place.shape,
            files[place.file],
            partial(files[place.file].locate, name, place.offset, place.nbytes),
        )
        for place in entry.chunks
    ]
    return join_chunks(name, entry.shape, entry.dtype, chunks)
