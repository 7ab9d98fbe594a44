"""Patterns of parameters' names: which they match, and what a renaming makes of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from llamakit.errors import OptionError
from llamakit.printable import listed, printable

_TOKEN = re.compile(
    r"(?P<many>\*)|(?P<one>\?)|\[(?P<set>!?[^]]+)\]|\{(?P<first>[0-9]+)\.\.(?P<last>[0-9]+)\}"
)
_MOST_NUMBERS = 4096
"""Of a range: no model has more layers."""


def compiled(pattern: str) -> re.Pattern[str]:
    """Return a pattern as a regular expression with a group for each of its wildcards.

    Args:
        pattern: with ``*`` (any characters, dots too), ``?`` (one), ``[ab]``, ``[!ab]``, and
            ``{8..15}`` (the numbers from 8 to 15).

    Raises:
        OptionError: a range is empty or has too many numbers, or a set is none.
    """
    parts = []
    at = 0
    for token in _TOKEN.finditer(pattern):
        parts += [re.escape(pattern[at : token.start()]), f"({_expression(pattern, token)})"]
        at = token.end()
    try:
        return re.compile("".join([*parts, re.escape(pattern[at:])]))
    except re.error as error:
        raise OptionError(f"{printable(pattern)!r} is no pattern: {error}") from None


def matching(pattern: str, names: Iterable[str], option: str) -> list[str]:
    """Return the names that a pattern matches as a whole.

    Args:
        option: that the pattern is of, for the message.

    Raises:
        OptionError: it matches none.
    """
    names = list(names)
    found = [name for name in names if compiled(pattern).fullmatch(name)]
    if not found:
        raise OptionError(
            f"{option} {printable(pattern)!r} matches no parameter; they are called such as "
            f"{listed(names, 4) or 'nothing'}: llamakit inspect --tensors lists them"
        )
    return found


def renamed(names: Sequence[str], renames: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the name that each parameter gets.

    Args:
        names: as they are.
        renames: patterns with what becomes of the names that they match: each ``*`` in it is what
            the wildcard of that number in the pattern has matched.
    Returns:
        For each old name the new one.

    Raises:
        OptionError: a pattern matches nothing, two rename one parameter, a new name has another
            number of ``*``, or two parameters would have one name.
    """
    new: dict[str, str] = {}
    for old, template in renames:
        pattern = compiled(old)
        if template.count("*") != pattern.groups or not template:
            raise OptionError(
                f"--rename {printable(old)}={printable(template)}: the pattern has "
                f"{pattern.groups} wildcards and the new name {template.count('*')} *; expected as "
                "many, each standing for what its wildcard matched"
            )
        for name in matching(old, names, "--rename"):
            if name in new:
                raise OptionError(f"{printable(name)} is renamed twice; expected one --rename")
            match = pattern.fullmatch(name)
            assert match is not None
            pieces = template.split("*")
            filled = zip(pieces, [*match.groups(), ""], strict=True)
            new[name] = "".join(text for pair in filled for text in pair)
    result = {name: new.get(name, name) for name in names}
    _check_distinct(result)
    return result


def _check_distinct(result: Mapping[str, str]) -> None:
    owners: dict[str, str] = {}
    for name, target in result.items():
        if target in owners:
            raise OptionError(
                f"{printable(owners[target])} and {printable(name)} would both be called "
                f"{printable(target)}; drop or rename one of them"
            )
        owners[target] = name


def _expression(pattern: str, token: re.Match[str]) -> str:
    if token["many"] or token["one"]:
        return ".*" if token["many"] else "."
    if token["set"]:
        negated = token["set"].startswith("!")
        inside = re.sub(r"[\\^\[&~|]|(?<=-)-", r"\\\g<0>", token["set"].removeprefix("!"))
        return f"[{'^' if negated else ''}{inside}]"
    first, last = int(token["first"][:8]), int(token["last"][:8])
    if not 0 <= last - first < _MOST_NUMBERS:
        raise OptionError(
            f"{printable(pattern)!r} has the range {first}..{last}; expected the smaller number "
            f"first, and at most {_MOST_NUMBERS} numbers"
        )
    return "|".join(map(str, range(first, last + 1)))
