"""Jinja's sandbox as transformers sets it up: what a template finds, and what it cannot reach.

It keeps a template away from Python objects. What a template may spend is bounded by the process
that it is rendered in: see ``render_process``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from llamakit.plugins.prompt_formats.jinja.user_json import written_json


class RaisedError(TemplateError):
    """What a template says with ``raise_exception``."""


def chat_environment() -> ImmutableSandboxedEnvironment:
    """Return the environment that chat templates are written for.

    Source: ``_compile_jinja_template`` in transformers' ``utils/chat_template_utils.py``.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_GenerationTag, "jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = written_json
    environment.globals["namespace"] = _PublicNamespace
    environment.globals["raise_exception"] = _raise_exception
    return environment


class _GenerationTag(Extension):
    """``{% generation %}``, which marks the assistant's words for training, and writes nothing."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> nodes.Node:
        """Return what is in it; what is set there is not set behind it."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class _PublicNamespace(Namespace):
    """Jinja's namespace without the names by which Python and Jinja ask an object what it is."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # ``namespace(self=...)`` is a name, too
        values: Mapping[str, Any] = dict(*args[1:], **kwargs)
        Namespace.__init__(args[0])
        for name, value in values.items():
            args[0][name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if str(name).startswith("_"):
            raise SecurityError(f"a namespace cannot hold {name!r}: names there begin with no _")
        super().__setitem__(name, value)


def _raise_exception(message: object) -> NoReturn:
    raise RaisedError(str(message))
