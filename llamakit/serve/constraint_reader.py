"""What the answer to a request has to match: structured output, or calls of its tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamakit.errors import LlamakitError, UnknownNameError
from llamakit.llama.llama import Llama
from llamakit.llama.sampler_choice import choose_processor
from llamakit.plugin_manager.factories import Choice
from llamakit.protocols import LogitsProcessor
from llamakit.serve.api_errors import ApiError, as_api_error, bad
from llamakit.serve.structured_output import structure_of
from llamakit.serve.tool_choice import ToolUse, arguments_schema, call_grammar


class ConstraintReader:
    """Builds the processor that an answer has to match. Several threads may call it."""

    def __init__(self, llama: Llama) -> None:
        self._toolkit, self._tokenizer = llama.toolkit, llama.tokenizer

    def read(self, body: Mapping[str, Any], use: ToolUse) -> LogitsProcessor | None:
        """Return what the answer has to match; None where it is free.

        A forced call comes before structured output, which is about answers without a call.

        Raises:
            ApiError: a schema, a pattern or a grammar cannot be used, or its processor is missing.
        """
        structure = structure_of(body)
        is_schema = structure is not None and structure[0].name == "json-schema"
        if structure is None or is_schema or use.is_forced:
            schema = structure[0].options["schema"] if structure and is_schema else None
            grammar = call_grammar(use, schema)
            if grammar is not None:
                return self._calls(use, grammar)
        return None if structure is None else self._built(*structure)

    def _calls(self, use: ToolUse, grammar: str) -> LogitsProcessor:
        param = "functions" if use.legacy else "tools"
        try:
            return self._built(Choice("grammar", {"text": grammar}), param)
        except ApiError:
            self._check_parameters(use, param)
            raise

    def _check_parameters(self, use: ToolUse, param: str) -> None:
        """Refuse the function whose parameters the grammar engine cannot use, by its place."""
        for function, place in zip(use.functions, use.places, strict=True):
            schema = arguments_schema(function)
            try:
                self._built(Choice("json-schema", {"schema": schema}), param)
            except ApiError as error:
                raise bad(f"{place}.parameters: {error}", param) from error

    def _built(self, choice: Choice, param: str) -> LogitsProcessor:
        try:
            return choose_processor(choice, toolkit=self._toolkit, tokenizer=self._tokenizer)
        except UnknownNameError as error:
            raise bad(
                f"{param} needs a processor called {choice.name!r}, and this server has none", param
            ) from error
        except LlamakitError as error:
            raise as_api_error(error, param) from error
