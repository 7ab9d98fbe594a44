import json
import logging

import pytest

from llamakit.checkpoint.params import (
    feed_forward_keys,
    hidden_dim,
    parse_params,
    read_params,
    to_meta_json,
)
from llamakit.errors import ParamsError

LLAMA_2_7B = {"dim": 4096, "multiple_of": 256, "n_heads": 32, "n_layers": 32} | {
    "norm_eps": 1e-05,
    "vocab_size": -1,
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "params.json"


@pytest.mark.parametrize(
    ("dim", "multiple_of", "multiplier", "expected"),
    [
        (4096, 256, None, 11008),  # 7B
        (5120, 256, None, 13824),  # 13B
        (8192, 4096, 1.3, 28672),  # 70B
        (4096, 1024, 1.3, 14336),  # Llama 3 8B
        (2048, 256, 1.5, 8192),  # Llama 3.2 1B
    ],
)
def test_the_width_of_the_feed_forward_layers_is_that_of_the_model(
    dim, multiple_of, multiplier, expected
):
    assert hidden_dim(dim, multiple_of, multiplier) == expected


@pytest.mark.parametrize(("dim", "hidden"), [(4096, 11008), (8192, 28672), (64, 100), (64, 7)])
def test_a_width_gives_keys_that_give_the_width(dim, hidden):
    multiple_of, multiplier = feed_forward_keys(dim, hidden)

    assert hidden_dim(dim, multiple_of, multiplier) == hidden


def test_what_llama_2_leaves_out_is_resolved(path):
    params = parse_params(LLAMA_2_7B, path, vocab_size=32000)

    assert (params.n_kv_heads, params.vocab_size, params.rope_theta) == (32, 32000, 10000.0)
    assert (params.hidden_dim, params.head_dim, params.context) == (11008, 128, 4096)


def test_code_llama_has_a_longer_context(path):
    params = parse_params(LLAMA_2_7B | {"rope_theta": 1000000}, path, vocab_size=32016)

    assert params.context == 16384


def test_a_context_in_the_file_counts(path):
    params = parse_params(LLAMA_2_7B | {"max_seq_len": 2048}, path, vocab_size=32000)

    assert params.context == 2048


def test_an_unknown_key_is_kept_and_named_in_one_warning(path, caplog):
    values = LLAMA_2_7B | {"flavour": "mint", "depth": [1], "max_batch_size": 4}

    with caplog.at_level(logging.WARNING, "llamakit"):
        params = parse_params(values, path, vocab_size=32000)

    assert params.extra == {"flavour": "mint", "depth": [1], "max_batch_size": 4}
    [message] = caplog.messages
    assert "'depth', 'flavour'" in message
    assert "max_batch_size" not in message


def test_a_missing_norm_eps_is_named_in_a_warning(path, caplog):
    values = {key: value for key, value in LLAMA_2_7B.items() if key != "norm_eps"}

    params = parse_params(values, path, vocab_size=32000)

    assert params.norm_eps == 1e-5
    assert "norm_eps" in caplog.text


def test_what_is_written_back_is_what_was_read(path):
    values = LLAMA_2_7B | {"n_kv_heads": 8, "ffn_dim_multiplier": 1.3, "flavour": "mint"}
    params = parse_params(values, path, vocab_size=32000)

    written = to_meta_json(params)

    assert written == values | {"vocab_size": 32000}
    assert parse_params(json.loads(json.dumps(written)), path) == params


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dim": None}, "has no 'dim'"),
        ({"dim": "4096"}, "'dim' is '4096'; expected a positive integer"),
        ({"dim": 4096.0}, "'dim' is 4096.0"),
        ({"dim": True}, "'dim' is True"),
        ({"n_layers": 0}, "'n_layers' is 0"),
        ({"n_layers": -3}, "'n_layers' is -3"),
        ({"n_layers": 10**6}, "1000000 layers"),
        ({"n_heads": 10**400}, "'n_heads' is 1"),
        ({"n_heads": 3}, "4096 (width) does not divide by 3 (heads)"),
        ({"n_kv_heads": 5}, "32 (attention heads) does not divide by 5 (key/value heads)"),
        ({"vocab_size": 0}, "'vocab_size' is 0"),
        ({"vocab_size": "x" * 1000}, "'vocab_size' is 'xxx"),
        ({"norm_eps": float("nan")}, "NaN"),
        ({"norm_eps": -1e-5}, "'norm_eps' is -1e-05"),
        ({"rope_theta": float("inf")}, "'rope_theta' is inf"),
        ({"use_scaled_rope": 1}, "'use_scaled_rope' is 1; expected true or false"),
        ({"ffn_dim_multiplier": []}, "'ffn_dim_multiplier' is []"),
    ],
)
def test_a_wrong_value_is_named_with_its_file_and_what_was_expected(path, change, said):
    with pytest.raises(ParamsError) as caught:
        parse_params(LLAMA_2_7B | change, path, vocab_size=32000)

    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_vocabulary_that_nothing_says_is_refused(path):
    with pytest.raises(ParamsError, match="leaves 'vocab_size' open"):
        parse_params(LLAMA_2_7B, path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "byte 0 is not UTF-16-LE text"),
        (b"[1, 2]", "holds a JSON list"),
        (b"[" * 100_000, "not JSON"),
        (b"<!DOCTYPE html><title>403 Forbidden</title>", 'an HTML page ("403 Forbidden")'),
        (
            b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
            'an XML error page ("AccessDenied")',
        ),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
    ],
)
def test_a_file_that_is_no_json_object_is_called_what_it_is(path, content, said):
    path.write_bytes(content)

    with pytest.raises(ParamsError) as caught:
        read_params(path)

    assert said in str(caught.value)


def test_a_byte_order_mark_is_no_fault(path):
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(LLAMA_2_7B).encode())

    assert read_params(path) == LLAMA_2_7B


def test_an_absent_file_is_said_to_be_absent(path):
    with pytest.raises(ParamsError, match="does not exist"):
        read_params(path)


def test_a_folder_in_its_place_is_refused(path):
    path.mkdir()

    with pytest.raises(ParamsError, match="cannot be read"):
        read_params(path)
