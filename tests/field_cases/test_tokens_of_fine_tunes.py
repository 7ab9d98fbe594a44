"""What a fine-tune adds to its tokenizer and its stop tokens goes along and has its effect.

The whole of it is in ``tests/convert/test_fine_tunes.py``.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llamakit import Llama, load_tokenizer
from llamakit.api import export, import_checkpoint, open_checkpoint, reshard
from llamakit.checkpoint.generation_config import stop_tokens

PIECES = 576
TAGS = {"<|im_start|>": PIECES - 2, "<|im_end|>": PIECES - 1}


@pytest.fixture
def tuned(meta: Path) -> Path:
    """A checkpoint whose last two tokens are those of a chat."""
    added = {str(token): {"content": name, "special": True} for name, token in TAGS.items()}
    config = {"added_tokens_decoder": added, "chat_template": "{{ messages[0].content }}"}
    (meta / "tokenizer_config.json").write_text(json.dumps(config))
    return meta


def test_case_04_added_tokens_and_the_template_go_along(tuned: Path, tmp_path: Path) -> None:
    reshard(tuned, tmp_path / "two", 2)
    export(tmp_path / "two", tmp_path / "hf")
    import_checkpoint(tmp_path / "hf", tmp_path / "back")

    original = (tuned / "tokenizer_config.json").read_text()
    assert (tmp_path / "two" / "tokenizer_config.json").read_text() == original
    for folder in ("hf", "back"):
        config = json.loads((tmp_path / folder / "tokenizer_config.json").read_text())
        assert config["chat_template"] == "{{ messages[0].content }}"


@pytest.mark.parametrize("listed", [[2, 98], [98], 98])
def test_case_05_an_answer_stops_at_each_token_that_is_listed(hf: Path, listed: object) -> None:
    (hf / "generation_config.json").write_text(json.dumps({"eos_token_id": listed}))

    assert {2, 98} <= stop_tokens(load_tokenizer(hf), open_checkpoint(hf))


def test_case_05_the_answer_ends_there(hf: Path) -> None:
    prompt = [1, 300, 301, 302, 303]
    with Llama.open(hf) as llama:
        (chunk, *_) = llama.generate([prompt], max_gen_len=3, temperature=0)[0]
    (hf / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, chunk[1]]}))

    with Llama.open(hf) as llama:
        tokens, _ = llama.generate([prompt], max_gen_len=3, temperature=0)

    assert tokens == [chunk[:1]]
