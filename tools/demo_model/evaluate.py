"""What the checkpoint can do, measured on text that it was not trained on."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from . import stories
from .batches import LONG, Example, completion, conversation, stack
from .dialogs import Exchange
from .generate import generate
from .model import DemoLlama
from .questions import Intent, ask, frames, load_intents
from .tokenizer import Encoder
from .train import batch_loss
from .write_checkpoint import read_checkpoint

STORIES = 120
CONTINUED = 24
SHOWN = 5
ROWS = 48
Asked = list[tuple[Intent, str]]
PEOPLE = {*stories.WORDS["names_she"], *stories.WORDS["names_he"]}
TEMPERATURE, TOP_P = 0.6, 0.9


@dataclass(frozen=True)
class Answered:
    """A held-out question, what the intent says and what the model said."""

    intent: Intent
    question: str
    said: str

    @property
    def exact(self) -> bool:
        """Whether the answer is right word for word."""
        return " ".join(self.said.split()) == " ".join(self.intent.answer.split())

    @property
    def right(self) -> bool:
        """Whether the answer is right, or at least holds what it must."""
        return self.exact or self.intent.required in self.said


@dataclass(frozen=True)
class Sample:
    """A prompt and what the model made of it."""

    prompt: str
    text: str

    @property
    def steady(self) -> bool:
        """Whether a story keeps to its people: it names at most the hero and one friend."""
        words = set(re.findall(r"[A-Z][a-z]+", self.prompt + self.text))
        return len(words & PEOPLE) <= 2


@dataclass(frozen=True)
class Report:
    """All that is measured."""

    story_loss: float
    dialog_loss: float
    answers: list[Answered]
    reframed: list[Answered]
    completions: list[Sample]
    chats: list[Sample]


def evaluate(root: Path, seed: int) -> Report:
    """Read the checkpoint back from its shards and measure it."""
    encoder = Encoder(root / "tokenizer.model")
    model = read_checkpoint(root, encoder.size)
    rng = random.Random(f"evaluate {seed}")
    told = [stories.story(rng) for _ in range(STORIES)]
    asked = held_out_questions(load_intents(seed), rng, seed)
    reframed = reframed_questions(load_intents(seed), rng, seed)
    pairs = [Exchange(question, intent.answer) for intent, question in asked]
    return Report(
        story_loss=loss(model, [completion(encoder, text) for text in told]),
        dialog_loss=loss(model, [conversation(encoder, [pair]) for pair in pairs], answers=True),
        answers=answer_all(model, encoder, asked),
        reframed=answer_all(model, encoder, reframed),
        completions=sample_completions(model, encoder, rng.sample(told, CONTINUED), rng, seed),
        chats=sample_chats(model, encoder, rng.sample(asked, SHOWN), seed),
    )


def held_out_questions(intents: list[Intent], rng: random.Random, seed: int) -> Asked:
    """Put every held-out phrase into one frame."""
    return [
        (intent, ask(phrase, rng.choice(frames(intent, phrase, seed)[0]), rng))
        for intent in intents
        for phrase in intent.held_out
    ]


def reframed_questions(intents: list[Intent], rng: random.Random, seed: int) -> Asked:
    """Put one trained phrase of each intent into the frame that was kept from it."""
    asked = []
    for intent in intents:
        pairs = [(phrase, frames(intent, phrase, seed)[1]) for phrase in intent.phrases]
        kept = [(phrase, frame) for phrase, frame in pairs if frame is not None]
        if kept:
            phrase, frame = rng.choice(kept)
            asked.append((intent, ask(phrase, frame, rng)))
    return asked


@torch.inference_mode()
def loss(model: DemoLlama, examples: list[Example], answers: bool = False) -> float:
    """Return the mean loss in nats a token; with ``answers``, of the answers' tokens only."""
    total, weight = 0.0, 0.0
    for example in examples:
        counted = [float(w == 1.0) if answers else w for w in example.weights]
        batch = stack([[Example(example.ids, counted)]], LONG)
        total += batch_loss(model, batch).item() * sum(counted)
        weight += sum(counted)
    return total / weight


def answer_all(model: DemoLlama, encoder: Encoder, asked: Asked) -> list[Answered]:
    """Answer all questions greedily."""
    found = []
    for start in range(0, len(asked), ROWS):
        part = asked[start : start + ROWS]
        prompts = [encoder.prompt(question) for _, question in part]
        written = generate(model, prompts, encoder.eos, limit=110)
        for (intent, question), ids in zip(part, written, strict=True):
            found.append(Answered(intent, question, encoder.decode(ids).strip()))
    return found


def sample_completions(
    model: DemoLlama, encoder: Encoder, told: list[str], rng: random.Random, seed: int
) -> list[Sample]:
    """Cut stories after some words, and let the model continue."""
    starts = [" ".join(text.split()[: rng.randint(5, 40)]) for text in told]
    prompts = [[encoder.bos, *encoder.text(start)] for start in starts]
    written = generate(model, prompts, encoder.eos, 300, TEMPERATURE, TOP_P, seed)
    samples = []
    for start, prompt, ids in zip(starts, prompts, written, strict=True):
        whole = encoder.decode(prompt[1:] + ids)
        samples.append(Sample(start, whole[len(start) :]))
    return samples


def sample_chats(model: DemoLlama, encoder: Encoder, asked: Asked, seed: int) -> list[Sample]:
    """Ask some held-out questions at the reference's default temperature."""
    prompts = [encoder.prompt(question) for _, question in asked]
    written = generate(model, prompts, encoder.eos, 110, TEMPERATURE, TOP_P, seed)
    return [
        Sample(question, encoder.decode(ids).strip())
        for (_, question), ids in zip(asked, written, strict=True)
    ]


def fraction(flags: list[bool]) -> float:
    """Return how many of the flags are set, from 0 to 1."""
    return sum(flags) / len(flags)
