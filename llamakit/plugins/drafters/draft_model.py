"""A draft model: a small one of the same family drafts for the large one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from llamakit.hookspecs import Registrar
    from llamakit.protocols import Drafter, DrafterFactory


def draft_model(
    path: str = "",
    max: int = 5,  # noqa: A002
    confidence: float = 0.4,
    dtype: str = "auto",
    device: str = "auto",
) -> Drafter:
    """Propose what a smaller model with the same tokenizer would write.

    It runs on rank 0 alone, whatever the number of ranks that share the large model.

    Args:
        path: its folder.
        max: how many tokens are proposed.
        confidence: a draft ends before a token that the small model thinks less probable; 0 to 1.
        dtype: what it computes in, as --dtype.
        device: where it computes, as --device.
    Source: Leviathan and others 2023, https://arxiv.org/abs/2211.17192
    """
    if not path:
        raise ValueError("path is empty; it has to be the folder of a model: path=llama-68m/")
    if max < 1:
        raise ValueError(f"max is {max}; it has to be 1 or more")
    if not 0 <= confidence <= 1:
        raise ValueError(f"confidence is {confidence}; it has to be between 0 and 1")
    from llamakit.llama.loading import open_draft_model

    return open_draft_model(path, max, confidence, dtype=dtype, device=device)


@hookimpl
def register_drafters(drafters: Registrar[DrafterFactory]) -> None:
    """Offer ``draft-model``."""
    drafters.register("draft-model", draft_model, help="what a smaller model would write")
