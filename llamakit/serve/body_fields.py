"""The fields of a body: checked, by their standard names, for this server's model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamakit.serve.api_errors import ApiError
from llamakit.serve.body_check import CheckedBody
from llamakit.serve.sampling_fields import with_standard_names
from llamakit.serve.schema_validation import check
from llamakit.serve.server_settings import ServeSettings


def fields_of(
    body: object, schema: Mapping[str, Any], settings: ServeSettings
) -> Mapping[str, Any]:
    """Check a body against a schema; return it without nulls, which mean the default.

    Raises:
        ApiError: it does not fit, or names another model.
    """
    if not isinstance(body, CheckedBody):
        check(body, schema, unknown=settings.unknown_fields)
    assert isinstance(body, dict)
    body = with_standard_names({it: value for it, value in body.items() if value is not None})
    name = body.get("model")
    if name is not None and name != settings.model_name:
        raise ApiError(
            404,
            f"no model {name!r}; this server has {settings.model_name!r}",
            param="model",
            code="model_not_found",
        )
    return body
