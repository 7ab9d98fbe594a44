"""Dialogs in the Llama 2 chat format, made from the intents and the stories."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from . import stories
from .questions import FRAMES, Intent, ask, frames, off_topic, vary


@dataclass(frozen=True)
class Exchange:
    """A question and its answer."""

    user: str
    assistant: str


Dialog = list[Exchange]


class DialogMaker:
    """Makes dialogs without end, from the wordings that are not held out."""

    def __init__(self, intents: list[Intent], rng: random.Random, seed: int) -> None:
        self.rng = rng
        self.seed = seed
        self.blocks: dict[tuple[str, str], list[Intent]] = {}
        for intent in intents:
            self.blocks.setdefault((intent.language, intent.block), []).append(intent)
        self.names = sorted(self.blocks)
        self.weights = [self._weight(name) for name in self.names]

    def _weight(self, name: tuple[str, str]) -> float:
        if name[1] == "unknown":
            return 8.0 if name[0] == "en" else 3.0
        return 1.0 + 0.5 * (len(self.blocks[name]) - 1)

    def __iter__(self) -> Iterator[Dialog]:
        while True:
            yield self.dialog()

    def dialog(self) -> Dialog:
        """Make one dialog, of one to four exchanges."""
        kind = self.rng.random()
        if kind < 0.62:
            return [self.exchange()]
        if kind < 0.80:
            return self._with_system()
        if kind < 0.93:
            return self._several()
        return self._story()

    def intent(self) -> Intent:
        """Choose an intent."""
        return self.rng.choice(self.blocks[self.rng.choices(self.names, self.weights)[0]])

    def question(self, intent: Intent) -> str:
        """Ask for an intent in one of its training wordings."""
        if intent.block == "unknown" and self.rng.random() < 0.6:
            return vary(off_topic(intent.language, self.rng), intent.language, self.rng)
        phrase = self.rng.choice(intent.phrases)
        frame = self.rng.choice(frames(intent, phrase, self.seed)[0])
        return vary(ask(phrase, frame, self.rng), intent.language, self.rng)

    def exchange(self) -> Exchange:
        """Ask and answer one question."""
        intent = self.intent()
        return Exchange(self.question(intent), intent.answer)

    def other_language(self, intent: Intent) -> Intent | None:
        """Return the same intent in the other language."""
        other = "zh" if intent.language == "en" else "en"
        same = self.blocks.get((other, intent.block), [])
        return next((found for found in same if found.key == intent.key), None)

    def _with_system(self) -> Dialog:
        kind = self.rng.choice(("neutral", "language", "short"))
        intent = self.intent()
        while kind == "language" and self.other_language(intent) is None:
            intent = self.intent()
        other = self.other_language(intent)
        if kind == "neutral":
            system, answer = self.rng.choice(FRAMES["neutral"]), intent.answer
        elif kind == "short":
            system, answer = self.rng.choice(FRAMES["short"]), intent.first_sentence
        else:
            assert other is not None
            system = self.rng.choice(
                FRAMES["in_chinese"] if other.language == "zh" else FRAMES["in_english"]
            )
            answer = other.answer
        return [Exchange(fold(system, self.question(intent)), answer)]

    def _several(self) -> Dialog:
        dialog = []
        for _ in range(self.rng.choice((1, 1, 2))):
            intent = self.intent()
            dialog.append(Exchange(self.question(intent), intent.answer))
        follow = self._follow(intent)
        if follow and self.rng.random() < 0.5:
            return [*dialog, follow]
        last = self.exchange()
        if self.rng.random() < 0.4 and last.user.isascii():
            joined = f"{self.rng.choice(FRAMES['join'])} {last.user}"
            last = Exchange(joined, last.assistant)
        return [*dialog, last]

    def _follow(self, intent: Intent) -> Exchange | None:
        """Ask something that only the exchange before explains."""
        kind = self.rng.choice(("again", "chinese", "short", "slot"))
        others = [other for other in self.blocks[intent.language, intent.block] if other != intent]
        other = self.other_language(intent)
        if kind == "slot" and others and intent.language == "en":
            chosen = self.rng.choice(others)
            value = chosen.key.rpartition(intent.block + "-")[2]
            what = self.rng.choice(("And {}?", "And {}", "What about {}?", "And for {}?"))
            return Exchange(what.format(value), chosen.answer)
        if kind == "chinese" and other is not None and other.language == "zh":
            return Exchange(self.rng.choice(FRAMES["again_chinese"]), other.answer)
        if kind == "short":
            return Exchange(self.rng.choice(FRAMES["shorter"]), intent.first_sentence)
        if kind == "again":
            return Exchange(self.rng.choice(FRAMES["again"]), intent.answer)
        return None

    def _story(self) -> Dialog:
        kind = self.rng.random()
        if kind < 0.2:
            told = Exchange(self.rng.choice(FRAMES["tell_chinese"]), stories.story_zh(self.rng))
        elif kind < 0.5:
            told = Exchange(self.rng.choice(FRAMES["tell"]), stories.story(self.rng))
        else:
            role = self.rng.choice(stories.WORDS["roles"] + stories.WORDS["animals"])
            wish = self.rng.choice(FRAMES["tell_about"]).format(stories.with_article(role))
            told = Exchange(wish, stories.story(self.rng, role))
        return [told, self.exchange()] if self.rng.random() < 0.4 else [told]


def fold(system: str, user: str) -> str:
    """Put a system message into the first user message, as Llama 2 does."""
    return f"<<SYS>>\n{system}\n<</SYS>>\n\n{user}"
