"""What ``llamakit score`` scores: texts, continuations and multiple choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamakit.errors import FileFormatError, UsageError
from llamakit.llama.prompts import argument_texts, check_id, digest, json_lines, opened_lines
from llamakit.printable import listed

EXPECTED = (
    'expected {"text": "…"}, {"context": "…", "continuation": "…"} or '
    '{"context": "…", "choices": ["…", "…"], "answer": 0}'
)


@dataclass(frozen=True)
class ScoreItem:
    """A context, and the strings that are scored after it.

    Args:
        context: "" for a text, which is scored from its first token on.
        continuations: one of a text or a continuation; two or more choices.
        kind: ``text``, ``continuation`` or ``choices``.
        answer: the index of the right choice, if it is known.
        id: what the file calls it; None where it has no name.
    """

    context: str
    continuations: tuple[str, ...]
    kind: str = "continuation"
    answer: int | None = None
    id: str | int | None = None

    @property
    def digest(self) -> str:
        """A hash of what is scored."""
        return digest([self.kind, self.context, self.continuations, self.answer])

    @property
    def seed(self) -> None:
        """None: nothing is drawn."""

    @classmethod
    def text(cls, string: str, id: str | int | None = None) -> ScoreItem:  # noqa: A002
        """Return a text, all of which is scored."""
        return cls("", (string,), "text", id=id)

    @classmethod
    def continuation(
        cls,
        context: str,
        string: str,
        id: str | int | None = None,  # noqa: A002
    ) -> ScoreItem:
        """Return a string that is scored after a context."""
        return cls(context, (string,), id=id)

    @classmethod
    def choices(
        cls,
        context: str,
        strings: Sequence[str],
        answer: int | None = None,
        id: str | int | None = None,  # noqa: A002
    ) -> ScoreItem:
        """Return strings of which the likeliest after a context is chosen.

        Args:
            answer: the index of the right one, if it is known.
        Raises:
            UsageError: fewer than two strings, or no such index.
        """
        if len(strings) < 2:
            raise UsageError(f"choices have to be two or more, and there is {len(strings)}")
        if answer is not None and not 0 <= answer < len(strings):
            raise UsageError(f"the answer is {answer}; the choices are 0 to {len(strings) - 1}")
        return cls(context, tuple(strings), "choices", answer, id)


def read_items(arguments: Sequence[str], file: Path | None) -> list[ScoreItem]:
    """Collect what is to be scored: texts first (``-`` is standard input), then the file's lines.

    Raises:
        UsageError: there is nothing.
        FileFormatError: a line of the file is nothing that can be scored.
        PromptError: a text is not UTF-8.
    """
    items = [ScoreItem.text(text) for text in argument_texts(arguments)]
    if file is not None:
        with opened_lines(file) as (lines, name):
            items += [_item(*line) for line in json_lines(lines, name, EXPECTED)]
    if not items:
        raise UsageError(
            "nothing to score: give a text, or - for standard input, or --items FILE.jsonl"
        )
    return items


_KEYS = (
    {"text"},
    {"context", "continuation"},
    {"context", "choices"},
    {"context", "choices", "answer"},
)


def _item(value: Any, where: str) -> ScoreItem:
    """Return one line of a file.

    Raises:
        FileFormatError: it is something else; the message names it.
    """
    if isinstance(value, str):
        return ScoreItem.text(value)
    if not isinstance(value, dict) or value.keys() - {"id"} not in _KEYS:
        keys = f"; its keys are {listed(list(value), 10, 60)}" if isinstance(value, dict) else ""
        raise FileFormatError(f"{where}: {EXPECTED}, with an id if you like{keys}")
    strings = value.get("choices", [value.get("text", value.get("continuation"))])
    context, answer = value.get("context", ""), value.get("answer")
    if not isinstance(strings, list) or not all(isinstance(it, str) for it in (context, *strings)):
        raise FileFormatError(f"{where}: {EXPECTED}: each … is a string")
    if answer is not None and type(answer) is not int:
        raise FileFormatError(f"{where}: answer has to be the index of a choice, from 0")
    name = check_id(value.get("id"), where)
    try:
        if "choices" in value:
            return ScoreItem.choices(context, strings, answer, name)
    except UsageError as error:
        raise FileFormatError(f"{where}: {error}") from error
    kind = "text" if "text" in value else "continuation"
    return ScoreItem(context, (*strings,), kind, id=name)
