"""The contract of drafters."""

from __future__ import annotations

from functools import partial
from typing import Any

from llamakit.plugin_manager.contracts.drafters import draft_fault, token_list
from llamakit.protocols import Drafter, DrafterFactory
from llamakit.testing.batch_runs import VOCABULARY
from llamakit.testing.factory_checks import (
    check_factory,
    check_nonsense,
    check_same_again,
    make,
    said,
)
from llamakit.testing.process_state import ContractError, check_fault

SEQUENCES = ([1], [1, 5], [1, 5, 6, 7, 8] * 6, list(range(1, 600)), [1, *[9] * 40])
"""Tokens so far: one, a pattern that repeats, none that does, one token again and again."""


def check_drafter(factory: DrafterFactory, **options: Any) -> None:
    """Check that a factory makes a drafter that llamakit can use.

    Args:
        factory: what the plugin registers.
        options: for the factory; its defaults, if none are given.

    Raises:
        AssertionError: a rule is broken; the sentence says which, and what to do.
    """
    __tracebackhide__ = True
    entry = check_factory("drafter", factory)
    name = str(entry)
    drafts = partial(_drafts, name)
    fault = "proposes other tokens for the same sequence: keep nothing between calls"
    check_same_again(entry, options, make(entry, options), drafts, fault)
    check_nonsense(entry, options, drafts)


def _drafts(name: str, draft: Drafter) -> list[list[int]]:
    __tracebackhide__ = True
    return [_checked(name, draft, list(tokens)) for tokens in SEQUENCES]


def _checked(name: str, draft: Drafter, tokens: list[int]) -> list[int]:
    __tracebackhide__ = True
    before = list(tokens)
    try:
        proposed: Any = draft(tokens)
    except Exception as error:
        raise ContractError(
            f"{name} fails on a sequence of {len(tokens)} tokens: {said(error)}; "
            "propose none where nothing is likely"
        ) from error
    if tokens != before:
        raise ContractError(f"{name} changes the tokens that it is called with: work on a copy")
    check_fault(name, draft_fault(proposed, VOCABULARY))
    return token_list(proposed)
