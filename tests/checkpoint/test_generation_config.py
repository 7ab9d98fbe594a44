"""Which tokens end an answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llamakit import open_checkpoint
from llamakit.checkpoint.generation_config import stop_tokens
from llamakit.errors import ParamsError
from llamakit.protocols import Checkpoint
from llamakit.testing import embedded_tokenizer, write_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return open_checkpoint(write_checkpoint(tmp_path / "model"))


def test_the_end_of_sequence_ends_an_answer(checkpoint: Checkpoint) -> None:
    assert stop_tokens(embedded_tokenizer(), checkpoint) == {embedded_tokenizer().eos_id}


@pytest.mark.parametrize(("listed", "expected"), [([2, 7, 9], {2, 7, 9}), (7, {2, 7}), (None, {2})])
def test_the_folder_of_a_fine_tune_lists_more(
    checkpoint: Checkpoint, listed: object, expected: set[int]
) -> None:
    config = checkpoint.path / "generation_config.json"
    config.write_text(json.dumps({"eos_token_id": listed}))

    assert stop_tokens(embedded_tokenizer(), checkpoint) == expected


def test_generation_config_goes_before_config(checkpoint: Checkpoint) -> None:
    (checkpoint.path / "config.json").write_text('{"eos_token_id": [5]}')
    without = stop_tokens(embedded_tokenizer(), checkpoint)

    (checkpoint.path / "generation_config.json").write_text('{"eos_token_id": [6]}')

    assert (without, stop_tokens(embedded_tokenizer(), checkpoint)) == ({2, 5}, {2, 6})


@pytest.mark.parametrize("wrong", ["</s>", [1, 10**6], -1, [True], {"a": 1}, 1.5])
def test_what_is_no_token_is_refused(checkpoint: Checkpoint, wrong: object) -> None:
    config = checkpoint.path / "generation_config.json"
    config.write_text(json.dumps({"eos_token_id": wrong}))

    with pytest.raises(ParamsError, match=r"generation_config\.json: its eos_token_id has"):
        stop_tokens(embedded_tokenizer(), checkpoint)
