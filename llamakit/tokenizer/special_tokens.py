"""The special tokens of Llama 3 and 4, which follow the ranks and are in no tokenizer file.

A reserved token's name says nothing across versions: its ID does. So what a program needs is found
by its offset from the number of ranks, which no version has moved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_LLAMA_3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)
_LLAMA_4_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)


@dataclass(frozen=True)
class SpecialTokens:
    """The special tokens of a version, and what else a rank file leaves open.

    Args:
        names: in the order of their IDs; the first is the number of ranks.
        pattern: splits a string into pieces, each of which is encoded by itself.
        eos: offset of the token that ends a text of a base model.
        stops: offsets of the tokens that end an answer.
        prompt_format: name of the prompt format that the models were trained with.
    """

    names: tuple[str, ...]
    pattern: str
    stops: tuple[int, ...]
    prompt_format: str
    eos: int = 1


def _numbered(kind: str, first: int, count: int) -> Iterator[str]:
    prefix = f"{kind}_" if kind else ""
    return (
        f"<|{prefix}reserved_special_token_{number}|>" for number in range(first, first + count)
    )


def _filled(named: Mapping[int, str], count: int = 256) -> tuple[str, ...]:
    """Name the tokens that have no name of their own: reserved, numbered in order."""
    reserved = _numbered("", 0, count)
    return tuple(
        f"<|{named[offset]}|>" if offset in named else next(reserved) for offset in range(count)
    )


_NAMED_3_0 = {
    0: "begin_of_text",
    1: "end_of_text",
    6: "start_header_id",
    7: "end_header_id",
    9: "eot_id",
}
_NAMED_HF = {**_NAMED_3_0, 4: "finetune_right_pad_id", 8: "eom_id", 10: "python_tag"}
_LLAMA_3_STOPS = (1, 8, 9)

LLAMA_3_0 = SpecialTokens(_filled(_NAMED_3_0), _LLAMA_3_PATTERN, _LLAMA_3_STOPS, "llama3")
"""Llama 3 and Llama Guard 2. What 3.1 calls ``<|eom_id|>`` is reserved; it ends answers anyway."""

LLAMA_3_1 = SpecialTokens(
    _filled({**_NAMED_HF, 5: "step_id", 11: "image"}), _LLAMA_3_PATTERN, _LLAMA_3_STOPS, "llama3"
)
"""Llama 3.1, 3.2 and 3.3, by the names of Meta's code."""

LLAMA_3_1_HF = SpecialTokens(_filled(_NAMED_HF), _LLAMA_3_PATTERN, _LLAMA_3_STOPS, "llama3")
"""The same by the names of Hugging Face's folders, which keep two more tokens reserved."""


def _llama_4_names() -> tuple[str, ...]:
    names = [
        *("<|begin_of_text|>", "<|end_of_text|>"),
        *("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"),
        *("<|header_start|>", "<|header_end|>", "<|eom|>", "<|eot|>", "<|step|>"),
        *_numbered("text_post_train", 0, 6),
        *("<|python_start|>", "<|python_end|>", "<|finetune_right_pad|>"),
        *_numbered("text_post_train", 8, 61),  # 6 and 7 are skipped in Meta's table
        *("<|image_start|>", "<|image_end|>"),
        *_numbered("vision", 0, 2),
        *("<|tile_x_separator|>", "<|tile_y_separator|>"),
        *_numbered("vision", 2, 4),
        "<|image|>",
        *_numbered("vision", 6, 1),
        "<|patch|>",
        *_numbered("vision", 7, 1041),
        *_numbered("reasoning", 0, 8),
        *("<|reasoning_thinking_start|>", "<|reasoning_thinking_end|>"),
    ]
    return (*names, *_numbered("", 0, 2048 - len(names)))


LLAMA_4 = SpecialTokens(_llama_4_names(), _LLAMA_4_PATTERN, (1, 7, 8), "llama4")

ALL_NAMES = frozenset(
    name for special in (LLAMA_3_0, LLAMA_3_1, LLAMA_3_1_HF, LLAMA_4) for name in special.names
)
"""Of every version: another name is a fine-tune's."""

_LLAMA_4_RANKS = 200_000


def special_tokens(
    ranks: int, vocab_size: int | None = None, scaled_rope: bool = True
) -> SpecialTokens:
    """Say which special tokens follow the ranks of a file.

    Args:
        ranks: how many the file has.
        vocab_size: rows of the model's embedding, which tell the families apart, if known.
        scaled_rope: of the model; Llama 3.0 has none, and other names.
    """
    if vocab_size is not None and vocab_size - ranks == len(LLAMA_4.names):
        return LLAMA_4
    is_exact = vocab_size is not None and vocab_size - ranks == len(LLAMA_3_1.names)
    if ranks == _LLAMA_4_RANKS and not is_exact:  # unknown, or padded
        return LLAMA_4
    return LLAMA_3_1 if scaled_rope or vocab_size is None else LLAMA_3_0
