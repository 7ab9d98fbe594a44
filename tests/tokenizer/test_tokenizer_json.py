"""The tokenizer.json of Hugging Face's Llama 3 folders, judged by the tokenizers package."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Judge

from llamakit import load_tokenizer
from llamakit.convert.hf_rank_tokenizer import rank_tokenizer_json
from llamakit.errors import TokenizerError
from llamakit.llama.loading import find_tokenizer
from llamakit.plugins.formats import tokenizer_json as plugin
from llamakit.testing import check_tokenizer
from llamakit.tokenizer.added_tokens import AddedToken
from llamakit.tokenizer.rank_tokenizer import RankTokenizer
from llamakit.tokenizer.special_tokens import LLAMA_3_1_HF

SIGNS = "abcXYZ ',.!0123456789\n\r\t_éßЖдمصह中日안ไ😀👩\u200d\u00a0\u3000½ǅ"


def tokenizer_json(ranks: list[bytes], names: tuple[str, ...]) -> dict[str, Any]:
    added = [AddedToken(len(ranks) + offset, name) for offset, name in enumerate(names)]
    return json.loads(rank_tokenizer_json(ranks, added, LLAMA_3_1_HF))  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def content(small: RankTokenizer) -> dict[str, Any]:
    return tokenizer_json(small.token_bytes()[:512], LLAMA_3_1_HF.names)


def written(folder: Path, content: object) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture(scope="session")
def path(content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("model"), content)


@settings(max_examples=200)
@given(st.text(st.sampled_from(SIGNS), max_size=80))
def test_any_string_becomes_what_tokenizers_makes_of_it(path: Path, text: str) -> None:
    judge, tokenizer = _both(path)

    assert tokenizer.encode(text) == judge.encode(text, add_special_tokens=False).ids


_OPENED: dict[Path, tuple[Any, Any]] = {}


def _both(path: Path) -> tuple[Any, Any]:
    if path not in _OPENED:
        _OPENED[path] = Judge.from_file(str(path)), load_tokenizer(path)
    return _OPENED[path]


def test_meta_s_own_ranks_come_through_it_unchanged(meta: RankTokenizer, tmp_path: Path) -> None:
    ranks = meta.token_bytes()[:128_000]
    path = written(tmp_path, tokenizer_json(ranks, LLAMA_3_1_HF.names))

    tokenizer = load_tokenizer(path).wrapped

    assert isinstance(tokenizer, RankTokenizer)
    assert tokenizer.token_bytes() == meta.token_bytes()
    assert (tokenizer.bos_id, tokenizer.stop_ids) == (meta.bos_id, meta.stop_ids)
    assert tokenizer.encode(" việc, it's 1234") == meta.encode(" việc, it's 1234")


def test_what_a_fine_tune_adds_and_renames_is_kept(content: dict[str, Any], tmp_path: Path) -> None:
    changed = copy.deepcopy(content)
    added = changed["added_tokens"]
    added[2]["content"] = "<|im_start|>"
    added.append({**added[2], "id": 768, "content": "<tool_call>", "special": False})

    tokenizer = load_tokenizer(written(tmp_path, changed)).wrapped

    assert isinstance(tokenizer, RankTokenizer)
    assert tokenizer.special_ids()["<|im_start|>"] == 514
    assert tokenizer.vocab_size == 769
    judge = Judge.from_file(str(tmp_path / "tokenizer.json"))
    text = "a<tool_call>b"
    assert tokenizer.encode(text) == judge.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode("<|im_start|>")) == "<|im_start|>"  # stays text


def test_the_contract_of_tokenizers_holds(path: Path) -> None:
    check_tokenizer(plugin.load_tokenizer, path)


def _bpe_of_llama_2(value: dict[str, Any]) -> None:
    value["model"]["byte_fallback"] = True


def _other_pattern(value: dict[str, Any]) -> None:
    value["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\w+"


def _merges_out_of_order(value: dict[str, Any]) -> None:
    value["model"]["merges"].reverse()


def _fewer_merges(value: dict[str, Any]) -> None:
    del value["model"]["merges"][5]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_bpe_of_llama_2, "it is a BPE model with other settings"),
        (_other_pattern, "it splits strings with the pattern"),
        (_merges_out_of_order, "its merges are not in the order of its token IDs"),
        (_fewer_merges, "its merges are not all the ways to split its tokens"),
    ],
)
def test_a_tokenizer_of_another_kind_is_refused(
    content: dict[str, Any], tmp_path: Path, change: Any, said: str
) -> None:
    changed = copy.deepcopy(content)
    change(changed)

    with pytest.raises(TokenizerError, match=said):
        load_tokenizer(written(tmp_path, changed))


def _added(*contents: object) -> Any:
    def change(value: dict[str, Any]) -> None:
        value["added_tokens"] += [
            {"content": content, "id": 100_000 + number, "special": False}
            for number, content in enumerate(contents)
        ]

    return change


def _long_token(value: dict[str, Any]) -> None:
    """Cutting it at each of its bytes would take hours."""
    value["model"]["vocab"]["a" * 3_000_000] = 512


def _long_tokens(value: dict[str, Any]) -> None:
    value["model"]["vocab"] |= {"a" * 1000 + f"{it}": 512 + it for it in range(5000)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_long_token, "a token of 3000000 bytes|its tokens have 3"),
        (_long_tokens, "its tokens have 5.* bytes in all"),
        (_added(5), "the content of an added token is no string"),
        (_added("a" * 3_000_000), "its added tokens have 3.* characters in all"),
        (
            _added(*(f"{it:a>1000}" for it in range(245))),
            "added tokens are too long for the engine",
        ),
    ],
)
def test_what_the_engine_or_the_check_would_choke_on_is_refused(
    content: dict[str, Any], tmp_path: Path, change: Any, said: str
) -> None:
    changed = copy.deepcopy(content)
    change(changed)

    with pytest.raises(TokenizerError, match=said):
        load_tokenizer(written(tmp_path, changed)).encode("a")


NONE = ["", "[]", "{", '{"model": []}', '{"model": {"type": "BPE"}}', "[" * 10**5]


@pytest.mark.parametrize("text", NONE)
def test_what_is_no_tokenizer_json_is_a_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        load_tokenizer(written(tmp_path, text))


def test_whatever_is_missing_or_wrong_is_a_sentence(
    content: dict[str, Any], tmp_path: Path
) -> None:
    random_ = random.Random(3)

    for _ in range(60):
        changed = copy.deepcopy(content)
        _spoil(changed, random_)
        path = written(tmp_path, changed)
        try:
            tokenizer = load_tokenizer(path)
        except TokenizerError as error:
            assert str(path) in str(error)  # noqa: PT017 - most of them are refused, not all
        else:
            assert tokenizer.decode(tokenizer.encode("naïve 🙂")) == "naïve 🙂"


def _spoil(value: Any, random_: random.Random) -> None:
    """Replace or remove something, somewhere."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = random_.choice(keys)
        if not (isinstance(value[key], dict | list) and value[key]) or random_.random() < 0.3:
            break
        value = value[key]
    if random_.random() < 0.4:
        del value[key]
    else:
        value[key] = random_.choice([None, -1, 10**12, "x", [], {}, [1], {"a": 1}, True, 1.5])


def test_a_folder_s_own_tokenizer_goes_before_its_parent_s(
    path: Path, tmp_path: Path, rank_file: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "tokenizer.model").write_bytes(rank_file.read_bytes())
    (folder / "tokenizer.json").write_bytes(path.read_bytes())

    assert find_tokenizer(folder) == folder / "tokenizer.json"


def test_a_tokenizer_json_that_does_not_load_says_why(
    content: dict[str, Any], tmp_path: Path
) -> None:
    changed = copy.deepcopy(content)
    _bpe_of_llama_2(changed)
    written(tmp_path, changed)

    with pytest.raises(TokenizerError, match="expected the byte-level BPE of Llama 3 or later"):
        load_tokenizer(tmp_path)
