"""A rendering split at the special tokens that its template wrote.

Done where the template was rendered, since what it wrote decides how long this takes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate

from llamakit.plugins.prompt_formats.jinja.user_text import Cover

TAG = re.compile(r"<\|[^<>|\s]+\|>|<</?\w+>>|</?[\w-]+>|\[/?[A-Z_]+\]|### ?\w+:")
"""What templates write at the ends of turns where the tokenizer has no token for it."""
TAG_STARTS = re.compile(r"[<\[#]")


class AmbiguousTextError(Exception):
    """What is a message's and what is the template's cannot be distinguished."""


def split_rendering(
    plain: str,
    covered: str,
    cover: Cover,
    texts: Sequence[tuple[str, str]],
    special: Sequence[str],
) -> list[str]:
    """Split a rendering at its special tokens.

    Args:
        plain: the rendered dialog.
        covered: the same with covered messages.
        texts: of the messages and the tools, each with what it is of, such as ``message 2``.
        special: the names of special tokens.
    Returns:
        Strings and names of special tokens in turn; the first and the last are strings.
    Raises:
        AmbiguousTextError: a message could be taken for what the template wrote.
    """
    if cover.off(covered) != plain:
        _check_harmless([text for _, text in texts], special, plain, covered)
        covered = plain
    _check_tags(texts, special, covered)
    pieces = _split(covered, special)
    ends = accumulate(map(len, pieces))  # one covered character is one plain one
    return [plain[end - len(piece) : end] for piece, end in zip(pieces, ends, strict=True)]


def _split(text: str, special: Sequence[str]) -> list[str]:
    """Split a string at the names of special tokens, the longest name first."""
    names = sorted(filter(str.strip, special), key=len, reverse=True)
    return re.split(f"({'|'.join(map(re.escape, names))})", text) if names else [text]


def _check_harmless(
    contents: Sequence[str], special: Sequence[str], plain: str, covered: str
) -> None:
    """Allow a template to change strings as covered ones cannot be, if it makes no difference.

    No text has a sign that names of special tokens are written with, and the same tokens come
    out either way.
    """
    signs = {sign for name in special for sign in name if not sign.isalnum()}
    is_harmless = signs.isdisjoint("".join(contents)) and not any(map(str.isalnum, special))
    if not is_harmless or _split(plain, special)[1::2] != _split(covered, special)[1::2]:
        raise AmbiguousTextError(
            "changes the text of messages in a way that hides where they begin and end, and a "
            "message has signs that special tokens are written with "
            f"({' '.join(sorted(signs))}): write it without them"
        )


def _check_tags(texts: Sequence[tuple[str, str]], special: Sequence[str], covered: str) -> None:
    """Refuse a message with a tag that the template writes as text."""
    tags = set(TAG.findall(covered)) - set(special)
    for place, text in texts:
        for start in TAG_STARTS.finditer(text) if tags else ():  # a tag in another one, too
            match = TAG.match(text, start.start())
            if match and (tag := match[0]) in tags:
                raise AmbiguousTextError(
                    f"writes {tag} around messages, and {place} holds {tag}: the model "
                    "would take it for the end or the beginning of a turn; write it in another way"
                )
