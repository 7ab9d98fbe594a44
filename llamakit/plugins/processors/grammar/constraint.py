"""The logits processor: rules out every token that does not continue a valid answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llamakit.errors import OptionError, PromptError
from llamakit.plugins.processors.grammar.messages import (
    engine_errors,
    engine_message,
    on_large_stack,
)
from llamakit.plugins.processors.grammar.time_limit import check_time
from llamakit.plugins.processors.grammar.token_vocabulary import TokenVocabulary, vocabulary_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy
    import torch
    from llguidance import LLMatcher

    from llamakit.protocols import Row, Tokenizer


NO_FORCING = '\n%llguidance {"no_forcing": true}\n'
"""Where only one string can follow, let the model choose how it is split into tokens."""


class MatchState:
    """The state of the grammar after the tokens of one row's answer."""

    def __init__(self, matcher: LLMatcher, vocabulary: TokenVocabulary) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._consumed: list[int] = []

    def follow(self, answer: Sequence[int]) -> None:
        """Consume the tokens that the row has gained; start again if it has lost some."""
        if answer[: len(self._consumed)] != self._consumed:
            self._matcher.reset()
            self._consumed = []
        for token in answer[len(self._consumed) :]:
            self._consume(token)
            self._consumed.append(token)

    def _consume(self, token: int) -> None:
        if not self._consumed and token in self._vocabulary.lone_spaces:
            return
        first_ids = self._vocabulary.first_ids
        engine_token = token if self._consumed or token >= len(first_ids) else int(first_ids[token])
        if not self._matcher.consume_token(engine_token):
            if "doesn't satisfy" not in self._matcher.get_error():
                raise self._exhausted()  # it fits, but exceeds a limit of the engine
            raise PromptError(
                f"the token {token} does not fit the grammar: does another processor or the "
                "sampler choose tokens that the grammar rules out?"
            )

    def _exhausted(self) -> PromptError:
        return PromptError(
            f"the grammar cannot continue: {engine_message(self._matcher.get_error())}"
        )

    def allowed(self) -> tuple[numpy.ndarray[Any, Any], bool]:
        """Return a mask of the tokens that may follow, and whether the answer may end here."""
        import numpy

        vocabulary = self._vocabulary
        mask = numpy.frombuffer(self._matcher.compute_bitmask(), dtype=numpy.uint8)
        bits = numpy.unpackbits(mask, bitorder="little").astype(bool)
        if self._matcher.is_error():
            raise self._exhausted()
        may_end = bool(bits[vocabulary.eos_id])
        if self._consumed:
            allowed = bits[: vocabulary.size].copy()
        else:
            allowed = bits[vocabulary.first_ids]
            allowed[vocabulary.lone_spaces] = bool(bits.any())
        allowed[vocabulary.eos_id] = False
        return allowed, may_end


def reason_against(grammar: str, vocabulary: TokenVocabulary) -> str | None:
    """Return why the engine refuses a grammar in Lark's notation, or None."""
    from llguidance import LLMatcher

    is_wrong, messages = LLMatcher.validate_grammar_with_warnings(
        LLMatcher.grammar_from_lark(grammar + NO_FORCING), vocabulary.engine
    )
    return engine_message(messages[0]) if is_wrong else None


class Constraint:
    """A processor that allows only the tokens with which an answer can still match the grammar.

    When only the end may follow, the row's stop tokens are all that is allowed.

    Args:
        grammar: in Lark's notation, as the engine reads it.
        name: for error messages.
    """

    is_constraint = True
    """An answer that reaches the token limit may be invalid: commands print a note."""

    def __init__(self, tokenizer: Tokenizer, grammar: str, name: str) -> None:
        self._vocabulary = vocabulary_of(tokenizer)
        with engine_errors(name):
            self._matcher = on_large_stack(lambda: self._compiled(grammar, name))

    def _compiled(self, grammar: str, name: str) -> LLMatcher:
        from llguidance import LLMatcher

        check_time(grammar, name)
        message = reason_against(grammar, self._vocabulary)
        if message:
            raise OptionError(f"{name} cannot be used: {message}")
        source = LLMatcher.grammar_from_lark(grammar + NO_FORCING)
        return LLMatcher(self._vocabulary.engine, source, log_level=0)

    def __call__(self, logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
        """Return the logits with ``-inf`` where a token does not fit; ``(B, V)``."""
        import torch

        allowed = torch.zeros(logits.shape, dtype=torch.bool)  # (B, V)
        for number, row in enumerate(rows):
            self._allow(allowed[number], row)
        return logits.masked_fill(~allowed.to(logits.device), -torch.inf)

    def _allow(self, allowed: torch.Tensor, row: Row) -> None:  # (V,)
        import torch

        state = row.state.get(self)
        if state is None:
            state = row.state[self] = MatchState(self._matcher.deep_copy(), self._vocabulary)
        state.follow(row.tokens[row.prompt_length :])
        mask, may_end = state.allowed()
        allowed[: len(mask)] = torch.from_numpy(mask)
        allowed[list(row.stop_tokens) or [self._vocabulary.eos_id]] = may_end
        if not allowed.any():
            raise PromptError(
                "no token continues the answer as the grammar requires: the tokenizer may lack a "
                "character of the grammar"
            )
