"""Chat templates of our own for exported folders: the tokens that llamakit's prompt formats give.

They hold for messages without the names of special tokens, which ``AutoTokenizer`` makes control
tokens of, and without a line end in the white space at their beginning, which it joins with those
of the header.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

from llamakit.tokenizer.special_tokens import LLAMA_4, SpecialTokens

_TAGS = {"llama3": (6, 7, 9, 8, 10), "llama4": (5, 6, 8, 7, 16)}
"""Offsets of what begins and ends a header, ends a turn, ends a message that expects a tool's
answer, and comes before code."""


def llama2_template() -> str:
    """Return the chat template of Llama 2 chat and Code Llama Instruct."""
    return _read("llama2.jinja")


def header_template(special: SpecialTokens, names: Mapping[int, str]) -> str:
    """Return the chat template of an instruct model of Llama 3 or 4.

    Args:
        names: of the special tokens, by offset.
    """
    is_4 = special is LLAMA_4
    tags = ", ".join(f"'{names[offset]}'" for offset in _TAGS[special.prompt_format])
    family = f"{str(is_4).lower()}, '{'python-list' if is_4 else 'json'}'"
    return (
        f"{{%- set start, stop, end, expects, code = {tags} %}}\n"
        f"{{%- set ends_tools, family_style = {family} %}}\n{_read('headers.jinja')}"
    )


def _read(name: str) -> str:
    return (files("llamakit.convert") / "chat_templates" / name).read_text(encoding="utf-8")
