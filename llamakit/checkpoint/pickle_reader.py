"""Reads the pickle inside a .pth as a dict of tensors, and explains one that is something else."""

from __future__ import annotations

import logging

from llamakit.checkpoint.pickle_machine import Machine
from llamakit.checkpoint.pickle_survey import (
    Foreign,
    Survey,
    describe_contents,
    describe_value,
    find_key,
    keys_of_weights,
    survey,
)
from llamakit.checkpoint.torch_globals import Buffer, TensorRecord
from llamakit.errors import (
    CheckpointError,
    DamagedFileError,
    ParametersError,
    UnsafePickleError,
    UnsupportedModelError,
)
from llamakit.printable import printable, quoted

MAX_NBYTES = 4 << 20
"""The pickle of a shard of 405B, 1,137 tensors, has 0.3 MB."""

_RUNS_PROGRAMS = {
    *("os", "posix", "nt", "subprocess", "sys", "builtins", "__builtin__", "runpy", "pty"),
    *("socket", "shutil", "importlib", "webbrowser", "ctypes", "commands", "asyncio", "code"),
    *("operator", "functools", "bdb", "pdb", "timeit", "pickle", "_pickle", "urllib", "requests"),
}
"""Modules that no training loop saves anything of."""
_HARMLESS = {
    *("set", "frozenset", "slice", "complex", "object", "list", "dict", "tuple", "bytearray"),
    *("bytes", "str", "unicode", "int", "long", "float", "bool", "range", "xrange"),
}
_TENSORS = {
    "torch._utils._rebuild_qtensor": "quantized",
    "torch._utils._rebuild_sparse_tensor": "sparse",
    "torch._utils._rebuild_sparse_csr_tensor": "sparse",
    "torch._utils._rebuild_nested_tensor": "nested",
    "torch._utils._rebuild_meta_tensor_no_storage": "on the meta device, without values",
    "torch._tensor._rebuild_from_type_v2": "of a class of its own, such as torchao's or DTensor",
    "torch._utils._rebuild_wrapper_subclass": "of a class of its own, such as torchao's or DTensor",
}
"""The functions by which torch saves tensors that are not plain, and what these are."""


def read_pickle(data: bytes, source: str, key: str | None = None) -> dict[str, TensorRecord]:
    """Read the pickle of a dict of tensors. Bytes after its end are ignored, and nothing is run.

    Args:
        data: the pickle.
        source: what it is from, for messages.
        key: of the dict of tensors in a training checkpoint, such as ``model``; with dots where it
            is in a dict in it. What else is there is not read.
    Returns:
        For each tensor where its values are, in the order of the file.
    Raises:
        UnsafePickleError: it asks for something that no tensor needs; nothing was run.
        DamagedFileError: it is malformed, truncated or too large.
        ParametersError: it is well-formed, but not a flat dict of tensors, or has no such key.
        UnsupportedModelError: tensors of a kind or dtype that is not read here.
    """
    check_nbytes(len(data), source)
    if key is not None:
        return _read_key(data, source, key)
    try:
        return _flat_tensors(Machine(source).run(data), source)
    except (UnsafePickleError, ParametersError, ValueError) as error:
        raise _explained(error, survey(data, source), source) from None


def check_nbytes(nbytes: int, source: str) -> None:
    """Refuse a pickle that is larger than any checkpoint's.

    Raises:
        DamagedFileError: it is; the message says how large.
    """
    if nbytes > MAX_NBYTES:
        raise DamagedFileError(
            f"{source}: its index of tensors (data.pkl) has {nbytes} bytes; no checkpoint needs "
            f"over {MAX_NBYTES}. Download the file again."
        )


def _read_key(data: bytes, source: str, key: str) -> dict[str, TensorRecord]:
    surveyed = survey(data, source)
    if surveyed is None:  # nothing can be made of it, and this says why
        return read_pickle(data, source)
    _warn_of_programs(surveyed, source)
    value = find_key(surveyed.value, key)
    if value is None:
        there = ", ".join(keys_of_weights(surveyed.value)[:3])
        raise ParametersError(
            f"{source} holds nothing under {printable(key)!r}; it holds "
            f"{describe_contents(surveyed.value)}. "
            + (f"Tensors alone are under: {there}." if there else "Leave out --key.")
        )
    return _flat_tensors(value, f"{source}, {printable(key)!r},")


def _warn_of_programs(found: Survey, source: str) -> None:
    """Warn of what another program would run that loads the file; its weights are read here."""
    if name := next(filter(_runs_programs, found.foreign), None):
        logging.getLogger("llamakit").warning(
            "%s asks for %s beside the weights; nothing was run, but do not load it with anything "
            "else, which may run it",
            source,
            printable(name),
        )


def _flat_tensors(value: object, source: str) -> dict[str, TensorRecord]:
    if not isinstance(value, dict):
        raise ParametersError(f"{source} holds {describe_value(value)}; expected a dict of tensors")
    tensors = {}
    for name, tensor in value.items():
        if isinstance(tensor, Buffer) and isinstance(name, str) and name.endswith("_extra_state"):
            continue
        if not isinstance(tensor, TensorRecord) or not isinstance(name, str):
            kind = "a dict" if isinstance(tensor, dict) else describe_value(tensor)
            raise ParametersError(
                f"{source} holds {kind} under {printable(name)!r}; expected a flat dict of tensors"
            )
        tensors[name] = tensor
    return tensors


def _explained(
    error: UnsafePickleError | ParametersError | ValueError, found: Survey | None, source: str
) -> CheckpointError | UnsupportedModelError:
    """Return the error with what the pickle holds, and what to do."""
    foreign = found.foreign if found else ()
    if odd := next((name for name in foreign if _is_of_torch(name)), None):
        return _unread_tensor(odd, source)
    is_hostile = any(_runs_programs(name) for name in foreign)
    if found is None or is_hostile:
        if not isinstance(error, UnsafePickleError):
            return _damaged(error, source)
        return UnsafePickleError(
            f"{error}; nothing was run. Do not load it with anything else, which may run it; "
            "download the file again from where the model is published."
        )
    if not isinstance(error, CheckpointError) and not keys_of_weights(found.value):
        return _damaged(error, source)
    advice = _advice(found.value)
    kind = type(error) if isinstance(error, CheckpointError) else ParametersError
    said = f"{error}; nothing was run" if isinstance(error, UnsafePickleError) else str(error)
    if not isinstance(error, CheckpointError):
        said = f"{source} is no flat dict of tensors"
    holds = f" It holds {describe_contents(found.value)}." if isinstance(found.value, dict) else ""
    return kind(f"{said}.{holds} {advice}")


def _advice(value: object) -> str:
    """Say how the weights get out of what is more than a dict of tensors."""
    if keys := keys_of_weights(value):
        return (
            "It is a training checkpoint: import its weights with llamakit import --key "
            f"{quoted(keys[0])} SRC DST, or save them alone in Python: "
            f"torch.save(checkpoint{_indexed(keys[0])}, path)."
        )
    if isinstance(value, dict) and any(isinstance(it, TensorRecord) for it in value.values()):
        return (
            "Save only the tensors, in Python: torch.save({name: it for name, it in "
            "checkpoint.items() if torch.is_tensor(it)}, path)."
        )
    if isinstance(value, Foreign):
        return (
            "It seems to be a whole module, saved by torch.save(model): load it where its code is, "
            "and save its weights alone: torch.save(model.state_dict(), path)."
        )
    return "Save the weights as a dict by name: torch.save(model.state_dict(), path)."


def _indexed(key: str) -> str:
    return "".join(f"[{part!r}]" for part in printable(key).split("."))


def _damaged(error: Exception, source: str) -> CheckpointError:
    if isinstance(error, CheckpointError):
        return type(error)(
            f"{error}. Save the weights as a dict by name, or download the file again."
        )
    return DamagedFileError(
        f"{source}: its index of tensors (data.pkl) is damaged: {error}; download the file again."
    )


def _is_of_torch(name: str) -> bool:
    """Tell whether a name belongs to a tensor, of a kind or dtype that is not read here."""
    module, _, last = name.rpartition(".")
    is_dtype = module == "torch" and last.rstrip("0123456789").islower() and last[-1].isdigit()
    return name in _TENSORS or is_dtype or (module == "torch" and last.endswith("Storage"))


def _unread_tensor(name: str, source: str) -> UnsupportedModelError:
    kind = _TENSORS.get(name, f"of the dtype {printable(name, 80)}")
    return UnsupportedModelError(
        f"{source} holds a tensor that is {kind}; expected plain tensors of float32, bfloat16 or "
        f"float16. It was saved by {printable(name, 80)}, and nothing was run: convert the weights "
        "back with the tool that made them, or take the model's unquantized files."
    )


def _runs_programs(name: str) -> bool:
    module, _, last = name.rpartition(".")
    return module.partition(".")[0] in _RUNS_PROGRAMS and last not in _HARMLESS
