"""tokenizer.json gives SentencePiece's ids, judged by the tokenizers package."""

from __future__ import annotations

import io
import json
import random
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

import llamakit.demo
from llamakit.convert.hf_tokenizer import merges, tokenizer_json
from llamakit.convert.sentencepiece_model import (
    PieceType,
    SentencePieceModel,
    VocabularyPiece,
    read_sentencepiece_model,
)
from llamakit.errors import TokenizerError

REFERENCE = Path(__file__).parents[1] / "data" / "reference-cases" / "tokenizer.model"
EMBEDDED = llamakit.demo.path().parent / "tokenizer.model"
SPECIAL = ("<unk>", "<s>", "</s>")


class Pair:
    """One tokenizer.model, as SentencePiece and as what is made of it."""

    def __init__(self, path: Path) -> None:
        self.theirs = sentencepiece.SentencePieceProcessor(model_file=str(path))
        made = json.dumps(tokenizer_json(read_sentencepiece_model(path)))
        self.ours = tokenizers.Tokenizer.from_str(made)

    def check(self, text: str) -> None:
        tokens = self.theirs.encode(text)

        assert self.ours.encode(text, add_special_tokens=False).ids == tokens
        assert self.ours.decode(tokens) == self.theirs.decode(tokens)


PAIRS = [Pair(REFERENCE), Pair(EMBEDDED)]
PIECES = [
    pair.theirs.id_to_piece(token).replace("▁", " ")
    for pair in PAIRS
    for token in range(3 + 256, pair.theirs.vocab_size())
]
FRAGMENTS = [" ", "  ", "\n", "\t", "\r\n", "\0", "▁", "上下五千年", "😀", "👩‍🔬", "é", "e\u0301"]
FRAGMENTS += ["\ufffd", "\ufeff", "<0x41>", "< s>", "<S>", "\u3000", "\u00a0", "  \n  ", "[INST]"]
TEXTS = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        st.sampled_from(PIECES),
        st.sampled_from(FRAGMENTS),
    )
).map("".join)


def train(path: Path, corpus: list[str] | None = None, **settings: Any) -> Path:
    """Train a small model as Llama's was, but for ``settings``."""
    model = io.BytesIO()
    usual: dict[str, Any] = {
        "model_type": "bpe",
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "byte_fallback": True,
        "allow_whitespace_only_pieces": True,
        "hard_vocab_limit": False,
        "vocab_size": 340,
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus or ["the cat sat on the mat", "a banana is yellow"] * 20),
        model_writer=model,
        **(usual | settings),
    )
    path.write_bytes(model.getvalue())
    return path


@pytest.mark.parametrize("pair", PAIRS, ids=["reference", "demo"])
@settings(max_examples=100)
@given(text=TEXTS)
def test_tokens_and_text_are_those_of_sentencepiece(pair: Pair, text: str) -> None:
    if any(special in text for special in SPECIAL):
        return

    pair.check(text)


@pytest.mark.parametrize("pair", PAIRS, ids=["reference", "demo"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "   a",
        "a  b ",
        "\n\n x",
        "上下五千年，英雄万万千。",
        "😀 \x80",
        "<0x41>",
        "▁▁ ▁",
        "=" * 99,
    ],
)
def test_odd_strings_have_the_tokens_of_sentencepiece(pair: Pair, text: str) -> None:
    pair.check(text)


@settings(max_examples=100)
@given(data=st.data())
def test_any_tokens_but_bytes_have_the_text_of_sentencepiece(data: st.DataObject) -> None:
    pair = data.draw(st.sampled_from(PAIRS))
    ids = st.sampled_from([1, 2, *range(259, pair.theirs.vocab_size())])
    tokens = data.draw(st.lists(ids))

    assert pair.ours.decode(tokens) == pair.theirs.decode(tokens)


@pytest.mark.parametrize("alphabet", ["ab", "ab ", "an =", "aab", "a ", "ba*-"])
def test_runs_and_repetitions_are_joined_as_sentencepiece_joins_them(
    alphabet: str, tmp_path: Path
) -> None:
    chance = random.Random(alphabet)
    corpus = ["".join(chance.choices(alphabet, k=60)) for _ in range(500)]
    pair = Pair(train(tmp_path / "tokenizer.model", corpus))

    for _ in range(500):
        pair.check("".join(chance.choices(alphabet, k=chance.randrange(60))))


def test_a_string_begins_with_the_first_token_and_so_does_each_of_a_pair() -> None:
    pair = PAIRS[0]
    one, other = pair.theirs.encode("one"), pair.theirs.encode(" other")

    assert pair.ours.encode("one").ids == [1, *one]
    assert pair.ours.encode("one", " other").ids == [1, *one, 1, *other]


def test_a_special_token_written_out_becomes_its_id_as_hugging_face_has_it() -> None:
    pair = PAIRS[0]

    tokens = pair.ours.encode("a</s>", add_special_tokens=False).ids

    assert tokens == [*pair.theirs.encode("a"), 2]
    assert 2 not in pair.theirs.encode("a</s>")


def test_the_pieces_are_read_as_sentencepiece_reads_them() -> None:
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(EMBEDDED))

    model = read_sentencepiece_model(EMBEDDED)

    ids = range(theirs.vocab_size())
    assert [piece.text for piece in model.pieces] == [theirs.id_to_piece(i) for i in ids]
    assert [piece.score for piece in model.pieces] == [theirs.get_score(i) for i in ids]
    assert [piece.type == PieceType.BYTE for piece in model.pieces] == list(
        map(theirs.is_byte, ids)
    )
    assert [piece.type == PieceType.CONTROL for piece in model.pieces] == list(
        map(theirs.is_control, ids)
    )


def test_the_merges_of_a_large_vocabulary_take_seconds() -> None:
    chance = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz▁"
    words = {"".join(chance.choices(letters, k=chance.randrange(1, 12))) for _ in range(140_000)}
    texts = sorted(words | set(letters), key=len)[:128_000]
    pieces = tuple(
        VocabularyPiece(text, -float(i), PieceType.NORMAL) for i, text in enumerate(texts)
    )
    model = with_pieces(pieces)

    start = time.process_time()  # other programs do not count
    found = merges(model)

    assert time.process_time() - start < 10
    assert len(found) > 20_000


def with_pieces(pieces: tuple[VocabularyPiece, ...]) -> SentencePieceModel:
    return SentencePieceModel(
        path=Path("tokenizer.model"),
        pieces=pieces,
        model_type="BPE",
        byte_fallback=True,
        unk_piece="<unk>",
        bos_piece="<s>",
        eos_piece="</s>",
        normalization="identity",
        changes_characters=False,
        add_dummy_prefix=True,
        remove_extra_whitespaces=False,
        escape_whitespaces=True,
        treat_whitespace_as_suffix=False,
    )


def test_the_first_to_be_joined_is_the_piece_of_the_highest_score() -> None:
    texts = {"a": -9, "b": -8, "c": -7, "abc": -3, "bc": -2, "ab": -1}
    pieces = tuple(VocabularyPiece(text, score, PieceType.NORMAL) for text, score in texts.items())

    assert merges(with_pieces(pieces)) == [["a", "b"], ["b", "c"], ["ab", "c"], ["a", "bc"]]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"model_type": "unigram"}, "it is a unigram model"),
        ({"model_type": "char"}, "it is a char model"),
        ({"normalization_rule_name": "nmt_nfkc"}, r"changes characters \(normalization nmt_nfkc"),
        ({"byte_fallback": False}, "it has no byte fallback"),
        ({"add_dummy_prefix": False}, "it adds no space before a string"),
        ({"remove_extra_whitespaces": True}, "it removes repeated spaces"),
        ({"treat_whitespace_as_suffix": True}, "it writes spaces after words"),
        ({"user_defined_symbols": ["<fim>"]}, "its piece '<fim>' is user-defined"),
        ({"bos_id": -1}, "it has no first token '<s>'"),
    ],
)
def test_a_model_that_cannot_be_said_is_refused_with_the_reason(
    settings: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    model = read_sentencepiece_model(train(tmp_path / "tokenizer.model", **settings))

    with pytest.raises(TokenizerError, match=reason) as raised:
        tokenizer_json(model)
    assert str(tmp_path / "tokenizer.model") in str(raised.value)
    assert "tokenizer" in str(raised.value)


def test_a_character_that_is_no_piece_of_its_own_is_refused() -> None:
    pieces = [
        *read_sentencepiece_model(REFERENCE).pieces,
        VocabularyPiece("☃☃", -999, PieceType.NORMAL),
    ]

    with pytest.raises(TokenizerError, match="its character '☃' is no piece of its own"):
        tokenizer_json(with_pieces(tuple(pieces)))


def test_other_control_tokens_are_special_too(tmp_path: Path) -> None:
    path = train(tmp_path / "tokenizer.model", pad_id=3, control_symbols=["<turn>"])

    made = Pair(path).ours

    assert made.decode([1, 3, made.token_to_id("<turn>"), *made.encode("cat").ids]) == "cat"


@settings(max_examples=100)
@given(data=st.data())
def test_a_damaged_model_is_read_or_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    good = REFERENCE.read_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    bad = data.draw(
        st.one_of(
            st.just(good[:at]),
            st.binary(min_size=1, max_size=9).map(lambda new: good[:at] + new + good[at + 1 :]),
            st.binary(),
        )
    )
    path = tmp_path_factory.getbasetemp() / "damaged.model"
    path.write_bytes(bad)

    with suppress(TokenizerError):
        tokenizer_json(read_sentencepiece_model(path))


def test_a_model_that_is_truncated_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(REFERENCE.read_bytes()[:5000])

    with pytest.raises(TokenizerError, match="not a complete SentencePiece model"):
        read_sentencepiece_model(path)
