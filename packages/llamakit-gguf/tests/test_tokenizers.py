"""The tokenizers that are in GGUF files, and the files that they become."""

import base64
import json

import numpy as np
import pytest
from conftest import made_of
from gguf import GGUFWriter, TokenType
from gguf_files import ROWS, add_pieces, write_model
from llamakit_gguf import load_tokenizer

import llamakit
from llamakit.testing import check_tokenizer


@pytest.fixture
def model(tmp_path):
    write_model(tmp_path / "m.gguf", change=add_pieces)
    return tmp_path / "m.gguf"


@pytest.fixture(scope="module")
def ranks_model(tmp_path_factory):
    """Return a model's folder with the ranks of bytes and two words, and the file made of it."""
    root = tmp_path_factory.mktemp("ranks")
    tokens = [bytes([byte]) for byte in range(256)] + [b"he", b"hel", b"lo", b" hel", b"hello"]
    lines = [b"%s %d" % (base64.b64encode(token), rank) for rank, token in enumerate(tokens)]
    (root / "tokenizer.model").write_bytes(b"\n".join(lines) + b"\n")
    checkpoint = made_of(
        0.5, vocab_size=len(tokens) + 256, n_layers=1, rope_theta=500000.0, use_scaled_rope=True
    )
    checkpoint.path = root
    llamakit.export(checkpoint, root / "made", "gguf", instruct=True)
    return root, next((root / "made").glob("*.gguf"))


def test_pieces_become_a_sentencepiece_model(model):
    tokenizer = llamakit.load_tokenizer(model)

    check_tokenizer(load_tokenizer, model)
    assert tokenizer.vocab_size == 265  # the padding of the embedding is no piece
    assert tokenizer.encode("hi hi", bos=True) == [1, 263, 263]
    assert tokenizer.decode(tokenizer.encode("ïhi 🙂")) == "ïhi 🙂"
    assert tokenizer.encode("<|im_end|>")[-1] != 264
    assert tokenizer.special_ids()["<|im_end|>"] == tokenizer.eos_id == 264
    assert tokenizer.stop_ids == {264}


def test_the_tokenizer_and_the_chat_template_become_files_of_metas_folder(model, tmp_path):
    llamakit.reshard(model, tmp_path / "meta", 2)

    folder = tmp_path / "meta"
    assert (folder / "chat_template.jinja").read_text() == "{{ messages[0].content }}"
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == 264
    texts = ["hi", "  two hi", "ü\n"]
    tokenizers = [llamakit.load_tokenizer(it) for it in (model, folder / "tokenizer.model")]
    first, second = ([it.encode(text) for text in texts] for it in tokenizers)
    assert first == second


def test_ranks_come_back_byte_for_byte(ranks_model, tmp_path):
    root, file = ranks_model

    llamakit.reshard(file, tmp_path / "meta", 1)

    made, source = ((it / "tokenizer.model").read_bytes() for it in (tmp_path / "meta", root))
    assert made == source
    assert not (tmp_path / "meta" / "tokenizer_config.json").exists()
    params = json.loads((tmp_path / "meta" / "params.json").read_text())
    assert params["use_scaled_rope"]
    assert params["rope_theta"] == 500000.0


def test_ranks_in_a_gguf_give_the_tokens_of_the_file(ranks_model):
    root, file = ranks_model
    texts = ["hello", " hello  hel\n", "ü 🙂 <|eot_id|>"]

    tokenizer, source = llamakit.load_tokenizer(file), llamakit.load_tokenizer(root)

    check_tokenizer(load_tokenizer, file)
    assert [tokenizer.encode(it) for it in texts] == [source.encode(it) for it in texts]
    assert tokenizer.special_ids()["<|eot_id|>"] == len(tokenizer.ranks) + 9
    assert "eot_id" in tokenizer.chat_template


def test_a_tokenizer_that_is_no_llamas_is_left_out_of_conversions(tmp_path, caplog):
    def other(writer: GGUFWriter) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("qwen2")
        writer.add_token_list([f"t{at}" for at in range(ROWS)])
        writer.add_token_types([TokenType.NORMAL] * ROWS)

    write_model(tmp_path / "m.gguf", change=other)

    with pytest.raises(llamakit.LlamakitError, match="splits strings as qwen2; expected llama-bpe"):
        llamakit.load_tokenizer(tmp_path / "m.gguf")
    llamakit.reshard(tmp_path / "m.gguf", tmp_path / "meta", 1)

    assert "the tokenizer is left out" in caplog.text
    assert not (tmp_path / "meta" / "tokenizer.model").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tokenizer.ggml.scores", [1.0], r"300 tokens and 1 finite scores"),
        ("tokenizer.ggml.scores", [float("nan")] * ROWS, r"and 300 finite scores"),
        ("tokenizer.ggml.token_type", [1], r"300 tokens and 1 token types"),
        ("tokenizer.ggml.token_type", [9] * ROWS, r"token types that there are not"),
        ("tokenizer.ggml.eos_token_id", 300, r"eos_token_id is 300"),
        ("tokenizer.ggml.bos_token_id", 299, r"is none of its pieces"),
        ("tokenizer.ggml.tokens", ["a"] * ROWS, r"make no SentencePiece model"),
    ],
)
def test_a_damaged_tokenizer_is_refused(tmp_path, key, value, message):
    def damaged(writer: GGUFWriter) -> None:
        add_pieces(writer)
        del writer.kv_data[0][key]
        if isinstance(value, list):
            writer.add_array(key, np.array(value).tolist())
        else:
            writer.add_uint32(key, value)

    write_model(tmp_path / "m.gguf", change=damaged)

    with pytest.raises(llamakit.LlamakitError, match=message):
        llamakit.load_tokenizer(tmp_path / "m.gguf")
