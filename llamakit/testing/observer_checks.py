"""The contract of observers."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from llamakit.plugin_manager.contracts.observers import files_fault, layers_fault, result_fault
from llamakit.protocols import FINAL_STATES, Observer, ObserverFactory
from llamakit.testing.batch_runs import VOCABULARY
from llamakit.testing.factory_checks import (
    check_factory,
    check_nonsense,
    check_same_again,
    make,
    said,
)
from llamakit.testing.process_state import ContractError, check_fault, left_alone
from llamakit.testing.rows import KitRow, make_rows

if TYPE_CHECKING:
    import torch

LAYERS, WIDTH = 4, 16
"""How many layers the made-up model has, and how wide its hidden states are."""
PROMPT = (1, 5, 6, 7, 5, 6)
ANSWER = 3
"""How many tokens follow it, each read in a pass of its own."""
ROWS = 2


class KitStates:
    """Hidden states of no model: those of a position depend on its token and itself.

    Args:
        layers: those that may be read.
    """

    def __init__(self, tokens: Sequence[int], start: int, layers: Collection[int]) -> None:
        self.tokens, self.start = tokens, start
        self._layers = layers

    def hidden(self, layer: int) -> torch.Tensor:
        """Return ``(T, WIDTH)`` float32."""
        import torch

        if layer not in self._layers:
            raise ValueError(f"it reads the layer {layer}, which its layers() does not name")
        depth = LAYERS if layer == FINAL_STATES else layer
        seeds = [position * 1000 + token for position, token in enumerate(self.tokens, self.start)]
        rows = [torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(rows).roll(depth, 1)

    def logits(self, layer: int) -> torch.Tensor:
        """Return ``(T, V)`` float32."""
        import torch

        generator = torch.Generator().manual_seed(0)
        return self.hidden(layer) @ torch.randn(WIDTH, VOCABULARY, generator=generator)


def check_observer(factory: ObserverFactory, **options: Any) -> None:
    """Check that a factory makes an observer that llamakit can use.

    Args:
        factory: what the plugin registers.
        options: for the factory; its defaults, if none are given.

    Raises:
        AssertionError: a rule is broken; the sentence says which, and what to do.
    """
    __tracebackhide__ = True
    entry = check_factory("observer", factory)
    name = str(entry)
    observer: Observer = make(entry, options)
    observed = partial(_observed, name)
    fault = f"finds something else for the same rows: {_REMEMBER}"
    whole = check_same_again(entry, options, observer, observed, fault)
    with left_alone(name):
        _check_files(name, observer, whole[0])
    for number, alone in enumerate(whole):
        if observed(observer, numbers=[number]) != [alone]:
            raise ContractError(
                f"{name} finds something else when another row is observed as well: {_REMEMBER}"
            )
    if not _alike(observed(observer, chunk=4), whole):
        raise ContractError(
            f"{name} finds something else when a prompt is computed in two passes: put together "
            "what it finds in each"
        )
    check_nonsense(entry, options, observed)


_REMEMBER = "keep what it remembers in row.state, under a key of its own such as itself"


def _alike(one: Any, other: Any) -> bool:
    """Compare results, whose numbers may differ in their last digits."""
    if isinstance(one, dict) and isinstance(other, dict):
        return _alike([*one.items()], [*other.items()])
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-4)
    return bool(one == other)


def _check_files(name: str, observer: Observer, result: Any) -> None:
    __tracebackhide__ = True
    draw = getattr(observer, "files", None)
    if draw is None:
        return
    try:
        made = draw(result)
    except Exception as error:
        raise ContractError(f"{name} fails to make its files: {said(error)}") from error
    check_fault(name, files_fault(made))


def _observed(
    name: str, observer: Observer, *, chunk: int = len(PROMPT), numbers: Sequence[int] = range(ROWS)
) -> list[Any]:
    """Show rows to an observer, the prompt in chunks; return what it has found of each."""
    __tracebackhide__ = True
    import torch

    rows = [make_rows(1, seed=number, tokens=PROMPT)[0] for number in numbers]
    try:
        with torch.inference_mode():
            layers = observer.layers(LAYERS)
            check_fault(name, layers_fault(layers, LAYERS))
            for start in range(0, len(PROMPT), chunk):
                _show(name, observer, rows, layers, start, chunk)
            for written in range(ANSWER):
                for number, row in zip(numbers, rows, strict=True):
                    row.tokens.append(8 + number + written)
                _show(name, observer, rows, layers, len(PROMPT) + written, 1)
            results = [observer.result(row) for row in rows]
    except ContractError:
        raise
    except Exception as error:
        raise ContractError(f"{name} fails: {said(error)}") from error
    check_fault(name, next(filter(None, map(result_fault, results)), ""))
    return results


def _show(
    name: str,
    observer: Observer,
    rows: Sequence[KitRow],
    layers: Sequence[int],
    start: int,
    count: int,
) -> None:
    """Show one pass."""
    __tracebackhide__ = True
    for row in rows:
        before = list(row.tokens)
        observer(row, KitStates(tuple(row.tokens[start : start + count]), start, layers))
        if row.tokens != before:
            raise ContractError(f"{name} changes row.tokens: an observer changes nothing")
