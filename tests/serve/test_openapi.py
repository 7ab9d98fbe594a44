"""The description against the server: what is asked is answered as described, or refused."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from server_kit import Running

from llamakit.serve.app import ROUTES
from llamakit.serve.openapi import description

schema = schemathesis.openapi.from_dict(description())


@schema.parametrize()
@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck])
def test_whatever_is_asked_is_answered_as_described(case: Any, server: Running) -> None:
    # Names and tokens are of the schema's type and yet unknown here, which is a 400.
    case.call_and_validate(base_url=server.url, excluded_checks=[positive_data_acceptance])


def test_exactly_the_routes_are_described(server: Running) -> None:
    described = {
        (path, method.upper())
        for path, operations in description()["paths"].items()
        for method in operations
        if method in ("get", "post")
    }
    routes = {(path.replace(":path", ""), method) for path, (method, _) in ROUTES.items()}

    assert described == routes
    assert server.get("/openapi.json").json() == description()
