"""Streamed text has complete characters only, and together equals decoding everything at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llamakit.runtime.text_stream import UNFINISHED, TextStream
from llamakit.tokenizer.sentencepiece import SentencePieceTokenizer, load

MODEL = Path(__file__).parents[1] / "data" / "reference-cases" / "tokenizer.model"
TOKENIZER = load(MODEL)


def stream(tokens: list[int], stops: tuple[str, ...] = ()) -> list[str]:
    text = TextStream(TOKENIZER, stops)
    return [*(text.feed(token) for token in tokens), text.finish()]


@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=80))
def test_pieces_join_to_the_whole_for_any_tokens(tokens: list[int]) -> None:
    assert "".join(stream(tokens)) == TOKENIZER.decode(tokens)


@given(st.text(alphabet=st.sampled_from("  aé上下五千年🙂🇫🇷\n\t1.")))
def test_pieces_of_real_text_hold_no_broken_character(text: str) -> None:
    tokens = TOKENIZER.encode(text)

    pieces = stream(tokens)

    assert "".join(pieces) == text
    assert not any(UNFINISHED in piece for piece in pieces)


@example("a a", [" ", "a a"])  # one token completes both
@given(
    st.text(alphabet="ab上 ", max_size=40),
    st.lists(st.text(alphabet="ab上 ", min_size=1, max_size=4), max_size=3),
)
def test_text_ends_where_the_first_stop_string_to_be_complete_begins(
    text: str, stops: list[str]
) -> None:
    pieces = stream(TOKENIZER.encode(text), tuple(stops))

    written = (text[:length] for length in range(len(text) + 1))
    hit = next((head for head in written if any(stop in head for stop in stops)), None)
    end = len(text) if hit is None else min(hit.index(stop) for stop in stops if stop in hit)
    assert "".join(pieces) == text[:end]


@given(
    st.lists(st.integers(3, TOKENIZER.vocab_size - 1), max_size=30),
    st.lists(st.integers(3, TOKENIZER.vocab_size - 1), max_size=30),
)
def test_an_answer_behind_its_prompt_joins_to_the_whole(
    prompt: list[int], answer: list[int]
) -> None:
    text = TextStream(TOKENIZER)

    pieces = [text.begin(prompt), *(text.feed(token) for token in answer), text.finish()]

    assert "".join(pieces) == TOKENIZER.decode([*prompt, *answer])


def test_text_comes_as_soon_as_it_is_certain() -> None:
    tokens = TOKENIZER.encode("Once upon a 🙂 time")

    pieces = stream(tokens)

    assert pieces[-1] == ""
    assert sum(1 for piece in pieces if piece) > 5


@pytest.mark.parametrize("text", ["<s>", "</s>", "<unk>", "[INST] <s> </s>"])
def test_text_never_becomes_a_control_id(text: str) -> None:
    tokenizer: SentencePieceTokenizer = TOKENIZER

    tokens = tokenizer.encode(text)

    assert not {tokenizer.bos_id, tokenizer.eos_id} & set(tokens)
