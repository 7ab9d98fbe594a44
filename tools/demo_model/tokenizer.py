"""The demonstration model's SentencePiece tokenizer, with the settings of Llama 2's."""

from __future__ import annotations

import io
import random
from pathlib import Path

import sentencepiece

from . import stories
from .dialogs import DialogMaker, fold
from .grammar import TEXT
from .questions import FRAMES, Intent, load_intents

VOCABULARY = 1600
COVERAGE = 0.9985
ESSAY_WEIGHT = 20
LONGEST_CHAT = 380
# As long as the longest message of the Llama 2 tutorial, and of the same kind.
LONG_ANSWER = (TEXT / "long_answer.txt").read_text(encoding="utf-8")


def corpus(seed: int) -> list[str]:
    """Return the lines that the pieces are learnt from."""
    rng = random.Random(f"tokenizer {seed}")
    intents = load_intents(seed)
    dialogs = DialogMaker(intents, rng, seed)
    lines = [
        f"[INST] {dialogs.question(intent)} [/INST] {intent.answer}"
        for intent in intents
        for _ in range(4)
    ]
    lines += [fold(system, "") for system in FRAMES["neutral"] * 10]
    lines += [stories.story(rng) for _ in range(250)]
    lines += [stories.reflection(rng) for _ in range(150)]
    lines += [stories.story_zh(rng) for _ in range(100)]
    lines += [*stories.essays(), LONG_ANSWER] * ESSAY_WEIGHT
    return [part for line in lines for part in line.split("\n") if part]


def train_tokenizer(folder: Path, seed: int) -> Path:
    """Write ``tokenizer.model`` into a folder and return its path."""
    model = io.BytesIO()  # given a path, the trainer would write it into the model
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus(seed)),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCABULARY,
        character_coverage=COVERAGE,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=True,
        byte_fallback=True,
        split_digits=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        max_sentence_length=16384,
        num_threads=1,
        minloglevel=2,
    )
    path = folder / "tokenizer.model"
    path.write_bytes(model.getvalue())
    return path


class Encoder:
    """Turns completions and dialogs into tokens exactly as Llama 2 does."""

    def __init__(self, path: Path) -> None:
        self.pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.size: int = self.pieces.get_piece_size()
        self.bos: int = self.pieces.bos_id()
        self.eos: int = self.pieces.eos_id()

    def text(self, text: str) -> list[int]:
        """Encode text without BOS and EOS."""
        return list(self.pieces.encode(text))

    def prompt(self, user: str) -> list[int]:
        """Encode the message that waits for an answer."""
        return [self.bos, *self.text(f"[INST] {user.strip()} [/INST]")]

    def pair(self, user: str, assistant: str) -> list[int]:
        """Encode a finished exchange."""
        text = f"[INST] {user.strip()} [/INST] {assistant.strip()} "
        return [self.bos, *self.text(text), self.eos]

    def decode(self, ids: list[int]) -> str:
        """Turn tokens into text."""
        return str(self.pieces.decode(ids))


def check(encoder: Encoder, intents: list[Intent]) -> int:
    """Check what the model relies on, and return the length of a long chat in tokens.

    Raises:
        ValueError: a prompt is not the beginning of its pair, text does not survive, or the
            tutorial's longest chat leaves no room for an answer.
    """
    for intent in intents:
        for phrase in intent.phrases:
            prompt = encoder.prompt(phrase.text)
            if encoder.pair(phrase.text, intent.answer)[: len(prompt)] != prompt:
                raise ValueError(f"the ids of a prompt change with its answer: {phrase.text!r}")
    for text in ("  two  spaces\nand a line\n", "鹤立鸡群 🗼", "2024 = 4 * 506"):
        if encoder.decode(encoder.text(text)) != text:
            raise ValueError(f"{text!r} does not survive the tokenizer")
    longest = len(encoder.pair("I am going to Paris, what should I see?", LONG_ANSWER))
    longest += len(encoder.prompt("What is so great about #1?"))
    if longest > LONGEST_CHAT:
        raise ValueError(f"a chat as long as the tutorial's takes {longest} ids")
    return longest
