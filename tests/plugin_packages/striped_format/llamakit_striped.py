"""A format of its own, with all that a checkpoint may offer: two files of stripes and an index.

Each file has half of every parameter along its axis; the index says at which byte, and the CRC-32
of both halves. ``NOTES.md`` belongs to the model.
"""

import json
import math
import zlib
from dataclasses import asdict
from pathlib import Path

from llamakit import hookimpl
from llamakit.checkpoint.params import ModelParams
from llamakit.errors import DamagedFileError
from llamakit.protocols import Finding, Parameter, RawRegion

INDEX = "striped.json"
FILES = ("stripe.0.bin", "stripe.1.bin")


class StripedCheckpoint:
    form = "striped"

    def __init__(self, path, index):
        self.path = path
        self.params = ModelParams(**index["params"])
        self.parameters = {
            name: Parameter(name, tuple(it["shape"]), it["dtype"], it["axis"])
            for name, it in index["parameters"].items()
        }
        self.index = index["parameters"]
        self.nbytes_read = 0

    def read(self, name, *, axis=0, start=0, stop=None):
        import numpy as np

        parameter = self.parameters[name]
        halves = [self._stripe(name, region) for region in self.raw_regions(name)]
        array = np.concatenate(halves, parameter.axis or 0)
        array = array[(slice(None),) * axis + (slice(start, stop),)]
        self.nbytes_read += array.nbytes
        return array

    def raw_regions(self, name):
        parameter = self.parameters[name]
        axis = parameter.axis or 0
        shape = list(parameter.shape)
        shape[axis] //= 2
        offset = self.index[name]["offset"]
        return [RawRegion(self.path / file, offset, tuple(shape)) for file in FILES]

    def stored_names(self):
        return sorted(self.index, key=lambda name: self.index[name]["offset"])

    def model_parallel_size(self):
        return len(FILES)

    def weight_files(self):
        return [self.path / file for file in FILES]

    def companion_files(self, target):  # noqa: ARG002 - they are of use in every format
        return [self.path / "NOTES.md"]

    def deep_checks(self):
        for name in self.parameters:
            for number, region in enumerate(self.raw_regions(name)):
                if (
                    zlib.crc32(self._stripe(name, region).tobytes())
                    != self.index[name]["crc"][number]
                ):
                    yield Finding(f"{region.path}: {name} has another CRC-32", "fault")
        yield Finding(f"the CRC-32 of {len(self.parameters)} parameters was computed", "checked")

    def oddities(self):
        yield "the weights are in stripes"

    def _stripe(self, name, region):
        import numpy as np

        dtype = np.dtype(self.parameters[name].dtype)
        data = np.fromfile(region.path, dtype, math.prod(region.shape), offset=region.offset)
        return data.reshape(region.shape)


def write_striped(checkpoint, folder: Path):
    """Write any checkpoint in this format."""
    import numpy as np

    folder.mkdir()
    entries = {}
    with (folder / FILES[0]).open("wb") as first, (folder / FILES[1]).open("wb") as second:
        for name, it in reversed(checkpoint.parameters.items()):
            halves = np.split(checkpoint.read(name), 2, it.axis or 0)
            entries[name] = {"shape": it.shape, "dtype": it.dtype, "axis": it.axis}
            entries[name] |= {"offset": first.tell()}
            entries[name] |= {"crc": [zlib.crc32(half.tobytes()) for half in halves]}
            for file, half in zip((first, second), halves, strict=True):
                file.write(half.tobytes())
    in_order = {name: entries[name] for name in checkpoint.parameters}
    index = {"params": asdict(checkpoint.params), "parameters": in_order}
    (folder / INDEX).write_text(json.dumps(index))
    (folder / "NOTES.md").write_text("Made of stripes.\n")
    return folder


@hookimpl
def open_checkpoint(path):
    """Open a striped checkpoint: striped.json beside two files of stripes."""
    if not (path / INDEX).is_file():
        return None
    try:
        return StripedCheckpoint(path, json.loads((path / INDEX).read_text()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedFileError(f"{path / INDEX} is damaged: {error}") from None
