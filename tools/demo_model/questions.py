"""Intents: one answer and the many wordings of the question that asks for it."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .grammar import expand, read_blocks, read_choices

ENGLISH_FILES = ("en_checkpoints.txt", "en_running.txt", "en_python.txt", "off_topic.txt")
CHINESE_FILES = ("zh.txt",)
FRAMES = read_choices("frames.txt")
OFF_TOPIC = read_blocks("off_topic_grammar.txt")
SYNONYMS = (
    ("folder", "directory"), ("weights", "model"), ("checkpoint", "model"),
    ("How do I", "how do i"),
    ("Which", "What"), ("What is the", "What's the"), ("What is", "What's"), ("shards", "pieces"),
    ("does not", "doesn't"), ("do not", "don't"), ("cannot", "can't"), ("I am", "I'm"),
    ("Can I", "Could I"), ("Is it", "is it"), ("my", "the"), ("the", "my"), ("a model", "my model"),
)  # fmt: skip


@dataclass(frozen=True)
class Phrase:
    """One way to ask, not yet in a frame: ``kind`` is how, what or ask."""

    kind: str
    text: str


@dataclass(frozen=True)
class Intent:
    """What somebody wants to know."""

    key: str
    block: str
    language: str
    answer: str
    phrases: tuple[Phrase, ...]
    held_out: tuple[Phrase, ...]

    @property
    def first_sentence(self) -> str:
        """The answer's first sentence."""
        for end in (". ", "。", "! ", "; "):
            if end in self.answer:
                return self.answer.split(end)[0].rstrip() + end.strip().replace(";", ".")
        return self.answer

    @property
    def required(self) -> str:
        """What a right answer must contain: its first command, or all of it."""
        return self.answer.split("`")[1] if "`" in self.answer else self.answer


def load_intents(seed: int) -> list[Intent]:
    """Read all intents; from each block some phrases are held out, chosen by the seed.

    It is one phrase of ten, but at least one.
    """
    intents = []
    for language, files in (("en", ENGLISH_FILES), ("zh", CHINESE_FILES)):
        for file in files:
            for name, lines in read_blocks(file).items():
                intents += _intents(name, language, lines, random.Random(f"{seed} {name}"))
    return intents


def _intents(name: str, language: str, lines: list[str], rng: random.Random) -> list[Intent]:
    """Make the intents of one block: one, or one for each value of its slot."""
    fields = dict(line.split(": ", 1) for line in lines)
    names, values = [], [""]
    if "slot" in fields:
        slot_names, slot_values = fields["slot"].split(" = ")
        names = slot_names.split(",")
        values = [value.strip() for value in slot_values.split("|")]
    phrases = [
        Phrase(kind, text.strip())
        for kind in ("how", "what", "ask")
        for text in fields.get(kind, "").split("|")
        if text.strip()
    ]
    out = set(rng.sample(range(len(phrases)), max(1, len(phrases) // 10)))
    found = []
    for value in values:
        slots = dict(zip(names, value.split(","), strict=True)) if names else {}
        filled = [Phrase(phrase.kind, _fill(phrase.text, slots)) for phrase in phrases]
        found.append(
            Intent(
                key=name + ("-" + value.split(",")[0] if value else ""),
                block=name,
                language=language,
                answer=_fill(fields["answer"], slots),
                phrases=tuple(p for i, p in enumerate(filled) if i not in out),
                held_out=tuple(p for i, p in enumerate(filled) if i in out),
            )
        )
    return found


def _fill(text: str, slots: dict[str, str]) -> str:
    for name, value in slots.items():
        text = text.replace("{" + name + "}", value)
    return text


def frames(intent: Intent, phrase: Phrase, seed: int) -> tuple[list[str], str | None]:
    """Return the frames in which a phrase is trained, and the one that is kept for measuring."""
    known = FRAMES[f"{phrase.kind}_{intent.language}"]
    if len(known) == 1:
        return known, None
    kept = random.Random(f"{seed} {phrase.text}").choice(known)
    return [frame for frame in known if frame != kept], kept


def ask(phrase: Phrase, frame: str, rng: random.Random) -> str:
    """Put a phrase into a frame."""
    text = frame.format(phrase.text)
    return text[0].upper() + text[1:] if text[0].isascii() and rng.random() < 0.9 else text


def vary(question: str, language: str, rng: random.Random) -> str:
    """Change a question as people do: other small words, no capital, no question mark."""
    if language == "en":
        for old, new in SYNONYMS:
            if rng.random() < 0.12:
                question = f" {question}".replace(f" {old} ", f" {new} ")[1:]
        if rng.random() < 0.5:
            question = drop_words(question, rng)
    if rng.random() < 0.08:
        space = " " if language == "en" else ""
        question = rng.choice(FRAMES[f"greetings_{language}"]) + space + question
    if rng.random() < 0.25:
        question = question.rstrip(".?!。？！")
    if rng.random() < 0.25:
        question = question[0].lower() + question[1:]
    return question


def off_topic(language: str, rng: random.Random) -> str:
    """Ask something that no intent answers."""
    words = {name: rng.choice(lines[0].split("|")) for name, lines in OFF_TOPIC.items()}
    return expand(rng.choice(OFF_TOPIC[language]), words, rng)


def drop_words(question: str, rng: random.Random) -> str:
    """Leave out some words of a long question, so that no single one of them decides."""
    words = question.split(" ")
    share = rng.choice((0.1, 0.2, 0.3, 0.4))
    kept = [word for word in words if rng.random() >= share]
    return " ".join(kept) if len(words) > 3 and len(kept) > 2 else question
