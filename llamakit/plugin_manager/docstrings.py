"""What docstrings say of factories and exporters, and of their options."""

from __future__ import annotations

import functools
import inspect
from typing import Any


def summary_of(factory: object) -> str:
    """Return the first sentence of the docstring, or nothing."""
    docstrings = _docstrings(factory)
    return " ".join(docstrings[0].partition("\n\n")[0].split()) if docstrings else ""


def exporter_options(exporter: object) -> dict[str, str]:
    """Return what an exporter's docstring says of its options: name -> help.

    An exporter reads its options itself, as strings, so its signature does not name them.
    """
    return section(exporter, "Options:")


def section(factory: object, *titles: str) -> dict[str, str]:
    """Read a section of a Google docstring: name -> its help on one line.

    Args:
        titles: what it may be called, such as ``"Args:"``.
    """
    helps: dict[str, str] = {}
    for docstring in _docstrings(factory):
        name, margin = "", 0
        lines = iter(docstring.splitlines())
        for line in lines:
            if line.strip() in titles:
                break
        for line in lines:
            indent = len(line) - len(line.lstrip())
            if line.strip() and not indent:
                break
            margin = margin or indent
            if line.strip() and indent == margin:
                head, _, text = line.partition(":")
                name = head.partition("(")[0].strip().lstrip("*")
                helps[name] = text.strip()
            elif line.strip() and name:
                helps[name] += f" {line.strip()}"
    return helps


def _docstrings(factory: Any) -> list[str]:
    """Return what explains a factory: its docstring, and of a class also that of ``__init__``."""
    while isinstance(factory, functools.partial):
        factory = factory.func
    explained = [factory]
    initializer = getattr(factory, "__init__", None)
    if isinstance(factory, type) and initializer is not object.__init__:
        explained.append(initializer)
    return [text for text in map(inspect.getdoc, explained) if text]
