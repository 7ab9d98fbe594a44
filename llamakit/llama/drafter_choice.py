"""Choice of the drafter for speculative decoding, by name or by a draft model's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llamakit.errors import OptionError
from llamakit.plugin_manager.contracts.drafters import checked_drafter
from llamakit.plugin_manager.factories import build, parse_choice
from llamakit.plugin_manager.toolkit import Toolkit, default_toolkit
from llamakit.protocols import Drafter, Tokenizer

DRAFT_MODEL = "draft-model"
"""The drafter that is built from a folder."""


def choose_drafter(
    name: str,
    options: Mapping[str, Any] | None = None,
    tokenizer: Tokenizer | None = None,
    *,
    toolkit: Toolkit | None = None,
) -> Drafter:
    """Build a drafter from its name or its folder.

    Args:
        name: ``NAME`` or ``NAME:k=v,k=v``; else the folder of a draft model.
        options: more of them, by name.
        tokenizer: the model's; a drafter with a different one is refused.
    Raises:
        UnknownNameError: no such drafter, and no such folder.
        OptionError: an option that it lacks, of a wrong type or out of range; or a drafter with
            another vocabulary.
    """
    toolkit = toolkit or default_toolkit()
    if Path(name).is_dir():
        choice, given = DRAFT_MODEL, {"path": name}
    else:
        choice, given = parse_choice(name)
    entry = toolkit.drafters.entry(choice)
    drafter: Drafter = build(entry, {**given, **(options or {})})
    own: Tokenizer | None = getattr(drafter, "tokenizer", None)
    if own is not None and tokenizer is not None and not _alike(own, tokenizer):
        raise OptionError(
            f"{own.path} has other tokens than {tokenizer.path}: a draft model has to have the "
            "tokenizer of the model that it drafts for"
        )
    return drafter if entry.source.builtin else checked_drafter(drafter, entry)


def drafts_summary(drafted: int, accepted: int) -> str:
    """Return a sentence on how many drafted tokens were accepted."""
    share = f" ({accepted / drafted:.0%})" if drafted else ""
    return f"{accepted} of {drafted} drafted tokens were accepted{share}"


def _alike(one: Tokenizer, other: Tokenizer) -> bool:
    """Return whether two tokenizers have the same text for every token."""
    if one.path == other.path:
        return True
    if (one.vocab_size, one.bos_id, one.eos_id) != (other.vocab_size, other.bos_id, other.eos_id):
        return False
    return all(one.decode([token]) == other.decode([token]) for token in range(one.vocab_size))
