"""YAML that others wrote, bounded before anything is built of it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from llamakit import LlamakitError
from llamakit.errors import FileFormatError
from llamakit.files.regular_file import open_regular
from llamakit.printable import printable

MAX_NBYTES = 128 << 10
"""A frankenmerge of 200 layers, each a slice of its own, has 20 KB."""
MAX_NODES = 30_000
"""Values, keys and lists, each counted as often as aliases repeat it. The frankenmerge has 3,000;
PyYAML takes up to 0.1 ms for each."""
MAX_DIGITS = 100
MAX_DEPTH = 20
"""How deep lists and mappings may be nested; a merge has 6 levels."""


def read_yaml(path: Path) -> Any:
    """Read a file that holds one YAML document, of plain values only.

    Raises:
        LlamakitError: it cannot be read, is not YAML, or is too large, also by its aliases.
    """
    try:
        with open_regular(path) as file:
            data = file.read(MAX_NBYTES + 1)
    except OSError as error:
        raise LlamakitError(f"{path} cannot be read: {error.strerror}.") from None
    return parse_yaml(data, str(path))


def parse_yaml(data: bytes, source: str) -> Any:
    """Parse one YAML document, of plain values only.

    Args:
        source: what it is from, for messages.

    Raises:
        LlamakitError: it is not YAML, or too large, also by its aliases.
    """
    try:
        if len(data) > MAX_NBYTES:
            raise ValueError(f"it has over {MAX_NBYTES} bytes")
        text = data.decode("utf-8-sig")
        _check_events(text)
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            raise ValueError("it is empty")
        _check(node, 0, {})
        return _constructed(loader, node)
    except RecursionError:
        raise FileFormatError(_refusal(source, _TOO_DEEP)) from None
    except yaml.YAMLError as error:
        raise FileFormatError(_refusal(source, re.sub(r"\s+", " ", str(error)))) from None
    except (ValueError, OverflowError) as error:  # a date of month 13, a number of 5,000 digits
        raise FileFormatError(_refusal(source, str(error))) from None


_TOO_DEEP = f"its lists and mappings are nested more than {MAX_DEPTH} deep"


def _refusal(source: str, reason: str) -> str:
    return f"{source} is not a merge in YAML: {printable(reason, 300)}."


def _constructed(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    """Build the values; PyYAML looks at those with a tag as if they could only be of its kind."""
    try:
        return loader.construct_document(node)
    except (LookupError, AttributeError):
        raise ValueError("a value is no such thing as its tag says, such as !!int") from None


def _check_events(text: str) -> None:
    """Refuse what is too large or nested too deep where it first is so, before PyYAML keeps it.

    For deep nesting it takes quadratic time.
    """
    depth = 0
    for count, event in enumerate(yaml.parse(text, yaml.SafeLoader)):
        if count > 2 * MAX_NODES:  # a list has two events
            raise ValueError(f"it has over {MAX_NODES} values")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(_TOO_DEEP)


def _check(node: yaml.Node, depth: int, sizes: dict[int, int]) -> int:
    """Return how many nodes a node is, with what its aliases repeat.

    Raises:
        ValueError: too many, too deep, or a key is there twice.
    """
    if id(node) in sizes:
        return sizes[id(node)]
    if depth > MAX_DEPTH:  # a node that contains itself gets here too
        raise ValueError(_TOO_DEEP)
    size = 1
    if node.tag.endswith(":int") and len(node.value) > MAX_DIGITS:  # 59:59:59… is one too
        raise ValueError(f"a number has {len(node.value)} digits")
    if isinstance(node, yaml.MappingNode):
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if twice := next((key for key, count in keys.items() if count > 1), None):
            raise ValueError(f"the key {twice!r:.60} is there twice")
        children = [child for pair in node.value for child in pair]
    else:
        children = node.value if isinstance(node, yaml.SequenceNode) else []
    for child in children:
        size += _check(child, depth + 1, sizes)
        if size > MAX_NODES:
            raise ValueError(f"with its aliases it has over {MAX_NODES} values")
    sizes[id(node)] = size
    return size
