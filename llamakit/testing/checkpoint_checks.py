"""The contract of checkpoint formats: what a plugin's ``open_checkpoint`` opens."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from llamakit.checkpoint.checked_read import read_checked
from llamakit.checkpoint.dtypes import DTYPES
from llamakit.checkpoint.layout import check_parameters
from llamakit.checkpoint.params import ModelParams
from llamakit.errors import LlamakitError
from llamakit.plugin_manager.contracts.returned_objects import opened_fault
from llamakit.protocols import Checkpoint, Parameter
from llamakit.testing.capability_checks import check_capabilities
from llamakit.testing.exporter_checks import contents, files_of
from llamakit.testing.factory_checks import said
from llamakit.testing.process_state import ContractError, left_alone
from llamakit.testing.registration_checks import check_registration_of
from llamakit.testing.small_checkpoints import write_checkpoint

if TYPE_CHECKING:
    from llamakit.checkpoint.dtypes import Array

Open = Callable[[Path], Checkpoint | None]
_MOST_DAMAGED = 20
"""How many files are cut short, one at a time: a format may have one for each parameter."""
_INDEX_NBYTES = 1 << 20
"""Files up to this size may be an index; they are what opening reads."""


def check_checkpoint_form(open_checkpoint: Open, path: Path) -> None:
    """Check that a plugin opens its format of checkpoint as llamakit expects, and nothing else.

    Args:
        open_checkpoint: the plugin's hook.
        path: a whole checkpoint of the format; a small one, as all of it is read several times.

    Raises:
        AssertionError: a rule is broken; the sentence says which, and what to do.
    """
    __tracebackhide__ = True
    path, before = Path(path), contents(path)
    check_registration_of(open_checkpoint)
    check_first_line(open_checkpoint, "a folder with index.json and a .npy for each parameter")
    with left_alone("open_checkpoint"):
        checkpoint: Checkpoint = call_hook(open_checkpoint, "open_checkpoint", path, "checkpoint")
    _check_index(checkpoint, path)
    _check_reads(checkpoint)
    _check_again(checkpoint, call_hook(open_checkpoint, "open_checkpoint", path, "checkpoint"))
    check_capabilities(checkpoint)
    if contents(path) != before:
        raise ContractError("the checkpoint changes while it is opened and read: open it to read")
    with TemporaryDirectory() as root:
        for other in _others(Path(root), checkpoint.form):
            _check_passed_over(open_checkpoint, other)
        _check_damage(open_checkpoint, path, Path(root, "damaged"))


def check_first_line(hook: Callable[..., object], example: str) -> None:
    """Check that a hook's docstring says what it looks for."""
    __tracebackhide__ = True
    if not (inspect.getdoc(hook) or "").strip():
        raise ContractError(
            f"{getattr(hook, '__name__', hook)} has no docstring: where no plugin opens a path, "
            f'users read its first line as what was expected, such as "{example}"'
        )


def call_hook(hook: Callable[[Path], Any], name: str, path: Path, kind: str) -> Any:
    """Call a hook on what is of its format; return what it opens.

    Args:
        name: ``open_checkpoint`` or ``load_tokenizer``.
        kind: what ``path`` is, a checkpoint or a file.
    """
    __tracebackhide__ = True
    try:
        opened = hook(path)
    except Exception as error:
        raise ContractError(f"{name} fails on a whole {kind}: {said(error)}") from error
    if opened is None:
        raise ContractError(f"{name} returns None for {path}, which is of its format")
    if fault := opened_fault(name, opened):
        raise ContractError(f"{name} is no good: it {fault}")
    return opened


def _check_index(checkpoint: Checkpoint, path: Path) -> None:
    """Check what a checkpoint says of itself before anything is read."""
    __tracebackhide__ = True
    if not isinstance(checkpoint.path, Path) or checkpoint.path.resolve() != path.resolve():
        raise ContractError(f"path is {checkpoint.path!r}: keep the Path that is opened, {path}")
    if not isinstance(checkpoint.form, str) or not checkpoint.form:
        raise ContractError(f"form is {checkpoint.form!r}: name the format")
    if checkpoint.nbytes_read != 0:
        raise ContractError(
            f"{checkpoint.nbytes_read} bytes of weights are read while opening: read the index "
            "alone, for a checkpoint may be larger than memory"
        )
    if not isinstance(checkpoint.params, ModelParams):
        raise ContractError(
            f"params is of type {type(checkpoint.params).__name__}: make a "
            "llamakit.checkpoint.params.ModelParams"
        )
    if not isinstance(checkpoint.parameters, Mapping):
        raise ContractError("parameters is no mapping of Meta's names")
    for name, parameter in checkpoint.parameters.items():
        if fault := _fault_of(name, parameter):
            raise ContractError(f"parameters[{name!r}] {fault}")
    try:
        check_parameters(checkpoint)
    except LlamakitError as error:
        raise ContractError(f"the parameters do not fit the params: {error}") from error


def _fault_of(name: str, parameter: object) -> str:
    """Say what is wrong with an entry of the index, or nothing."""
    if not isinstance(parameter, Parameter):
        return f"is a {type(parameter).__name__}: make a llamakit.protocols.Parameter"
    if parameter.name != name:
        return f"is called {parameter.name!r}: give both the same name"
    if not isinstance(parameter.shape, tuple) or any(
        type(size) is not int for size in parameter.shape
    ):
        return f"has the shape {parameter.shape!r}: write a tuple of ints"
    if parameter.dtype not in DTYPES:
        return f"has the dtype {parameter.dtype!r}: one of {', '.join(DTYPES)}"
    if parameter.axis is not None and parameter.axis not in range(len(parameter.shape)):
        return f"has the axis {parameter.axis!r}, and {len(parameter.shape)} axes"
    return ""


def _check_reads(checkpoint: Checkpoint) -> None:
    """Check that parameters and slices of them are what the index says, and of one another."""
    __tracebackhide__ = True
    import numpy as np

    for name, parameter in checkpoint.parameters.items():
        whole = _read(checkpoint, name)
        for axis, length in enumerate(parameter.shape):
            start, stop = length // 3, max(length // 3 + 1, length // 2)
            piece = _read(checkpoint, name, axis=axis, start=start, stop=stop)
            rest = _read(checkpoint, name, axis=axis, start=stop)
            expected = [whole.take(range(start, stop), axis), whole.take(range(stop, length), axis)]
            if not all(map(np.array_equal, map(_bits, [piece, rest]), map(_bits, expected))):
                raise ContractError(
                    f"read({name!r}, axis={axis}, start={start}, stop={stop}) is no slice of what "
                    f"read({name!r}) returns"
                )
    if checkpoint.nbytes_read <= 0:
        raise ContractError("nbytes_read stays 0: add array.nbytes of what read returns")
    try:
        checkpoint.read("layers.0.nonsense.weight")
    except KeyError:
        return
    except Exception as error:
        raise ContractError(
            f"read of a parameter that there is not raises {said(error)}: raise a KeyError"
        ) from error
    raise ContractError("read returns something for a parameter that there is not")


def _check_again(one: Checkpoint, other: Checkpoint) -> None:
    """Check that another one opened, and read by several threads, has the same values."""
    __tracebackhide__ = True
    import numpy as np

    names = list(one.parameters)
    with ThreadPoolExecutor(4) as threads:
        read = threads.map(lambda name: _bits(_read(other, name)), names)
        for name, values in zip(names, read, strict=True):
            if not np.array_equal(values, _bits(_read(one, name))):
                raise ContractError(
                    f"{name} has other values when it is read again, by one of several threads: "
                    "read keeps nothing in the checkpoint but its count"
                )


def _read(checkpoint: Checkpoint, name: str, **bounds: Any) -> Array:
    __tracebackhide__ = True
    try:
        return read_checked(checkpoint, name, **bounds)
    except LlamakitError as error:
        raise ContractError(f"read({name!r}, {bounds}) is no good: {error}") from error


def _bits(array: Array) -> Array:
    """View values as bytes, so that NaN equals itself."""
    import numpy as np

    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _others(root: Path, form: str) -> Iterator[Path]:
    """Make what is no checkpoint of the format: Meta's format, other files, a file."""
    if form != "meta":
        yield write_checkpoint(root / "meta")
    (root / "empty").mkdir()
    yield root / "empty"
    (root / "notes").mkdir()
    (root / "notes" / "index.json").write_text("[]", "utf-8")
    yield root / "notes"
    yield root / "notes" / "index.json"


def _check_passed_over(open_checkpoint: Open, path: Path) -> None:
    __tracebackhide__ = True
    what = "a checkpoint in Meta's format" if path.name == "meta" else f"{path.name}, which is none"
    try:
        opened = open_checkpoint(path)
    except Exception as error:
        raise ContractError(
            f"open_checkpoint fails on {what}: {said(error)}; return None for what is not of the "
            "format, so that the next plugin is asked"
        ) from error
    if opened is not None:
        raise ContractError(f"open_checkpoint opens {what}: look for what only the format has")


def _check_damage(open_checkpoint: Open, path: Path, copy: Path) -> None:
    """Check that a file cut short is noticed on opening, or opens; it is no other error."""
    __tracebackhide__ = True
    if path.is_dir():
        shutil.copytree(path, copy)
    else:
        shutil.copy(path, copy)
    small = [file for file in files_of(copy) if 0 < file.stat().st_size <= _INDEX_NBYTES]
    for file in small[:_MOST_DAMAGED]:
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        try:
            open_checkpoint(copy)
        except (LlamakitError, OSError):
            pass
        except Exception as error:
            raise ContractError(
                f"open_checkpoint fails where {file.name} is cut short: {said(error)}; raise a "
                "DamagedFileError that says which file is damaged"
            ) from error
        file.write_bytes(whole)
