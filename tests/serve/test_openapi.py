"""The description against the server: what is asked is answered as described, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.generation.feedback import FeedbackSources
from schemathesis.pytest._test_builder import build_operation_test
from schemathesis.specs.openapi.checks import positive_data_acceptance
from server_kit import Running, thread

from llamakit.api import Llama
from llamakit.serve.app import ROUTES
from llamakit.serve.openapi import description, document
from llamakit.serve.server_settings import Limits

DESCRIBED = [
    (path, method.upper())
    for path, operations in description()["paths"].items()
    for method in operations
    if method in ("get", "post")
]


@pytest.fixture(scope="module")
def brief(llama: Llama) -> Iterator[Running]:
    """A server whose answers are short, whatever is asked: the description is not about them."""
    with thread(llama, limits=Limits(new_tokens=4, choices=2)) as running:
        yield running


@settings(max_examples=3, derandomize=True, suppress_health_check=[*HealthCheck])
def ask(case: Any, brief: Running) -> None:
    # Names and tokens are of the schema's type and yet unknown here, which is a 400.
    case.call_and_validate(base_url=brief.url, excluded_checks=[positive_data_acceptance])


@pytest.mark.parametrize(("path", "method"), DESCRIBED)
def test_whatever_is_asked_is_answered_as_described(path: str, method: str, brief: Running) -> None:
    """As ``schema.parametrize`` does it, which builds all cases already at collection."""
    schema = schemathesis.openapi.from_dict(description())
    ask_this = build_operation_test(
        config=schema.config,
        operation=schema[path][method],
        test_func=ask,
        given_kwargs={},
        feedback=FeedbackSources(),
    )

    ask_this(brief=brief)


def test_exactly_the_routes_are_described(server: Running) -> None:
    routes = {(path.replace(":path", ""), method) for path, (method, _) in ROUTES.items()}

    assert {*DESCRIBED} == routes
    assert server.get("/openapi.json").json() == description()


def test_the_description_is_written_once(server: Running) -> None:
    answer = server.get("/openapi.json")

    assert answer.json() == description()
    assert document() is document()
