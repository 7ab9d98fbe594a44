"""Rows that join, leave and change places: what a batch does around a sampler or a processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from llamakit.testing.factory_checks import said
from llamakit.testing.process_state import ContractError, check_fault
from llamakit.testing.rows import KitRow, make_rows

if TYPE_CHECKING:
    import torch

ROWS, TURNS, VOCABULARY = 4, 5, 1600
"""How many rows there are, how many steps each is in, and how large the vocabulary is."""

Step = Callable[["torch.Tensor", Sequence[KitRow]], Any]
"""A sampler or a processor."""
Schedule = list[list[int]]
"""For each step the numbers of the rows in the batch, in its order."""

TOGETHER: Schedule = [list(range(ROWS))] * TURNS
COMING_AND_GOING: Schedule = [
    *([0], [1, 0], [0, 1, 2], [2, 1, 0], [0, 3, 2, 1]),
    *([3, 1, 2], [2, 3], [3], [3]),
]
"""Each row has ``TURNS`` turns, but none of its neighbours stays, and nor does its place."""


def alone(row: int) -> Schedule:
    """Return the schedule of one row without neighbours."""
    return [[row]] * TURNS


def run(schedule: Schedule, step: Step) -> dict[int, list[Any]]:
    """Ask for one batch after another; each row's logits depend on its own turn only.

    Args:
        step: a sampler or a processor, such as ``checked`` makes.
    Returns:
        What each row got, turn by turn: a token, or its edited logits ``(V,)``.
    """
    import torch

    numbers = sorted({number for batch in schedule for number in batch})
    rows = {number: _row(number) for number in numbers}
    results: dict[int, list[Any]] = {number: [] for number in numbers}
    for batch in schedule:
        logits = torch.stack([logits_of(number, len(results[number])) for number in batch])
        outputs = step(logits, [rows[number] for number in batch])
        for number, value in zip(batch, outputs, strict=True):
            is_token = value.dim() == 0
            rows[number].tokens.append(int(value) if is_token else 5 + len(results[number]) % 3)
            results[number].append(int(value) if is_token else value)
    return results


def checked(
    name: str,
    step: Step,
    fault_of: Callable[[Any, torch.Tensor], str],
) -> Step:
    """Wrap a sampler or a processor so that each of its answers is checked.

    Args:
        name: its name in messages.
        fault_of: the contract; called with what was returned, and the logits as they were.
    """
    import torch

    def checked_step(logits: torch.Tensor, rows: Sequence[KitRow]) -> Any:
        __tracebackhide__ = True
        written = len(rows[0].tokens) - rows[0].prompt_length
        try:
            with torch.inference_mode():
                result = step(logits.clone(), rows)
        except ContractError:
            raise
        except (Exception, SystemExit) as error:
            when = f" after {written} tokens of an answer" if written else ""
            raise ContractError(
                f"{name} fails on logits {tuple(logits.shape)}{when}: {said(error)}"
            ) from error
        check_fault(name, fault_of(result, logits))
        return result

    return checked_step


def check_rows_are_left(name: str, step: Step) -> None:
    """Check that a sampler or a processor leaves its rows as they are, but for their state."""
    __tracebackhide__ = True
    logits, rows = batch()
    passed = list(rows)
    before = deepcopy([(row.tokens, row.prompt_length, row.stop_tokens) for row in rows])
    step(logits, passed)
    if before != [(row.tokens, row.prompt_length, row.stop_tokens) for row in rows]:
        raise ContractError(
            f"{name} changes row.tokens: llamakit appends the token that is chosen; keep what is "
            "to be remembered in row.state"
        )
    if passed != rows:
        raise ContractError(f"{name} changes the list of rows that it gets: leave it")


def logits_of(row: int, turn: int) -> torch.Tensor:
    """Make the ``(V,)`` float32 logits of one row's turn: flat, sharp, tied or half ruled out."""
    import torch

    generator = torch.Generator().manual_seed(1000 * row + turn)
    logits = torch.randn(VOCABULARY, generator=generator)
    kind = (row + turn) % 4
    if kind == 1:
        logits = logits * 20
    if kind == 2:
        logits = logits.mul(2).round()
    if kind == 3:
        logits[torch.randperm(VOCABULARY, generator=generator)[: VOCABULARY // 2]] = -torch.inf
    return logits


def one_token_left(token: int) -> torch.Tensor:
    """Make ``(V,)`` logits of which all but one token are ruled out."""
    import torch

    logits = torch.full((VOCABULARY,), -torch.inf)
    logits[token] = 1.0
    return logits


def batch() -> tuple[torch.Tensor, list[KitRow]]:
    """Make the first step's ``(B, V)`` logits, one row of each sort, and the rows."""
    import torch

    return torch.stack([logits_of(number, 0) for number in range(ROWS)]), [
        _row(number) for number in range(ROWS)
    ]


def _row(number: int) -> KitRow:
    (row,) = make_rows(1, seed=number, tokens=(1, 5, 6, 7 + number, 5, 6))
    return row
