"""The tokenizer of Llama 3 and later, held to Meta's answers and to tiktoken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from llamakit import load_tokenizer
from llamakit.plugins.formats import tiktoken as plugin
from llamakit.runtime.text_stream import TextStream
from llamakit.testing import check_tokenizer
from llamakit.testing.small_checkpoints import embedded_tokenizer
from llamakit.tokenizer.rank_file import read_ranks
from llamakit.tokenizer.rank_tokenizer import RankTokenizer
from llamakit.tokenizer.special_tokens import LLAMA_3_0, LLAMA_3_1, LLAMA_3_1_HF, LLAMA_4

SHARED = Path(__file__).parents[3] / "shared" / "reference-cases-llama3"
CASES = Path(__file__).parents[1] / "data" / "reference-cases-llama3"
SIGNS = "abcXYZ ',.!0123456789\n\r\t<|>_éßЖдمصह中日안ไ😀👩\u200d\u00a0\u3000\x1c\x85\u2028½ǅ\ud800"


def test_the_strings_of_the_reference_become_its_tokens(meta: RankTokenizer) -> None:
    texts = json.loads((SHARED / "llama3-tokenizer.expected.json").read_text())["texts"]

    wrong = [it["text"] for it in texts if meta.encode(it["text"]) != it["ids"]]

    assert not wrong


def test_all_special_tokens_have_the_ids_of_the_reference(meta: RankTokenizer) -> None:
    expected = json.loads((SHARED / "llama3-tokenizer.expected.json").read_text())

    assert expected["special_tokens"].items() <= dict(meta.special_ids()).items()
    assert sorted(meta.stop_ids) == expected["stop_tokens"]
    assert (meta.vocab_size, meta.bos_id, meta.eos_id) == (expected["n_words"], 128000, 128001)


@pytest.mark.parametrize(
    ("text", "count", "last"),
    [
        ("a" * 25_000, 3125, [70540]),
        ("a" * 25_001, 3126, [64]),
        (" " * 25_001, 197, [58040, 13137, 220]),
        ("\n" * 25_001, 783, [80183, 6087, 198]),
        ("1" * 25_001, 8335, [5037, 16, 16]),
        ("ab" * 13_000, 13000, [370]),
    ],
)
def test_long_runs_are_split_as_in_the_reference(
    meta: RankTokenizer, text: str, count: int, last: list[int]
) -> None:
    tokens = meta.encode(text)

    assert (len(tokens), tokens[-len(last) :]) == (count, last)


def test_a_string_is_split_every_400_000_characters(small: RankTokenizer) -> None:
    half = "the shard " * 40_000
    assert len(half) == 400_000

    assert small.encode(half[:-1] + "the answer") == small.encode(half[:-1] + "t") + small.encode(
        "he answer"
    )


def test_a_switch_of_kind_restarts_the_count_of_a_run(small: RankTokenizer) -> None:
    text = "a" * 24_999 + " " + "a" * 25_002

    pieces = small.encode("a" * 24_999 + " " + "a" * 25_000) + small.encode("aa")

    assert small.encode(text) == pieces


@pytest.mark.parametrize("text", [" việc", "ektedir", "日本語", "  \n\n"])
def test_a_piece_that_is_a_token_is_never_merged_from_parts(
    small: RankTokenizer, text: str
) -> None:
    assert [small.token_bytes()[token] for token in small.encode(text)] == [text.encode()]


@settings(max_examples=200)
@given(st.text(st.sampled_from(SIGNS), max_size=80))
def test_any_string_becomes_what_tiktoken_makes_of_it(small: RankTokenizer, text: str) -> None:
    ranks = {token: rank for rank, token in enumerate(small.token_bytes()[:512])}
    engines = {
        special: tiktoken.Encoding(
            "judge", pat_str=special.pattern, mergeable_ranks=ranks, special_tokens={}
        )
        for special in (LLAMA_3_1, LLAMA_4)
    }

    for special, engine in engines.items():
        tokenizer = RankTokenizer(small.path, list(ranks), special)

        tokens = tokenizer.encode(text)

        assert tokens == engine.encode_ordinary(text)
        assert tokenizer.decode(tokens) == text.encode("utf-16", "surrogatepass").decode(
            "utf-16", "replace"
        )
        assert max(tokens, default=0) < 512  # never a control token


def test_the_name_of_every_control_token_stays_text(small: RankTokenizer) -> None:
    for name in small.special_ids():
        tokens = small.encode(f"a{name}b")

        assert small.decode(tokens) == f"a{name}b"
        assert max(tokens) < 512


def test_control_tokens_and_those_beyond_the_last_have_no_text(small: RankTokenizer) -> None:
    text = small.encode("shard", bos=True, eos=True)

    assert text[0] == small.bos_id
    assert text[-1] == small.eos_id
    assert small.decode([*text, small.vocab_size, 10**6]) == "shard"


def test_a_stream_holds_back_bytes_that_are_no_character_yet(small: RankTokenizer) -> None:
    text = "é🙂 日本 👩\u200d🚀 \N{REPLACEMENT CHARACTER} end"
    stream = TextStream(small)

    pieces = [stream.feed(byte) for byte in text.encode()]  # our ranks 0 to 255 are the bytes

    assert "".join(pieces) + stream.finish() == text
    assert pieces[:2] == ["", "é"]
    assert pieces[2:6] == ["", "", "", "🙂"]


def test_bytes_that_never_become_a_character_end_as_replacement(small: RankTokenizer) -> None:
    stream = TextStream(small)

    pieces = [stream.feed(byte) for byte in b"a\xf0\x9f"]

    assert "".join(pieces) == "a"
    assert stream.finish() == "\N{REPLACEMENT CHARACTER}"


def test_each_version_has_its_names_at_the_same_places() -> None:
    names = {offset: (LLAMA_3_0.names[offset], LLAMA_3_1.names[offset]) for offset in (2, 8, 10)}

    assert names == {
        2: ("<|reserved_special_token_0|>",) * 2,
        8: ("<|reserved_special_token_4|>", "<|eom_id|>"),
        10: ("<|reserved_special_token_5|>", "<|python_tag|>"),
    }
    last = [it.names[255] for it in (LLAMA_3_0, LLAMA_3_1, LLAMA_3_1_HF)]
    assert last == [f"<|reserved_special_token_{number}|>" for number in (250, 245, 247)]
    assert {len(set(it.names)) for it in (LLAMA_3_0, LLAMA_3_1, LLAMA_3_1_HF)} == {256}


def test_llama_4_has_2048_special_tokens() -> None:
    found = {
        name: LLAMA_4.names.index(name)
        for name in ("<|header_start|>", "<|eom|>", "<|python_start|>", "<|image_start|>")
    }

    assert len(set(LLAMA_4.names)) == 2048
    assert list(found.values()) == [5, 7, 16, 80]
    assert [LLAMA_4.names[offset] for offset in (90, 92, 1142, 1144, 2047)] == [
        *("<|image|>", "<|patch|>", "<|reasoning_thinking_start|>"),
        *("<|reserved_special_token_0|>", "<|reserved_special_token_903|>"),
    ]


@pytest.mark.parametrize(
    ("rows", "scaled", "special"),
    [
        (512 + 256, True, LLAMA_3_1),
        (512 + 256, False, LLAMA_3_0),
        (512 + 2048, False, LLAMA_4),
        (512 + 264, True, LLAMA_3_1),  # an embedding with rows that no token has
        (512 + 264, False, LLAMA_3_0),
    ],
)
def test_the_rows_of_the_embedding_tell_which_special_tokens_follow(
    rank_file: Path, rows: int, scaled: bool, special: object
) -> None:
    tokenizer = load_tokenizer(rank_file).wrapped
    assert isinstance(tokenizer, RankTokenizer)
    params = replace(_params(), vocab_size=rows, use_scaled_rope=scaled)

    fitted = tokenizer.for_model(params)

    expected = RankTokenizer(rank_file, read_ranks(rank_file), special)  # type: ignore[arg-type]
    assert dict(fitted.special_ids()) == dict(expected.special_ids())
    assert fitted.stop_ids == expected.stop_ids
    assert fitted.prompt_format == expected.prompt_format


def _params():  # type: ignore[no-untyped-def]
    from llamakit.checkpoint.params import ModelParams

    return ModelParams(dim=8, n_layers=1, n_heads=1, n_kv_heads=1, vocab_size=8, hidden_dim=8)


def test_a_sentencepiece_model_is_another_plugin_s(rank_file: Path) -> None:
    assert plugin.load_tokenizer(embedded_tokenizer().path) is None
    assert isinstance(load_tokenizer(rank_file).wrapped, RankTokenizer)


def test_the_contract_of_tokenizers_holds(rank_file: Path) -> None:
    check_tokenizer(plugin.load_tokenizer, rank_file)


@pytest.mark.parametrize("case", ["llama3-gqa-mp1", "llama31-mp8"])
def test_the_prompts_of_the_reference_cases_become_its_tokens(case: str) -> None:
    expected = json.loads((CASES / f"{case}.expected.json").read_text())
    tokenizer = load_tokenizer(CASES / "tokenizer.model")

    tokens = [tokenizer.encode(prompt, bos=True) for prompt in expected["prompts"]]

    assert tokens == expected["prompt_tokens"]
    assert sorted(tokenizer.stop_ids) == expected["stop_tokens"]  # type: ignore[attr-defined]


@settings(max_examples=200)
@given(st.lists(st.integers(0, 511) | st.sampled_from(list("é🙂日".encode())), max_size=60))
def test_the_pieces_of_a_stream_are_the_whole_text(small: RankTokenizer, tokens: list[int]) -> None:
    stream = TextStream(small)

    pieces = [stream.feed(token) for token in tokens]

    assert "".join(pieces) + stream.finish() == small.decode(tokens)
