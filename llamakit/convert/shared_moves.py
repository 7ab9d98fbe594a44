"""Divides the files of weights of a conversion among the processes of a team."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from llamakit.checkpoint.teamwork import Team
from llamakit.convert.moves import Move, Target, WeightFile, files_of


def shared_moves(moves: Sequence[Move], files: Sequence[WeightFile], team: Team) -> list[Move]:
    """Return the moves of one process, which fill whole files.

    Args:
        moves: of all.
        files: which the moves count from 0.
    """
    groups = _written_together(moves, len(files))
    nbytes = dict.fromkeys(groups, 0)
    for number, file in enumerate(files):
        nbytes[groups[number]] += file.nbytes
    first = team.share({it: nbytes[it] for it in dict.fromkeys(groups)})
    own = {number for number, group in enumerate(groups) if group in first}
    return [only for move in moves if (only := _restricted(move, own)) is not None]


def _written_together(moves: Sequence[Move], count: int) -> list[int]:
    """Return a group for each file: rounded weights and their scales come from one reading."""
    groups = list(range(count))
    for move in moves:
        if move.rounding is not None:
            joined = {groups[number] for number in files_of(move)}
            groups = [min(joined) if it in joined else it for it in groups]
    return groups


def _restricted(move: Move, own: Collection[int]) -> Move | None:
    """Return a move to some files alone, which reads no more than they need; None: to none."""
    targets = tuple(
        replace(target, files=files)
        for target in move.targets
        if (files := tuple(it for it in target.files if it in own))
    )
    if not targets:
        return None
    return _trimmed(replace(move, targets=targets)) if move.axis else replace(move, targets=targets)


def _trimmed(move: Move) -> Move:
    """Leave out the first and the last regions of columns that no target takes from."""
    start, regions, first = 0, [], None
    low = min(target.start for target in move.targets)
    high = max(target.stop for target in move.targets)
    for region in move.regions:
        stop = start + region.columns
        if stop > low and start < high:
            first = start if first is None else first
            regions.append(region)
        start = stop
    shift = first or 0
    targets = tuple(Target(it.start - shift, it.stop - shift, it.files) for it in move.targets)
    return replace(move, regions=tuple(regions), targets=targets)
