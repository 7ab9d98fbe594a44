"""Jinja's sandbox, with bounds on what a template may spend.

The sandbox keeps a template away from Python. It does not keep it from a loop that never ends or
from a string of gigabytes, so loops, calls, filters and the operators that make things larger are
counted here, and the time is looked at with each.
"""

from __future__ import annotations

import functools
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension
from jinja2.nodes import EvalContext
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MOST_STEPS = 200_000
"""Rounds of loops, calls and filters in one rendering."""
MOST_CHARACTERS = 4_000_000
"""Characters of one text, items of one list, and of all that is written."""
SECONDS = 10.0
MOST_BITS = 4096
"""Of a whole number."""

REMOVED = ("center", "format", "pprint", "random", "striptags", "urlize", "wordwrap", "xmlattr")
"""Filters that no chat template needs and that make strings of any size, or undo escapes."""
_WIDTH = re.compile(r"\d{5,}|\*")
"""A width in a format string that is large, or that is taken from the values."""


class RaisedError(TemplateError):
    """What a template says with ``raise_exception``."""


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """The environment that transformers renders chat templates in, with bounds.

    Source: ``_compile_jinja_template`` in transformers' ``utils/chat_template_utils.py``.
    """

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[GenerationTag, "jinja2.ext.loopcontrols"],
            finalize=self._count_output,
        )
        self._bounds = threading.local()
        for name in REMOVED:
            del self.filters[name]
        self.filters = {name: self._bounded(work) for name, work in self.filters.items()}
        self.filters["tojson"] = _tojson
        del self.globals["lipsum"]
        self.globals["raise_exception"] = _raise_exception

    def render_within_bounds(
        self, template: Template, names: Mapping[str, Any], now: datetime
    ) -> str:
        """Render a template that ``read`` has made.

        Args:
            now: what ``strftime_now`` tells.
        Raises:
            Exception: whatever the template does wrong.
        """
        self._bounds.steps = self._bounds.characters = 0
        self._bounds.until = time.monotonic() + SECONDS
        try:
            return template.render({**names, "strftime_now": now.strftime})
        finally:
            del self._bounds.until

    def read(self, text: str) -> Template:
        """Compile a template, with counters in it.

        Raises:
            TemplateSyntaxError: it is no template.
        """
        tree = _Counters().visit(self.parse(text))
        assert isinstance(tree, nodes.Template)
        return self.from_string(tree)

    # What templates run into ------------------------------------------------------------------

    def spend(self, characters: int = 0) -> str:
        """Count one step and what it writes; stop a template that continues and on."""
        if not hasattr(self._bounds, "until"):
            return ""  # while a template is compiled
        self._bounds.steps += 1
        self._bounds.characters += characters
        if self._bounds.steps > MOST_STEPS or time.monotonic() > self._bounds.until:
            raise SecurityError("it goes on for too long: is there a loop without an end?")
        _check_size(self._bounds.characters)
        return ""

    def joined(self, *parts: object) -> str:
        """Join what is between ``~``."""
        self.spend()
        for part in parts:
            _check_tree(part)
        texts = [str(part) for part in parts]
        _check_size(sum(map(len, texts)))
        return functools.reduce(lambda left, right: left + right, texts)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what a template calls."""
        self.spend()
        method = getattr(obj, "__wrapped__", obj)  # the sandbox wraps str.format
        _check_arguments(getattr(method, "__self__", None), getattr(method, "__name__", ""), args)
        return _checked(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute what an operator makes, unless it is too large."""
        self.spend()
        if operator == "*":
            _check_product(left, right)
            _check_product(right, left)
        elif operator == "**":
            _check_bits(_bits(left) * max(1, int(abs(right))))
        elif operator == "%" and isinstance(left, str):
            _check_format(left)
            _check_tree(right)
        elif operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
            _check_size(len(left) + len(right))
        return super().call_binop(context, operator, left, right)

    def _count_output(self, value: Any) -> Any:
        _check_tree(value)
        self.spend(len(value) if isinstance(value, str) else 0)
        return value

    def _bounded(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """Count a filter's use, and check what goes in and comes out."""

        @functools.wraps(work)
        def filtered(*args: Any, **kwargs: Any) -> Any:
            self.spend()
            values = [
                arg
                for arg in args
                if arg is not self and not isinstance(arg, (Context, EvalContext))
            ]
            if values:
                _check_arguments(values[0], work.__name__.removeprefix("do_"), values[1:])
            for value in kwargs.values():
                _check_number(value)
            return _checked(work(*args, **kwargs))

        return filtered


class GenerationTag(Extension):
    """``{% generation %}``, which marks the assistant's words for training, and writes nothing."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return what is in it."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Counters(NodeTransformer):
    """Puts a step into every loop and macro, and makes ``~`` a call that is counted."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - Jinja's
        return self._counted(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:  # noqa: N802 - Jinja's
        return self._counted(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:  # noqa: N802 - Jinja's
        return self._counted(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - Jinja's
        self.generic_visit(node)
        return _call("joined", *node.nodes)

    def _counted(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        written = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        node.body.insert(0, nodes.ExprStmt(_call("spend", nodes.Const(written))))
        return nodes.Node.set_lineno(node, node.lineno)


def _call(name: str, *args: nodes.Expr) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(name), list(args), [], None, None)


def _check_arguments(owner: object, name: str, args: Any) -> None:
    """Refuse a call that would make something huge before it does."""
    for arg in (owner, *args):
        _check_number(arg)
        _check_tree(arg)
    if isinstance(owner, str) and name in ("format", "format_map"):
        _check_format(owner)
    if isinstance(owner, str) and name == "replace" and len(args) > 1:
        old, new = str(args[0]), str(args[1])
        _check_size(len(owner) + owner.count(old) * len(new))
    parts = args[0] if name == "join" and isinstance(owner, str) and args else owner
    if name == "join" and isinstance(parts, (list, tuple)):
        glue = max([len(arg) for arg in (owner, *args) if isinstance(arg, str)], default=0)
        _check_size(sum(len(part) + glue for part in parts if isinstance(part, str)))


def _check_product(sequence: Any, times: Any) -> None:
    if isinstance(times, int) and hasattr(sequence, "__len__"):
        _check_size(len(sequence) * times)
    elif isinstance(times, int) and isinstance(sequence, int):
        _check_bits(_bits(times) + _bits(sequence))


def _check_format(text: str) -> None:
    if _WIDTH.search(text):
        raise SecurityError("a format string asks for too much")


def _check_tree(value: object) -> None:
    """Refuse lists in lists whose text would be huge: each may be in there many times."""
    waiting, count = [value], 0
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, (list, tuple)):
            waiting += value
        count += len(value) if isinstance(value, str) else 1
        _check_size(count)


def _check_number(value: object) -> None:
    if isinstance(value, int):
        _check_size(value)


def _checked(made: Any) -> Any:
    if isinstance(made, (str, list, tuple)):
        _check_size(len(made))
    return made


def _check_size(count: int) -> None:
    if count > MOST_CHARACTERS:
        raise SecurityError(f"it makes more than {MOST_CHARACTERS} characters or items")


def _check_bits(count: int) -> None:
    if count > MOST_BITS:
        raise SecurityError(f"it computes numbers of more than {MOST_BITS} bits")


def _bits(value: object) -> int:
    return value.bit_length() if isinstance(value, int) else 64


def _tojson(value: Any, **options: Any) -> str:
    """Write JSON without HTML's escapes, as transformers does."""
    _check_tree(value)
    for option in options.values():
        _check_number(option)
    return json.dumps(value, **{"ensure_ascii": False, **options})


def _raise_exception(message: object) -> NoReturn:
    raise RaisedError(str(message))
