"""Carries out a conversion plan, alone or as one process of a team."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

from llamakit.checkpoint.atomic_folder import check_space
from llamakit.checkpoint.checklist import MODEL_CHECKLIST, format_checklist
from llamakit.checkpoint.fingerprint import files_fingerprint
from llamakit.checkpoint.provenance import PROVENANCE
from llamakit.checkpoint.teamwork import Team, current_team
from llamakit.convert.conversion_plan import ConversionPlan, SmallFile
from llamakit.convert.execute import ProgressCallback, execute_moves
from llamakit.convert.moves import files_of
from llamakit.convert.shared_moves import shared_moves
from llamakit.convert.source_checksums import SourceChecksums, read_in_order, verify_checksums
from llamakit.errors import ParallelError
from llamakit.files.file_stamp import unchanged
from llamakit.files.regular_file import open_regular

_BLOCK_NBYTES = 1 << 20


def execute_plan(
    plan: ConversionPlan,
    folder: Path,
    *,
    direct: bool | None = None,
    progress: ProgressCallback | None = None,
) -> dict[str, str | None]:
    """Write everything that a plan says.

    Args:
        plan: what to write.
        folder: where, an empty folder.
        direct: as ``execute_moves``.
        progress: as ``execute_moves``.
    Returns:
        The md5 of each file by its name, but for the checklist.

    Raises:
        DamagedFileError: a file of the source has changed since the plan was made, or is not what
            its checklist says.
    """
    if current_team().size > 1:
        return _execute_share(plan, folder, direct=direct, progress=progress)
    in_order = read_in_order(plan.moves) if plan.expected else set()
    verify_checksums({it: md5 for it, md5 in plan.expected.items() if it not in in_order})
    on_the_way: dict[Path, str | None] = dict.fromkeys(sorted(plan.record.hashed))
    on_the_way |= {path: plan.expected[path] for path in sorted(in_order & set(plan.expected))}
    with unchanged(plan.sources), SourceChecksums(on_the_way) as checksums:
        written = execute_moves(
            plan.checkpoint,
            plan.moves,
            plan.weights,
            folder,
            direct=direct,
            checksums=checksums,
            progress=progress,
        )
        computed = {**plan.expected, **checksums.finish()}
        return write_small_files(plan, folder, written, computed)


def _execute_share(
    plan: ConversionPlan, folder: Path, *, direct: bool | None, progress: ProgressCallback | None
) -> dict[str, str | None]:
    """Write one process' share of the files of weights, and where it leads, what is beside them.

    Nobody reads a file of the source in order, so each is hashed as a whole, by one of them.
    """
    team = current_team()
    wanted: dict[Path, str | None] = dict.fromkeys(sorted(plan.record.hashed))
    wanted |= {path: plan.expected[path] for path in sorted(plan.expected)}
    hashed = team.share({path: path.stat().st_size for path in wanted})
    with unchanged(plan.sources):
        computed = verify_checksums({path: wanted[path] for path in wanted if path in hashed})
        moves = shared_moves(plan.moves, plan.weights, team)
        files = {number for move in moves for number in files_of(move)}
        written = execute_moves(
            plan.checkpoint,
            moves,
            plan.weights,
            folder,
            direct=direct,
            progress=_heeding(team, progress),
            only=files,
        )
        own = [written, {str(path): checksum for path, checksum in computed.items()}]
        shares = team.gather(own)
        weights = {file.name: "" for file in plan.weights}  # in their order
        weights |= {name: md5 for share, _ in shares for name, md5 in share.items()}
        known = {Path(path): it for _, share in shares for path, it in share.items()}
        return write_small_files(plan, folder, weights, known) if team.leads else {**weights}


def _check_same(plan: ConversionPlan) -> None:
    """Wait until every process of a team has come here, and check that all have the same plan.

    Raises:
        ParallelError: another host has another model at the path of the source.
    """
    team = current_team()
    if team.size == 1:
        return
    plans = team.gather([plan.files, files_fingerprint(plan.checkpoint)])
    for rank, other in enumerate(plans):
        if other != plans[0]:
            raise ParallelError(
                f"{plan.checkpoint.path} is another model for rank {rank} than for rank 0: put it "
                "on a file system that all hosts share"
            )


def _heeding(team: Team, progress: ProgressCallback | None) -> ProgressCallback:
    """Report progress, and stop when another process has failed."""

    def report(nbytes: int) -> None:
        team.check()
        if progress:
            progress(nbytes)

    return report


def write_folder(
    plan: ConversionPlan,
    folder: Path,
    *,
    direct: bool | None = None,
    progress: ProgressCallback | None = None,
) -> dict[str, object]:
    """Make a folder, write everything that a plan says into it, and report that.

    Args:
        plan, direct, progress: as ``execute_plan``.
        folder: one that does not exist.
    Returns:
        ``files`` with the name, size and md5 of each, ``nbytes``, ``nbytes_read``, and ``notes``
        where something was decided.

    Raises:
        NoSpaceError: there is no room.
        DamagedFileError: as ``execute_plan``.
    """
    if current_team().leads:
        check_space(plan.destination, plan.nbytes)
        folder.mkdir()
    _check_same(plan)
    written = execute_plan(plan, folder, direct=direct, progress=progress)
    sizes = {name: (folder / name).stat().st_size for name in written}
    return {
        "files": [
            {"name": name, "nbytes": sizes[name], "md5": md5} for name, md5 in written.items()
        ],
        "nbytes": sum(sizes.values()),
        "nbytes_read": plan.nbytes_read,
        **({"notes": list(plan.notes)} if plan.notes else {}),
    }


def write_small_files(
    plan: ConversionPlan,
    folder: Path,
    weights: Mapping[str, str],
    computed: Mapping[Path, str],
) -> dict[str, str | None]:
    """Write the files next to the weights, the checklist last.

    Args:
        folder: where the weights are.
        weights: the MD5 of each of their files by its name.
        computed: checksums of files of the source.
    Returns:
        The MD5 of each file by its name, that of the weights too; None of the checklist.
    """
    written = dict(weights)
    for file in plan.small_files:
        written[file.name] = _write_small(folder / file.name, file)
    sizes = {name: (folder / name).stat().st_size for name in written}
    known = {name: (sizes[name], md5) for name, md5 in written.items()}
    record = plan.record.content(known, computed)
    written[PROVENANCE] = _write_small(folder / PROVENANCE, SmallFile(PROVENANCE, record))
    if not plan.has_checklist:
        return {**written}
    (folder / MODEL_CHECKLIST).write_bytes(format_checklist(written).encode())
    return {**written, MODEL_CHECKLIST: None}


def _write_small(path: Path, file: SmallFile) -> str:
    content = file.content
    md5 = hashlib.md5(usedforsecurity=False)
    with (
        io.BytesIO(content) if isinstance(content, bytes) else open_regular(content) as source,
        path.open("wb") as copy,
    ):
        while block := source.read(_BLOCK_NBYTES):  # of others, it may have gigabytes
            md5.update(block)
            copy.write(block)
    return md5.hexdigest()
