"""Answers that fit a JSON schema, a regular expression or a grammar.

The engine is llguidance, which the extra ``grammar`` installs. It says at each step which
ids may follow; all others are taken away.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamakit import hookimpl
from llamakit.errors import (
    FileFormatError,
    MissingExtraError,
    OptionError,
    PromptError,
    TokenizerError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy
    import torch
    from llguidance import LLMatcher, LLTokenizer

    from llamakit.hookspecs import Registrar
    from llamakit.protocols import LogitsProcessor, LogitsProcessorFactory, Row, Tokenizer


READ = 160
"""Characters of a text that a message repeats."""

FREELY = '\n%llguidance {"no_forcing": true}\n'
"""Where only one text can follow, let the model choose how it is cut into ids."""


class TokenVocabulary:
    """What the engine has to know of a tokenizer.

    Decoding drops the space that an answer's first id may begin with. So the engine's vocabulary
    has further entries behind the tokenizer's: for each id that loses a space, one without it.
    What the grammar sees is then what is printed.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        import numpy

        self.size = tokenizer.vocab_size
        self.eos_id, self.bos_id = tokenizer.eos_id, tokenizer.bos_id
        pieces = _token_bytes(tokenizer)
        spaced = [it for it, piece in enumerate(pieces) if _loses_space(tokenizer, it, piece)]
        self.lone_spaces = [token for token in spaced if len(pieces[token]) == 1]
        """Ids that are a space and nothing else: at the beginning they print nothing."""
        first = [token for token in spaced if len(pieces[token]) > 1]
        self.first_ids = numpy.arange(self.size)
        """What stands for each id at the beginning of an answer."""
        self.first_ids[first] = numpy.arange(self.size, self.size + len(first))
        self.pieces = [*pieces, *(pieces[token][1:] for token in first)]
        self.engine = self._engine()

    def _engine(self) -> LLTokenizer:
        from llguidance import LLTokenizer, TokenizerWrapper

        return LLTokenizer(TokenizerWrapper(_Table(self)))


class _Table:
    """The vocabulary as the engine asks for it."""

    def __init__(self, vocabulary: TokenVocabulary) -> None:
        self.eos_token_id, self.bos_token_id = vocabulary.eos_id, vocabulary.bos_id
        self.special_token_ids = [it for it, piece in enumerate(vocabulary.pieces) if not piece]
        self.tokens = [
            piece or b"\xff<%d>" % token  # the engine's way to spell what is no text
            for token, piece in enumerate(vocabulary.pieces)
        ]

    def __call__(self, _text: bytes) -> list[int]:
        """Return no ids for a text: with ``FREELY`` in the grammar the engine does not ask."""
        return []


class MatchState:
    """How far one row's answer has come."""

    def __init__(self, matcher: LLMatcher, vocabulary: TokenVocabulary) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._taken: list[int] = []

    def follow(self, answer: Sequence[int]) -> None:
        """Take the ids that the row has got since the last time; fewer than then begins anew."""
        if answer[: len(self._taken)] != self._taken:
            self._matcher.reset()
            self._taken = []
        for token in answer[len(self._taken) :]:
            self._take(token)
            self._taken.append(token)

    def _take(self, token: int) -> None:
        if not self._taken and token in self._vocabulary.lone_spaces:
            return
        ids = self._vocabulary.first_ids
        stand_in = token if self._taken or token >= len(ids) else int(ids[token])
        if not self._matcher.consume_token(stand_in):
            if "doesn't satisfy" not in self._matcher.get_error():
                raise self._exhausted()  # it fits, and is more than the engine bears
            raise PromptError(
                f"the id {token} does not fit the grammar: does another processor or the sampler "
                "choose ids that the grammar has taken away?"
            )

    def _exhausted(self) -> PromptError:
        return PromptError(f"the grammar cannot go on: {_in_one_line(self._matcher.get_error())}")

    def allowed(self) -> tuple[numpy.ndarray[Any, Any], bool]:
        """Return which ids of the tokenizer may follow, and whether the answer may end here."""
        import numpy

        vocabulary = self._vocabulary
        mask = numpy.frombuffer(self._matcher.compute_bitmask(), dtype=numpy.uint8)
        bits = numpy.unpackbits(mask, bitorder="little").astype(bool)
        if self._matcher.is_error():
            raise self._exhausted()
        may_end = bool(bits[vocabulary.eos_id])
        if self._taken:
            found = bits[: vocabulary.size].copy()
        else:
            found = bits[vocabulary.first_ids]
            found[vocabulary.lone_spaces] = bool(bits.any())
        found[vocabulary.eos_id] = False
        return found, may_end


class Constraint:
    """A processor that leaves only the ids with which an answer can still fit.

    When nothing may follow but the end, only the row's stop ids are left.

    Args:
        grammar: in Lark's notation, as the engine reads it.
        what: what to call it in messages.
    """

    is_constraint = True
    """An answer that is cut does not fit: commands say so."""

    def __init__(self, tokenizer: Tokenizer, grammar: str, what: str) -> None:
        from llguidance import LLMatcher

        self._vocabulary = _vocabulary(tokenizer)
        grammar = LLMatcher.grammar_from_lark(grammar + FREELY)
        is_wrong, messages = LLMatcher.validate_grammar_with_warnings(
            grammar, self._vocabulary.engine
        )
        if is_wrong:
            raise OptionError(f"{what} cannot be used: {_in_one_line(messages[0])}")
        self._matcher = LLMatcher(self._vocabulary.engine, grammar, log_level=0)

    def __call__(self, logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
        """Return the logits with ``-inf`` where an id does not fit; ``(B, V)``."""
        import torch

        allowed = torch.zeros(logits.shape, dtype=torch.bool)  # (B, V)
        for number, row in enumerate(rows):
            self._allow(allowed[number], row)
        return logits.masked_fill(~allowed.to(logits.device), -torch.inf)

    def _allow(self, allowed: torch.Tensor, row: Row) -> None:  # (V,)
        import torch

        progress = row.state.get(self)
        if progress is None:
            progress = row.state[self] = MatchState(self._matcher.deep_copy(), self._vocabulary)
        progress.follow(row.tokens[row.prompt_length :])
        found, may_end = progress.allowed()
        allowed[: len(found)] = torch.from_numpy(found)
        allowed[list(row.stop_tokens) or [self._vocabulary.eos_id]] = may_end
        if not allowed.any():
            raise PromptError(
                "no id of this tokenizer goes on with the answer as the grammar wants it: the "
                "tokenizer may lack a character that the grammar asks for"
            )


def _vocabulary(tokenizer: Tokenizer) -> TokenVocabulary:
    """Return the engine's view of a tokenizer, which is kept with it: making one takes a moment."""
    kept: dict[str, Any] = getattr(tokenizer, "__dict__", {})
    if "_constraint_vocabulary" not in kept:
        kept["_constraint_vocabulary"] = TokenVocabulary(tokenizer)
    found: TokenVocabulary = kept["_constraint_vocabulary"]
    return found


def _token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """Return what each id adds to a text; nothing for special ids."""
    tell = getattr(tokenizer, "token_bytes", None)
    if tell is None:
        raise TokenizerError(
            f"{tokenizer.path} does not tell what text its ids stand for (token_bytes), which a "
            "grammar has to know"
        )
    pieces: list[bytes] = list(tell())
    for token in getattr(tokenizer, "special_ids", dict)().values():
        if token < len(pieces):
            pieces[token] = b""
    return pieces


def _loses_space(tokenizer: Tokenizer, token: int, piece: bytes) -> bool:
    return piece[:1] == b" " and tokenizer.decode([token]) == piece[1:].decode(errors="replace")


def _in_one_line(text: str) -> str:
    """Keep what an error of the engine says, without where in its own program, and our words."""
    text = text.partition("<backtrace>")[0].partition("<state>")[0]
    _, is_about_json, rest = text.partition("failed to compile JSON schema: ")
    return _shorten(" ".join((rest.splitlines()[0] if is_about_json and rest else text).split()))


def _shorten(text: str) -> str:
    """Keep what a person reads of a text."""
    return text if len(text) <= READ else f"{text[:READ]}…"


def _read(file: str | None, text: str | None, what: str) -> tuple[str, str]:
    """Return a text that is given or in a file, and what to call it in messages."""
    if (file is None) == (text is None):
        raise UsageError(f"the {what} wants a file or a text, and one of them only")
    if file is None:
        return text or "", f"the {what}"
    path = Path(file).expanduser()
    if not path.is_file():
        raise UsageError(f"{path}: no such file; expected a {what}")
    try:
        return path.read_text(encoding="utf-8"), f"the {what} {path}"
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path} is not UTF-8 text: {error.reason}") from error


def _check_engine() -> None:
    try:
        import llguidance  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("constrained output", "llguidance", "grammar") from error


def json_schema(
    tokenizer: Tokenizer, file: str | None = None, schema: str | None = None, compact: bool = True
) -> LogitsProcessor:
    """Leave only ids with which the answer becomes JSON of a schema.

    Args:
        file: a JSON schema.
        schema: the same as text.
        compact: no white space between the parts; else any, and a model may go on with it.
    Source: llguidance, https://github.com/guidance-ai/llguidance
    """
    _check_engine()
    text, what = _read(file, schema, "JSON schema")
    try:
        found = json.loads(text)
    except ValueError as error:
        raise OptionError(f"{what} is not JSON: {error}") from error
    if found is True:
        found = {}
    if not isinstance(found, dict):
        raise OptionError(f'{what} cannot be used: it is no object, such as {{"type": "array"}}')
    found["x-guidance"] = {"whitespace_flexible": not compact, **found.get("x-guidance", {})}
    return Constraint(tokenizer, f"start: %json {json.dumps(found)}", what)


def regex(tokenizer: Tokenizer, pattern: str = ".*") -> LogitsProcessor:
    """Leave only ids with which the whole answer matches a regular expression.

    Args:
        pattern: in Rust's syntax, without look-around; a dot is no line end.
    Source: llguidance, https://github.com/guidance-ai/llguidance
    """
    _check_engine()
    from llguidance import LLMatcher

    what = f"the regular expression {_shorten(pattern)!r}"
    (made,) = json.loads(LLMatcher.grammar_from_regex(pattern))["grammars"]
    return Constraint(tokenizer, made["lark_grammar"], what)


def grammar(
    tokenizer: Tokenizer, file: str | None = None, text: str | None = None
) -> LogitsProcessor:
    """Leave only ids with which the answer becomes a sentence of a grammar.

    Args:
        file: a grammar in Lark's notation, from ``start``, or in llama.cpp's GBNF, from ``root``.
        text: the same as text.
    Source: llguidance, https://github.com/guidance-ai/llguidance
    """
    _check_engine()
    from llguidance.gbnf_to_lark import GbnfToLarkError, any_to_lark

    given, what = _read(file, text, "grammar")
    try:
        made = any_to_lark(given)
    except GbnfToLarkError as error:
        raise OptionError(f"{what} cannot be used: {_in_one_line(str(error))}") from error
    except RecursionError as error:
        raise OptionError(f"{what} cannot be used: its brackets lie too deep in one another") from (
            error
        )
    return Constraint(tokenizer, made, what)


@hookimpl
def register_logits_processors(processors: Registrar[LogitsProcessorFactory]) -> None:
    """Offer ``json-schema``, ``regex`` and ``grammar``."""
    processors.register("json-schema", json_schema, help="only JSON that fits a schema")
    processors.register("regex", regex, help="only what matches a regular expression")
    processors.register("grammar", grammar, help="only sentences of a Lark or GBNF grammar")
