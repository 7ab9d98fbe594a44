"""What a plugin finds and has to leave as it is: the process around it."""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple


class ContractError(AssertionError):
    """A rule that a plugin breaks, in a sentence for its author."""


def check_fault(subject: str, fault: str) -> None:
    """Raise ``ContractError`` if a contract has found a fault; ``""`` is none."""
    __tracebackhide__ = True
    if fault:
        raise ContractError(f"{subject} {fault}")


class _Part(NamedTuple):
    """One thing of the process that everybody shares."""

    name: str
    read: Callable[[], Any]
    restore: Callable[[Any], object]
    remedy: str


@contextlib.contextmanager
def left_alone(name: str) -> Iterator[None]:
    """Check that what is done inside changes nothing that the whole process shares.

    Args:
        name: who is watched, such as ``the sampler nth``.

    Raises:
        ContractError: something has changed (it is put back), or something was printed.
    """
    __tracebackhide__ = True
    parts = [*_PLAIN, *_of_numpy(), *_of_torch()]
    before = [part.read() for part in parts]
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        changed = [
            (part, value) for part, value in zip(parts, before, strict=True) if part.read() != value
        ]
        for part, value in changed:
            part.restore(value)
    for part, _ in changed:
        raise ContractError(
            f"{name} changes {part.name}, which all of the process shares: {part.remedy}"
        )
    if printed.getvalue():
        raise ContractError(
            f"{name} prints {printed.getvalue()[:40]!r}, which ends up in the answer or in JSON: "
            "take the print out, or use logging"
        )


def _set_environment(values: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(values)


_DRAW = "draw from row.generator (llamakit.sampling.draw_ids does)"
_BY_ARGUMENT = "pass the value to the calls that need it"
_PLAIN = (
    _Part("the environment variables", lambda: dict(os.environ), _set_environment, _BY_ARGUMENT),
    _Part("the current folder", Path.cwd, os.chdir, "use whole paths"),
    _Part("the state of Python's random", random.getstate, random.setstate, _DRAW),
    _Part(
        "what Ctrl-C does",
        lambda: signal.getsignal(signal.SIGINT),
        lambda handler: signal.signal(signal.SIGINT, handler),
        "leave signals to llamakit",
    ),
)


def _of_numpy() -> Iterator[_Part]:
    if "numpy" not in sys.modules:
        return
    from numpy import random as numpy_random

    def state() -> tuple[object, ...]:
        kind, keys, *rest = numpy_random.get_state(legacy=True)
        return (kind, tuple(keys), *rest)

    yield _Part("the state of numpy's random", state, numpy_random.set_state, _DRAW)


def _of_torch() -> Iterator[_Part]:
    if "torch" not in sys.modules:
        return
    import torch

    yield _Part(
        "torch's default dtype",
        torch.get_default_dtype,
        torch.set_default_dtype,
        "pass dtype= to the calls that make tensors",
    )
    yield _Part(
        "torch's default device",
        torch.get_default_device,
        torch.set_default_device,
        "pass device=logits.device to the calls that make tensors",
    )
    yield _Part(
        "torch's number of threads",
        torch.get_num_threads,
        torch.set_num_threads,
        "leave it to the user",
    )
    yield _Part(
        "whether torch records gradients",
        torch.is_grad_enabled,
        torch.set_grad_enabled,
        "llamakit calls plugins in torch.inference_mode already",
    )
    yield _Part(
        "whether torch is deterministic",
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
        "leave it to the user",
    )
    yield _Part(
        "the state of torch's own generator",
        lambda: bytes(torch.get_rng_state().numpy()),
        lambda state: torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8)),
        _DRAW,
    )
