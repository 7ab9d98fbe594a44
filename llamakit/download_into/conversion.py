"""The conversion of a download: its plan, made from the indexes, and the files that it fills."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from llamakit.checkpoint.atomic_folder import check_space
from llamakit.checkpoint.resumable_folder import ResumableFolder, check_absent
from llamakit.convert.conversion_plan import ConversionPlan
from llamakit.convert.file_frames import complete_files
from llamakit.convert.plan_execution import write_small_files
from llamakit.convert.scatter import FileMap, digest, scatter
from llamakit.download.events import Checking, Converted, Event
from llamakit.download.hash_thread import READ_NBYTES
from llamakit.download.part_file import partial_paths
from llamakit.download_into.source_index import INDEXES
from llamakit.download_into.target_format import TargetFormat
from llamakit.errors import DamagedFileError, DestinationError, LlamakitError
from llamakit.files.atomic_file import write_atomically
from llamakit.files.disk_errors import disk_errors_explained
from llamakit.files.file_stamp import unchanged
from llamakit.files.json_reader import read_json_file
from llamakit.files.regular_file import open_own
from llamakit.protocols import Checkpoint

SOURCE = "source"
"""The folder in the hidden one with the small files, and the indexes of the shards."""
_RECORD = "plan.json"


@dataclass(frozen=True)
class Conversion:
    """What becomes of the shards.

    Args:
        maps: where the bytes of each shard go, by its path.
        layout: differs if the bytes would go elsewhere.
    """

    plan: ConversionPlan
    maps: dict[Path, FileMap]
    layout: str

    def map_of(self, shard: Path) -> FileMap:
        """Return where the bytes of a shard go; nowhere if the plan does not read it."""
        return self.maps.get(shard, FileMap())


def plan_conversion(
    model: Path,
    destination: Path,
    target: TargetFormat,
    open_checkpoint: Callable[[Path], Checkpoint],
) -> Conversion:
    """Plan the conversion of a model of which the indexes are there.

    Raises:
        CheckpointError, UnsupportedModelError: as the conversion of a model on disk, and where
            values are computed.
    """
    plan = target.make_plan(open_checkpoint(model), destination)
    maps = scatter(plan)
    return Conversion(plan, maps, digest(maps, plan))


def prepare(
    conversion: Conversion, target: TargetFormat, work: ResumableFolder, *, restart: bool
) -> None:
    """Make the files that are to be filled, or take up those of an earlier run.

    Args:
        restart: discard what an earlier run has fetched of something else.

    Raises:
        DestinationError: it has, and ``restart`` is off.
        NoSpaceError: there is no room.
    """
    record = {"into": target.name, "layout": conversion.layout}
    known = _read(work.path / _RECORD)
    sizes = {work.product / file.name: file.nbytes for file in conversion.plan.weights}
    if known is not None and known != record and not restart:
        raise DestinationError(
            f"{work.path} has what another download into {known.get('into')} has fetched of other "
            "files or by another version of llamakit. To discard it and begin again, run the same "
            "command with --repair."
        )
    if known == record and all(_nbytes(path) == nbytes for path, nbytes in sizes.items()):
        return
    _discard(work)
    with disk_errors_explained(work.path, kept=True):
        work.product.mkdir()
        for path, nbytes in sizes.items():
            descriptor = open_own(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            try:
                os.ftruncate(descriptor, nbytes)
            finally:
                os.close(descriptor)
    write_atomically(work.path / _RECORD, json.dumps(record).encode(), mode=0o600)


def discard_unused(work: ResumableFolder) -> None:
    """Remove the hidden folder, unless indexes or shards have been fetched into it."""
    if not any(path.exists() for path in (work.path / _RECORD, work.path / SOURCE / INDEXES)):
        work.remove()


def check_room(conversion: Conversion, folder: Path) -> None:
    """Check that there is room for what is still to be written.

    Args:
        folder: the hidden folder; it need not exist.

    Raises:
        NoSpaceError: there is not.
    """
    besides = sum(
        stop - start
        for path, found in conversion.maps.items()
        for start, stop in found.gaps(0, path.stat().st_size)
    )
    needed = conversion.plan.nbytes + besides - _allocated(folder)
    check_space(folder, max(0, needed))


def described(conversion: Conversion, source: str, hidden: Path) -> dict[str, object]:
    """Describe a plan in JSON's terms.

    Args:
        source: what is fetched.
        hidden: where an earlier run may have left something.
    """
    plan, refusals = conversion.plan, []
    checks = [partial(check_absent, plan.destination)]
    if hidden.parent.is_dir():
        checks.append(partial(check_room, conversion, hidden))
    for check in checks:
        try:
            check()
        except LlamakitError as error:
            refusals.append(error.for_commands)
    return {
        "source": source,
        "destination": str(plan.destination),
        "files": [{"name": name, "nbytes": nbytes} for name, nbytes in plan.files.items()],
        "nbytes": plan.nbytes,
        "nbytes_read": sum(path.stat().st_size for path in conversion.maps),
        "memory_nbytes": len(conversion.maps) * READ_NBYTES,
        "refusals": refusals,
    }


def complete(
    conversion: Conversion,
    target: TargetFormat,
    work: ResumableFolder,
    shards: Mapping[Path, str],
    open_checkpoint: Callable[[Path], Checkpoint],
) -> Generator[Event, None, None]:
    """Write what is around the values, and the small files; rename the folder into place.

    Args:
        shards: the checksum that has been computed of each shard, by the path of its index.

    Raises:
        DamagedFileError: the indexes were not those of what has been verified.
    """
    for shard in shards:
        verified, _ = partial_paths(shard)
        if verified.exists():  # it has all that is in no other file: the real index too
            verified.replace(shard)
    place = conversion.plan.checkpoint.path
    real = plan_conversion(place, work.destination, target, open_checkpoint)
    if real.layout != conversion.layout:
        raise DamagedFileError(
            f"{work.destination.name}: the shards that were fetched have their values in other "
            "places than the server said at first. Run the same command with --repair, or "
            "download without --into."
        )
    total = sum(file.nbytes for file in real.plan.weights)
    steps = complete_files(real.plan.weights, work.product)
    while True:
        try:
            yield Checking(next(steps).nbytes, total)
        except StopIteration as end:
            md5s = end.value
            break
    with unchanged(real.plan.sources), disk_errors_explained(work.path, kept=True):
        computed = {path: shards[path] for path in real.plan.record.hashed & set(shards)}
        written = write_small_files(real.plan, work.product, md5s, computed)
    sizes = {name: (work.product / name).stat().st_size for name in written}
    work.publish()
    files = tuple((name, sizes[name], md5) for name, md5 in written.items())
    yield Converted(str(work.destination), files)


def _read(path: Path) -> dict[str, object] | None:
    try:
        record = read_json_file(path)
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _nbytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _discard(work: ResumableFolder) -> None:
    """Remove what is fetched of the shards."""
    (work.path / _RECORD).unlink(missing_ok=True)
    for path in (work.path / SOURCE).rglob("*.part*"):
        path.unlink()
    if work.product.exists():
        shutil.rmtree(work.product)


def _allocated(folder: Path) -> int:
    """Return how many bytes of the disk the files below a folder take."""
    found = (path.stat() for path in folder.rglob("*") if path.is_file())
    return sum(getattr(status, "st_blocks", 0) * 512 for status in found)
