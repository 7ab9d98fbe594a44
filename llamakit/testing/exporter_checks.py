"""The contract of exporters."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from llamakit.convert.conversion_plan import ConversionPlan
from llamakit.errors import LlamakitError
from llamakit.plugin_manager.contracts.exporters import export_fault, plan_fault
from llamakit.protocols import Checkpoint, Exporter
from llamakit.testing.factory_checks import said
from llamakit.testing.process_state import ContractError, check_fault, left_alone
from llamakit.testing.registration_checks import check_registration_of
from llamakit.testing.small_checkpoints import write_checkpoint


def check_exporter(export: Exporter, **options: Any) -> None:
    """Check that an exporter writes a checkpoint as llamakit expects.

    It is called with random checkpoints of 1 and of 2 shards, and once ``options["progress"]``, as
    ``llamakit export`` does on a terminal: a function that may be called with bytes. If it has a
    ``plan``, that is asked first and compared with what is written then.

    Args:
        export: what the plugin registers.
        options: for the exporter, as ``--option K=V`` would pass them.

    Raises:
        AssertionError: a rule is broken; the sentence says which, and what to do.
    """
    from llamakit.plugin_manager.toolkit import default_toolkit

    __tracebackhide__ = True
    name = f"exporter {getattr(export, '__name__', type(export).__name__)}"
    check_registration_of(export)
    with TemporaryDirectory() as root:
        for shards in (1, 2):
            source = write_checkpoint(Path(root, f"source-{shards}"), shards)
            checkpoint = default_toolkit().open_checkpoint(source)
            place = Path(root, f"made-{shards}")
            place.mkdir()
            _check_one(name, export, checkpoint, place, options)
        _check_unknown_option(name, export, checkpoint, Path(root), options)


def _check_one(
    name: str, export: Exporter, checkpoint: Checkpoint, place: Path, options: Mapping[str, Any]
) -> None:
    """Check one export, planned and done twice."""
    __tracebackhide__ = True
    before = contents(checkpoint.path)
    planned = _plan(name, export, checkpoint, place / "one", options)
    with left_alone(name):
        report = _export(name, export, checkpoint, place / "one", options)
    with_progress = {**options, "progress": lambda _: None}
    _export(name, export, checkpoint, place / "two", with_progress)
    check_fault(name, export_fault(report, place / "one"))
    others = sorted(path.name for path in place.iterdir() if path.name not in ("one", "two"))
    if others:
        raise ContractError(
            f"{name} leaves {', '.join(others)} next to the destination: write below it only"
        )
    if contents(checkpoint.path) != before:
        raise ContractError(f"{name} changes the checkpoint that it reads")
    if contents(place / "one") != contents(place / "two"):
        raise ContractError(
            f"{name} writes other bytes the second time: leave dates and random numbers out"
        )
    if planned is not None and planned != sizes_of(place / "one"):
        raise ContractError(
            f"{name} plans {planned} and writes {sizes_of(place / 'one')}: its plan has to say the "
            "exact size of each file"
        )


def _plan(
    name: str, export: Exporter, checkpoint: Checkpoint, place: Path, options: Mapping[str, Any]
) -> dict[str, int] | None:
    """Return the sizes of the files that an exporter plans, by name; None: it plans nothing."""
    __tracebackhide__ = True
    make = getattr(export, "plan", None)
    if make is None:
        return None
    with left_alone(name):
        planned = _export(name, make, checkpoint, place, options)
    if os.path.lexists(place):
        raise ContractError(f"{name} writes when it plans; write nothing before it is asked to")
    if isinstance(planned, ConversionPlan):
        return planned.files
    check_fault(name, plan_fault(planned))
    return {file["name"]: file["nbytes"] for file in planned["files"]}


def _export(
    name: str, export: Exporter, checkpoint: Checkpoint, place: Path, options: Mapping[str, Any]
) -> Any:
    __tracebackhide__ = True
    try:
        return export(checkpoint, place, dict(options))
    except Exception as error:
        raise ContractError(
            f"{name} fails on a checkpoint of the format {checkpoint.form}: {said(error)}"
        ) from error


def _check_unknown_option(
    name: str, export: Exporter, checkpoint: Checkpoint, root: Path, options: Mapping[str, Any]
) -> None:
    __tracebackhide__ = True
    for action in filter(None, (getattr(export, "plan", None), export)):
        try:
            action(checkpoint, root / "unknown", {**options, "no-such-option": "1"})
        except LlamakitError:
            continue
        except Exception as error:
            raise ContractError(
                f"{name} fails on an option that it does not have: {said(error)}; raise an "
                "OptionError"
            ) from error
        raise ContractError(
            f"{name} takes an option that it does not have, so a misspelled one would "
            "pass: raise an OptionError that lists those it has"
        )


def contents(path: Path) -> dict[str, str]:
    """Return a hash of every file of a folder (or of the one file) by its name."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files_of(path)
    }


def sizes_of(path: Path) -> dict[str, int]:
    """Return the size of every file of a folder (or of the one file) by its name."""
    root = path.parent if path.is_file() else path
    return {str(file.relative_to(root)): file.stat().st_size for file in files_of(path)}


def files_of(path: Path) -> list[Path]:
    """Return the files below a folder in their order, or the one file."""
    return [path] if path.is_file() else sorted(filter(Path.is_file, path.rglob("*")))
