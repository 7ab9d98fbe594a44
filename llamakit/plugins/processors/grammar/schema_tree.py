"""The subschemas of a JSON schema that an answer can meet, by their JSON pointers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

Schema = dict[str, Any] | bool

ONE = (
    *("items", "additionalItems", "additionalProperties", "contains", "propertyNames", "not"),
    *("if", "then", "else", "unevaluatedItems", "unevaluatedProperties"),
)
SEVERAL = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
NAMED = ("properties", "patternProperties", "dependentSchemas")


def children(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Yield the schemas directly inside a schema, each with its JSON pointer; not ``$defs``."""
    if not isinstance(schema, dict):
        return
    for keyword in ONE:
        if isinstance(schema.get(keyword), dict | bool):
            yield f"{path}/{keyword}", schema[keyword]
    for keyword in SEVERAL:
        if isinstance(schema.get(keyword), list):
            for number, part in enumerate(schema[keyword]):
                yield f"{path}/{keyword}/{number}", part
    for keyword in NAMED:
        if isinstance(schema.get(keyword), dict):
            for name, part in schema[keyword].items():
                yield f"{path}/{keyword}/{escaped(name)}", part


def reachable(root: Schema) -> dict[str, dict[str, Any]]:
    """Return all schemas that an answer can meet, those behind local references too.

    Returns:
        Each by its JSON pointer, such as ``#/properties/name``.
    """
    found: dict[str, dict[str, Any]] = {}
    waiting: list[tuple[str, Schema]] = [("#", root)]
    while waiting:
        path, schema = waiting.pop()
        if path in found or not isinstance(schema, dict):
            continue
        found[path] = schema
        waiting += reversed(list(children(schema, path)))
        target = referenced(root, schema)
        if target is not None:
            waiting.append(target)
    return found


def referenced(root: Schema, schema: dict[str, Any]) -> tuple[str, Schema] | None:
    """Return what ``$ref`` of a schema points to, if that is a JSON pointer into the document."""
    pointer = schema.get("$ref")
    if not isinstance(pointer, str) or not (pointer == "#" or pointer.startswith("#/")):
        return None
    part: Any = root
    path = "#"
    for step in unquote(pointer).split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(part, list) and name.isdecimal() and int(name) < len(part):
            part = part[int(name)]
        elif isinstance(part, dict) and name in part:
            part = part[name]
        else:
            return None
        path += f"/{step}"
    return (path, part) if isinstance(part, dict | bool) else None


def endless(root: Schema) -> str | None:
    """Return the JSON pointer of a schema that requires itself, so that no finite value fits."""
    nodes = reachable(root)
    finite: set[str] = set()
    count = -1
    while count < len(finite):
        count = len(finite)
        for path in reversed(nodes):  # what is inside comes after what it is in
            if path not in finite and _is_finite(root, path, nodes[path], finite):
                finite.add(path)
    return next((path for path in nodes if path not in finite), None)


def _is_finite(root: Schema, path: str, schema: dict[str, Any], finite: set[str]) -> bool:
    """Return whether a value can be completed, given the schemas of which that is known."""

    def ends(at: str, part: Any) -> bool:
        return not isinstance(part, dict) or at in finite

    target = referenced(root, schema)
    if target is not None and not ends(*target):
        return False
    for keyword in ("anyOf", "oneOf"):
        parts = schema.get(keyword)
        parts = parts if isinstance(parts, list) else []
        ways = [ends(f"{path}/{keyword}/{at}", part) for at, part in enumerate(parts)]
        if ways and not any(ways):
            return False
    return all(ends(at, part) for at, part in _required(schema, path))


def _required(schema: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    """Yield the schemas of which a value has to hold something."""
    parts = dict(children(schema, path))
    yield from ((at, part) for at, part in parts.items() if at.startswith(f"{path}/allOf/"))
    if "const" in schema or "enum" in schema:
        return
    kinds = schema.get("type")
    if kinds in ("object", ["object"]):
        names = schema.get("required")
        for name in names if isinstance(names, list) else ():
            at = f"{path}/properties/{escaped(str(name))}"
            yield at, parts.get(at)
    elif kinds in ("array", ["array"]) and isinstance(schema.get("minItems"), int):
        firsts = [at for at in parts if at.startswith((f"{path}/prefixItems/", f"{path}/items/"))]
        yield from ((at, parts[at]) for at in firsts[: schema["minItems"]])
        if schema["minItems"] > len(firsts):
            yield f"{path}/items", parts.get(f"{path}/items")


def escaped(name: str) -> str:
    """Return a name as a step of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")
