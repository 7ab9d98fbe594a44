"""The vocabulary in the file, and tokenizers that a file cannot hold."""

import pytest
from conftest import made_of
from gguf import GGUFReader, TokenType
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

import llamakit


@pytest.fixture(scope="session")
def tokenizer(base):
    return llamakit.load_tokenizer(base.path).path


def vocabulary(file):
    fields = GGUFReader(file).fields
    names = ("tokens", "scores", "token_type")
    return list(zip(*(fields[f"tokenizer.ggml.{name}"].contents() for name in names), strict=True))


def test_every_piece_is_there_with_its_score_and_type(base, export, tokenizer):
    model = SentencePieceProcessor(model_file=str(tokenizer))

    pieces = vocabulary(export(base))

    assert len(pieces) == model.vocab_size() == base.params.vocab_size
    assert pieces[0] == ("<unk>", 0.0, TokenType.UNKNOWN)
    assert pieces[1] == ("<s>", 0.0, TokenType.CONTROL)
    assert pieces[3 + 0x0A] == ("<0x0A>", 0.0, TokenType.BYTE)
    for token in range(259, model.vocab_size()):
        assert pieces[token] == (model.id_to_piece(token), model.get_score(token), TokenType.NORMAL)


def test_rows_beyond_the_pieces_are_unused(base, export):
    rows = base.params.vocab_size

    pieces = vocabulary(export(made_of(0.0, vocab_size=rows + 2, n_layers=1)))

    assert pieces[rows:] == [
        (f"[PAD{rows}]", -10000.0, TokenType.UNUSED),
        (f"[PAD{rows + 1}]", -10000.0, TokenType.UNUSED),
    ]


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    with pytest.raises(llamakit.LlamakitError, match="it is the tokenizer of another model"):
        llamakit.export(made_of(0.0, vocab_size=100), tmp_path / "made", "gguf")


def test_a_tokenizer_that_is_none_is_refused(base, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "other.model").write_text("no model")

    for name, message in (
        ("tokenizer.json", "expected the byte-level BPE of Llama 3"),
        ("other.model", "not a SentencePiece model"),
        ("absent.model", "no such tokenizer file"),
    ):
        with pytest.raises(llamakit.LlamakitError, match=message):
            llamakit.export(base, tmp_path / "made", "gguf", tokenizer=str(tmp_path / name))


def test_a_tokenizer_that_changes_characters_is_refused(base, tmp_path):
    SentencePieceTrainer.train(
        sentence_iterator=iter(["one fish two fish red fish blue fish"] * 9),
        model_prefix=str(tmp_path / "nfkc"),
        vocab_size=300,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="nmt_nfkc",
        hard_vocab_limit=False,
        minloglevel=2,
    )

    with pytest.raises(llamakit.LlamakitError, match="changes characters or spaces"):
        llamakit.export(base, tmp_path / "made", "gguf", tokenizer=str(tmp_path / "nfkc.model"))
