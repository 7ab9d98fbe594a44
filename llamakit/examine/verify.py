"""Verify: hash every file, compare with the checklists, and with ``deep`` look inside."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from llamakit.checkpoint.checklist import kind_of
from llamakit.checkpoint.hashing import Checksum, FilePass, FileRead, read_files
from llamakit.checkpoint.misnamed_files import hint_at_misnamed
from llamakit.checkpoint.teamwork import current_team
from llamakit.examine.checked_file import CheckedFile
from llamakit.examine.folders import (
    Folder,
    checkpoint_folder,
    find_folders,
    not_weights_in,
)
from llamakit.examine.history import follow_history
from llamakit.examine.steps import Opener, StepProgress, Steps
from llamakit.examine.verify_report import (
    FileReport,
    Findings,
    FolderReport,
    NonFinite,
    Status,
    VerifyReport,
)

_NOT_SERVED = "in Meta's checklist, but not among the files that Meta's link gives; not needed"


def verify(
    paths: Sequence[Path],
    opener: Opener,
    *,
    deep: bool = False,
    unserved: Collection[str] = (),
    catalog: Mapping[str, Collection[str]] | None = None,
) -> Steps[VerifyReport]:
    """Verify folders; every file that counts is read, whatever was read before.

    Args:
        paths: folders of models, folders that hold several, or folders with a tokenizer.
        opener: opens checkpoints and tokenizers.
        deep: look for what checksums do not show.
        unserved: names of files that checklists list though the server does not have them; where
            they are missing, a note says so.
        catalog: the files of weights of each model that can be downloaded, by its folder.

    Raises:
        NotACheckpointError: there is nothing to verify at a path.
    """
    folders = {folder.path: folder for path in paths for folder in _folders(path, opener)}
    files = _files(folders.values(), deep=deep)
    done = _gather(files, (yield from _read(files)))
    for file in files.values():
        file.conclude()
    reports = [
        replace(
            _report(folder, files, opener, unserved, deep=deep),
            history=tuple(follow_history(folder.path, folder.history, catalog or {})),
        )
        for folder in folders.values()
    ]
    return VerifyReport(tuple(reports), done)


def _read(files: Mapping[Path, CheckedFile]) -> Steps[int]:
    """Read files, and return how many bytes that were."""
    own = _own(files)
    passes = [FilePass(path, files[path].consumers) for path in own if files[path].consumers]
    total = sum(files[one.path].nbytes for one in passes)
    done = 0
    yield StepProgress(0, total)
    for event in read_files(passes):
        if isinstance(event, FileRead):
            files[event.path].error = event.error
        else:
            done += event.nbytes
            yield StepProgress(done, max(total, done))
    return done


def _own(files: Mapping[Path, CheckedFile]) -> list[Path]:
    """Return which files this process reads: its share of those whose checksums alone are wanted.

    What else is wanted of a file, the process that leads reads, for it needs all of that.
    """
    team = current_team()
    shared = team.share({path: it.nbytes for path, it in files.items() if not it.looks_inside})
    return [
        path for path, it in files.items() if (team.leads and it.looks_inside) or path in shared
    ]


def _gather(files: Mapping[Path, CheckedFile], nbytes: int) -> int:
    """Take over what the other processes of a team have read; return how many bytes all did."""
    team = current_team()
    if team.size == 1:
        return nbytes
    paths = list(files)
    numbers = {path: number for number, path in enumerate(paths)}
    own = {str(numbers[path]): files[path].found for path in _own(files)}
    shares = team.gather([nbytes, own])
    for rank, (_, found) in enumerate(shares):
        for number, it in found.items() if rank != team.rank else ():
            files[paths[int(number)]].take_over(it)
    return sum(read for read, _ in shares)


def _files(folders: Iterable[Folder], *, deep: bool) -> dict[Path, CheckedFile]:
    """Say what looks at each file, once for each, however many lists name it."""
    files: dict[Path, CheckedFile] = {}
    for folder in folders:
        for name in (*folder.expected, *folder.unlisted):
            path = folder.root / name
            if not path.is_file():
                continue
            file = files.setdefault(path, CheckedFile(path, deep=deep))
            expected = folder.expected.get(name)
            if expected or not folder.is_covered:
                file.checksums.setdefault(kind_of(expected), Checksum(expected))
    return files


def _folders(path: Path, opener: Opener) -> list[Folder]:
    folders = find_folders(path)
    if not folders:
        # Whatever opens it has a better sentence, and a plugin may know its format.
        checkpoint = opener.open_checkpoint(path)
        return [checkpoint_folder(checkpoint.path)]
    return folders


def _report(
    folder: Folder,
    files: Mapping[Path, CheckedFile],
    opener: Opener,
    unserved: Collection[str],
    *,
    deep: bool,
) -> FolderReport:
    """Put together what was found in a folder."""
    mine = {name: files.get(folder.root / name) for name in (*folder.expected, *folder.unlisted)}
    reports = tuple(_file_report(folder, name, file, unserved) for name, file in mine.items())
    read = [file for file in mine.values() if file is not None]
    findings = Findings(list(folder.faults))
    _tell_sums(folder, reports, findings)
    if deep:
        _tell_contents(read, findings)
    if deep or not folder.is_covered:
        from llamakit.examine.deep_checks import look_at_model  # needs numpy, checksums do not

        look_at_model(folder, opener, findings, deep=deep)
    return FolderReport(
        folder.path,
        reports,
        tuple(findings.faults),
        _non_finite(read),
        tuple(findings.checked),
        tuple(findings.not_checked),
    )


def _file_report(
    folder: Folder, name: str, file: CheckedFile | None, unserved: Collection[str]
) -> FileReport:
    path, expected = folder.root / name, folder.expected.get(name)
    if file is None and path.exists():
        return FileReport(name, "unreadable", expected, note="not a file", good=False)
    if file is None:
        is_served = name not in unserved
        status: Status = "missing" if is_served else "not served"
        note = hint_at_misnamed(path).strip() if is_served else _NOT_SERVED
        return FileReport(name, status, expected, note=note, good=not is_served)
    if file.error is not None:
        reason = getattr(file.error, "strerror", None) or str(file.error)
        return FileReport(name, "unreadable", expected, note=reason, good=False)
    found = file.found["checksums"].get(kind_of(expected))
    if expected is not None and expected == found:
        return FileReport(name, "ok", expected, found)
    note = not_weights_in(path) or ""
    if expected is None:
        return FileReport(name, "not listed", None, found, note, good=not note)
    note = note or ("empty" if not file.nbytes else "")
    return FileReport(name, "mismatch", expected, found, note, good=False)


def _tell_sums(folder: Folder, files: Sequence[FileReport], findings: Findings) -> None:
    if folder.checklists:
        good = sum(file.status == "ok" for file in files)
        served = len(folder.expected) - sum(file.status == "not served" for file in files)
        lists = " and ".join(folder.checklists)
        kinds = " and ".join(sorted({f"{kind_of(it)}s" for it in folder.expected.values()}))
        findings.checked.append(f"{good} of {served} {kinds or 'MD5s'} of {lists} are right")
    if not folder.is_covered:
        unlisted = "the model" if folder.checklists else "the files"
        findings.not_checked.append(
            f"md5 of {unlisted}: there is no checklist that can be read, so the MD5s were computed "
            "and compared with nothing"
        )


def _tell_contents(files: Sequence[CheckedFile], findings: Findings) -> None:
    for file in files:
        for fault in file.faults:
            findings.fault(fault)
    members = sum(file.crcs.checked - len(file.crcs.wrong) for file in files if file.crcs)
    if members:
        findings.checked.append(f"{members} members of .pth files have the CRC-32 that they should")
    if any(file.path.suffix == ".safetensors" for file in files):
        findings.not_checked.append(
            "the values in .safetensors: the format has no checksums, so only a checklist can tell"
        )
    scanned = [file.non_finite for file in files if file.non_finite is not None]
    values = sum(counts.values for counts in scanned)
    if scanned and not any(counts.counts for counts in scanned):
        findings.checked.append(f"no NaN or infinity in {values:,} values")


def _non_finite(files: Sequence[CheckedFile]) -> tuple[NonFinite, ...]:
    totals: dict[str, NonFinite] = {}
    for file in files:
        for name, new in (file.non_finite.counts if file.non_finite else {}).items():
            old = totals.get(name, NonFinite(name, 0, 0, ()))
            counts = (old.nan + new.nan, old.infinite + new.infinite)
            totals[name] = NonFinite(name, *counts, (*old.files, file.path.name))
    return tuple(totals.values())
