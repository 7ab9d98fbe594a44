"""The contracts of samplers and of logits processors.

Tensors are duck-typed, as the plugin manager imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from llamakit.plugin_manager.registry import Entry

if TYPE_CHECKING:
    import torch

    from llamakit.protocols import Row

NEGATIVE_INFINITY = float("-inf")
Contract = Callable[[Any, "torch.Tensor"], str]


def sampler_fault(tokens: Any, logits: torch.Tensor) -> str:
    """Say what is wrong with the tokens that a sampler returned, or nothing.

    Args:
        tokens: should be ``(B,)`` int64 on the device of the logits.
        logits: ``(B, V)`` float32, as the sampler was called with.
    """
    count, vocab_size = logits.shape
    is_tensor = _is_tensor(tokens, (count,), "torch.int64", logits)
    if not is_tensor:
        expected = f"({count},) int64 tokens{_on_device(logits)}, a token ID for each row"
    elif bool(((tokens < 0) | (tokens >= vocab_size)).any()):
        expected = f"tokens from 0 to {vocab_size - 1}"
    elif _can_read_values(logits) and _picks_ruled_out(tokens, logits):
        expected = "tokens that are not ruled out by a logit of -inf"
    else:
        return ""
    return f"returned {_described(tokens)}; expected {expected}"


def processor_fault(edited: Any, logits: torch.Tensor) -> str:
    """Say what is wrong with the logits that a processor returned, or nothing.

    Rows that had NaN, +inf or nothing but -inf before are not its fault.

    Args:
        edited: should be of the shape, dtype and device of the logits.
        logits: ``(B, V)`` float32, as the processor was called with.
    """
    if not _is_tensor(edited, logits.shape, str(logits.dtype), logits):
        expected = f"{tuple(logits.shape)} float32 logits{_on_device(logits)}"
    else:
        expected = _expected_values(edited, logits) if _can_read_values(logits) else ""
    return f"returned {_described(edited)}; expected {expected}" if expected else ""


def checked_step(step: Any, entry: Entry, fault_of: Contract) -> Any:
    """Wrap a third-party sampler or processor in checks of its results; built-ins are tested.

    Args:
        step: called with logits and rows.
        fault_of: ``sampler_fault`` or ``processor_fault``.
    Raises:
        PluginError: when it is called, and what it returns breaks the contract.
    """
    if entry.source.builtin:
        return step

    def checked(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
        # Copies: a plugin may write to neither the model's logits nor the batch.
        result: torch.Tensor = step(logits.clone(), list(rows))
        if fault := fault_of(result, logits):
            raise entry.breach(fault)
        return result

    if hasattr(step, "drawn_from"):
        vars(checked)["drawn_from"] = step.drawn_from
    return checked


def _is_tensor(result: Any, shape: tuple[int, ...], dtype: str, logits: torch.Tensor) -> bool:
    return (
        getattr(result, "shape", None) == shape
        and str(getattr(result, "dtype", "")) == dtype
        and getattr(result, "device", None) == logits.device
    )


def _can_read_values(logits: torch.Tensor) -> bool:
    """Return whether values can be read at once; on a GPU, that would wait for it."""
    return logits.device.type == "cpu"


def _picks_ruled_out(tokens: torch.Tensor, logits: torch.Tensor) -> bool:
    ruled_out = logits == NEGATIVE_INFINITY
    picked = ruled_out.gather(1, tokens[:, None])[:, 0]
    return bool((picked & ~ruled_out.all(dim=-1)).any())


def _expected_values(edited: torch.Tensor, logits: torch.Tensor) -> str:
    """Return what is expected of edited logits, or nothing if they fit."""
    before, after = logits.amax(dim=-1), edited.amax(dim=-1)  # NaN is larger than anything
    was_usable = before.isfinite()
    if bool((was_usable & ~(after < float("inf"))).any()):
        return "logits without NaN and +inf"
    if bool((was_usable & (after == NEGATIVE_INFINITY)).any()):
        return "logits that rule out less than every token"
    restored = (logits == NEGATIVE_INFINITY) & (edited != NEGATIVE_INFINITY)
    if bool((was_usable & restored.any(dim=-1)).any()):
        return "what was -inf to stay so: a processor before it ruled the token out"
    return ""


def _described(result: Any) -> str:
    shape = tuple(getattr(result, "shape", ()))
    dtype, device = getattr(result, "dtype", ""), getattr(result, "device", "cpu")
    where = "" if str(device) == "cpu" else f"on {device}"
    parts = [type(result).__name__, str(shape) if dtype else "", str(dtype), where]
    return " ".join(word for word in parts if word)


def _on_device(logits: torch.Tensor) -> str:
    return f" on {logits.device}"
