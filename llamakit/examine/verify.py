"""Verify: hash every file, compare with the checklists, and with ``deep`` look inside."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from llamakit.checkpoint.capabilities import has_capability, weight_files
from llamakit.checkpoint.checklist import kind_of
from llamakit.checkpoint.hashing import Checksum, Consumer, FilePass, FileRead, read_files
from llamakit.checkpoint.misnamed_files import hint_at_misnamed
from llamakit.checkpoint.pth_reader import PthFile
from llamakit.checkpoint.safetensors_reader import SafetensorsFile
from llamakit.checkpoint.tensor_file import TensorFile
from llamakit.checkpoint.zip_index import Member, index_zip
from llamakit.errors import (
    CheckpointError,
    DamagedFileError,
    LlamakitError,
    NotACheckpointError,
    UnsupportedModelError,
)
from llamakit.examine.contents import Counts, MemberCrcs, NonFiniteCounts
from llamakit.examine.deep_checks import (
    Findings,
    look_at_dtypes,
    look_at_shapes,
    look_at_tokenizer,
    look_deep,
)
from llamakit.examine.folders import Folder, find_folders, not_weights_in
from llamakit.examine.steps import Opener, StepProgress, Steps, warnings_of
from llamakit.examine.verify_report import FileReport, FolderReport, NonFinite, Status, VerifyReport
from llamakit.files.regular_file import open_regular
from llamakit.protocols import Checkpoint

_NOT_SERVED = "in Meta's checklist, but not among the files that Meta's link gives; not needed"

_PICKLED = re.compile(r"(pytorch_model|ft-model|hf_model|meta_model|torchtune_model).*\.(bin|pt)")
"""Weights that are pickled under another ending; other files of that ending are a trainer's."""
_TENSOR_FILES: Mapping[str, Callable[[Path], TensorFile]] = {
    ".pth": PthFile.open,
    ".safetensors": SafetensorsFile.open,
}


def verify(
    paths: Sequence[Path],
    opener: Opener,
    *,
    deep: bool = False,
    unserved: Collection[str] = (),
) -> Steps[VerifyReport]:
    """Verify folders; every file that counts is read, whatever was read before.

    Args:
        paths: folders of models, folders that hold several, or folders with a tokenizer.
        opener: opens checkpoints and tokenizers.
        deep: look for what checksums do not show.
        unserved: names of files that checklists list though the server does not have them; where
            they are missing, a note says so.

    Raises:
        NotACheckpointError: there is nothing to verify at a path.
    """
    folders = {folder.path: folder for path in paths for folder in _folders(path, opener)}
    files = _files(folders.values(), deep=deep)
    done = yield from _read(files)
    for file in files.values():
        file.conclude()
    reports = [_report(folder, files, opener, unserved, deep=deep) for folder in folders.values()]
    return VerifyReport(tuple(reports), done)


def _read(files: Mapping[Path, _File]) -> Steps[int]:
    """Read files, and return how many bytes that were."""
    passes = [FilePass(path, file.consumers) for path, file in files.items() if file.consumers]
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


def _files(folders: Iterable[Folder], *, deep: bool) -> dict[Path, _File]:
    """Say what looks at each file, once for each, however many lists name it."""
    files: dict[Path, _File] = {}
    for folder in folders:
        for name in (*folder.expected, *folder.unlisted):
            path = folder.path / name
            if not path.is_file():
                continue
            file = files.setdefault(path, _File(path, deep=deep))
            expected = folder.expected.get(name)
            if expected or not folder.is_covered:
                file.checksums.setdefault(kind_of(expected), Checksum(expected))
    return files


def _folders(path: Path, opener: Opener) -> list[Folder]:
    folders = find_folders(path)
    if not folders:
        # Whatever opens it has a better sentence, and a plugin may know its format.
        checkpoint = opener.open_checkpoint(path)
        return [Folder(checkpoint.path, (), {}, (), ())]
    return folders


class _File:
    """One file that is read, and what looks at it."""

    def __init__(self, path: Path, *, deep: bool) -> None:
        self.path = path
        self.nbytes = path.stat().st_size
        self.checksums: dict[str, Checksum] = {}
        """By kind: lists of several folders may have another each."""
        self.crcs: MemberCrcs | None = None
        self.non_finite: NonFiniteCounts | None = None
        self.error: OSError | DamagedFileError | None = None
        self.faults: list[str] = []
        if deep:
            self._look_inside()

    @property
    def consumers(self) -> list[Consumer]:
        others = [result for result in (self.crcs, self.non_finite) if result is not None]
        return [*self.checksums.values(), *others]

    def _look_inside(self) -> None:
        opened = _open_tensors(self.path, self.faults)
        if opened is not None:
            self.non_finite = NonFiniteCounts(opened)
        if (self.path.suffix == ".pth" or isinstance(opened, PthFile)) and (
            members := _members(self.path)
        ):
            self.crcs = MemberCrcs(members)

    def conclude(self) -> None:
        """Note what the bytes have shown."""
        if self.crcs is not None:
            self.faults += _crc_faults(self.path, self.crcs)
        if self.non_finite is not None:
            try:
                self.non_finite.finish()
            except CheckpointError as error:
                self.faults.append(error.for_commands)


def _report(
    folder: Folder,
    files: Mapping[Path, _File],
    opener: Opener,
    unserved: Collection[str],
    *,
    deep: bool,
) -> FolderReport:
    """Put together what was found in a folder."""
    mine = {name: files.get(folder.path / name) for name in (*folder.expected, *folder.unlisted)}
    reports = tuple(_file_report(folder, name, file, unserved) for name, file in mine.items())
    read = [file for file in mine.values() if file is not None]
    findings = Findings(list(folder.faults))
    _tell_sums(folder, reports, findings)
    if deep:
        _tell_contents(read, findings)
    if deep or not folder.is_covered:
        _look_at_model(folder, opener, findings, deep=deep)
    return FolderReport(
        folder.path,
        reports,
        tuple(findings.faults),
        tuple(_non_finite(read)),
        tuple(findings.checked),
        tuple(findings.not_checked),
    )


def _file_report(
    folder: Folder, name: str, file: _File | None, unserved: Collection[str]
) -> FileReport:
    path, expected = folder.path / name, folder.expected.get(name)
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
    checksum = file.checksums.get(kind_of(expected))
    found = checksum.hexdigest() if checksum else None
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


def _tell_contents(files: Sequence[_File], findings: Findings) -> None:
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


def _look_at_model(folder: Folder, opener: Opener, findings: Findings, *, deep: bool) -> None:
    """Open the folder as a checkpoint, if it is one, and look at it as a whole."""
    try:
        with warnings_of():
            checkpoint = opener.open_checkpoint(folder.path)
    except NotACheckpointError as error:
        if folder.has_model:
            findings.fault(error)
        return
    except LlamakitError as error:
        findings.fault(error)
        return
    look_at_shapes(checkpoint, findings)
    is_known = has_capability(checkpoint, "deep_checks") or _has_tensor_files(checkpoint)
    if not is_known:
        findings.not_checked.append(
            f"the weights themselves: what the files of the format {checkpoint.form} hold is its "
            "plugin's to know"
        )
    elif not deep:
        findings.not_checked.append("the weights themselves; --deep looks at them")
    if deep:
        look_at_dtypes(checkpoint, findings)
        look_at_tokenizer(checkpoint, opener, findings)
        look_deep(checkpoint, findings)


def _has_tensor_files(checkpoint: Checkpoint) -> bool:
    """Tell whether all weights are in files that are looked at here, whatever the format."""
    files = weight_files(checkpoint)
    return bool(files) and all(
        file.suffix in _TENSOR_FILES or _PICKLED.fullmatch(file.name) for file in files
    )


def _open_tensors(path: Path, faults: list[str]) -> TensorFile | None:
    opens = PthFile.open if _PICKLED.fullmatch(path.name) else _TENSOR_FILES.get(path.suffix)
    if opens is None:
        return None
    try:
        return opens(path)
    except (CheckpointError, UnsupportedModelError) as error:
        faults.append(error.for_commands)
        return None


def _members(path: Path) -> list[Member]:
    try:
        with open_regular(path) as file:
            return list(index_zip(file).values())
    except (OSError, ValueError):
        return []  # opening its tensors has said so


def _crc_faults(path: Path, crcs: MemberCrcs) -> Iterator[str]:
    for member, found in crcs.wrong:
        yield (
            f"{path}: {member.name} has the CRC-32 {found:08x}; expected {member.crc:08x}. "
            "Its bytes have changed: download the file again."
        )
    for member in crcs.unread():
        yield f"{path} ended before {member.name} did; wait until whatever writes it is done."


def _non_finite(files: Sequence[_File]) -> Iterator[NonFinite]:
    totals: dict[str, tuple[Counts, list[str]]] = {}
    for file in files:
        for name, counts in (file.non_finite.counts if file.non_finite else {}).items():
            total, names = totals.setdefault(name, (Counts(), []))
            total.nan += counts.nan
            total.infinite += counts.infinite
            names.append(file.path.name)
    for name, (total, names) in totals.items():
        yield NonFinite(name, total.nan, total.infinite, tuple(names))
