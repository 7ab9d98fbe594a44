"""What a fine-tune adds around its weights goes through every conversion."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before the import below, which reads it

import pytest
import transformers

from llamakit import load_tokenizer
from llamakit.api import export, import_checkpoint, open_checkpoint, reshard
from llamakit.checkpoint.generation_config import stop_tokens
from llamakit.convert.source_files import license_files
from llamakit.llama.loading import load_tokenizer as load_for
from llamakit.plugin_manager.factories import build
from llamakit.plugin_manager.toolkit import default_toolkit

PIECES = 576
"""Of the reference cases' tokenizer; the vocabulary has more rows."""
TAGS = {"<|im_start|>": PIECES, "<|im_end|>": PIECES + 1}
TEMPLATE = "{% for it in messages %}<|im_start|>{{ it.content }}<|im_end|>{% endfor %}"
DIALOG: Any = [{"role": "user", "content": "What is a shard?"}]
FLAGS = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False) | {"special": True}
ADDED = {
    "tokenizer_config.json": {
        "added_tokens_decoder": {str(it): {"content": name, **FLAGS} for name, it in TAGS.items()},
        "chat_template": TEMPLATE,
    },
    "added_tokens.json": TAGS,
    "tokenizer.json": {"added_tokens": [{"id": it, "content": name} for name, it in TAGS.items()]},
}


def chatml(folder: Path) -> list[int]:
    chat: Any = build(default_toolkit().prompt_formats.entry("chatml"), {}, load_tokenizer(folder))
    tokens: list[int] = chat.encode(DIALOG)
    return tokens


@pytest.fixture
def model(make_meta: Any, reference_cases: Path, tmp_path: Path) -> Path:
    """A Llama 2 in Meta's format, with rows for more tokens than its tokenizer.model has."""
    params = {"dim": 16, "n_layers": 1, "n_heads": 2, "vocab_size": 640, "multiple_of": 16}
    folder: Path = make_meta(tmp_path / "models" / "tuned", params | {"norm_eps": 1e-5}, 1)
    shutil.copy(reference_cases / "tokenizer.model", folder)
    return folder


@pytest.mark.parametrize("name", ADDED)
def test_added_tokens_are_read_from_any_file_that_lists_them(model: Path, name: str) -> None:
    plain = chatml(model)

    (model / name).write_text(json.dumps(ADDED[name]))

    assert TAGS.items() <= load_tokenizer(model).special_ids().items()  # type: ignore[attr-defined]
    assert chatml(model)[1] == PIECES
    assert len(chatml(model)) < len(plain)


@pytest.fixture
def tuned(model: Path) -> Path:
    """The model with the files of a fine-tune."""
    for name in ("tokenizer_config.json", "added_tokens.json"):
        (model / name).write_text(json.dumps(ADDED[name]))
    generation = {"eos_token_id": [2, PIECES + 1], "temperature": 0.1}
    (model / "generation_config.json").write_text(json.dumps(generation))
    (model / "LICENSE").write_text("a license")
    (model / "USE_POLICY.md").write_text("a policy")
    return model


def conversions(source: Path, to: Path) -> list[Path]:
    """Convert in every way, one after the other."""
    reshard(source, to / "resharded", 2)
    export(to / "resharded", to / "hf")
    import_checkpoint(to / "hf", to / "imported")
    export(to / "imported", to / "safetensors", "safetensors")
    export(to / "imported", to / "again")
    return [to / it for it in ("resharded", "hf", "imported", "safetensors", "again")]


def test_every_conversion_keeps_tokens_templates_stop_tokens_and_the_license(
    tuned: Path, tmp_path: Path
) -> None:
    question = chatml(tuned)

    for folder in conversions(tuned, tmp_path):
        checkpoint = open_checkpoint(folder)
        assert chatml(folder) == question
        assert stop_tokens(load_for(checkpoint), checkpoint) == {2, PIECES + 1}
        config = json.loads((folder / "tokenizer_config.json").read_text())
        assert config["chat_template"] == TEMPLATE
        for name in ("generation_config.json", "added_tokens.json", "LICENSE", "USE_POLICY.md"):
            assert (folder / name).read_bytes() == (tuned / name).read_bytes()


def test_transformers_knows_the_added_tokens_of_an_exported_fine_tune(
    tuned: Path, tmp_path: Path
) -> None:
    export(tuned, tmp_path / "hf")

    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")

    tokens = tokenizer.apply_chat_template(DIALOG)["input_ids"]
    assert (tokens[0], tokens[-1]) == (PIECES, PIECES + 1)
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["eos_token_id"] == [2, 577]


def test_stop_tokens_that_only_config_json_lists_are_kept(model: Path, tmp_path: Path) -> None:
    export(model, tmp_path / "hf")
    (tmp_path / "hf" / "generation_config.json").unlink()
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config | {"eos_token_id": [2, 5]}))

    import_checkpoint(tmp_path / "hf", tmp_path / "meta")

    checkpoint = open_checkpoint(tmp_path / "meta")
    assert stop_tokens(load_for(checkpoint), checkpoint) == {2, 5}


def test_templates_that_are_not_copied_are_named(
    tuned: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tuned / "additional_chat_templates").mkdir()

    reshard(tuned, tmp_path / "out", 2)

    assert f"{tuned / 'additional_chat_templates'} is not copied" in caplog.text


def test_the_license_is_found_where_downloads_have_it(model: Path, tmp_path: Path) -> None:
    (model.parent / "LICENSE").write_text("of somebody else")
    export(model, tmp_path / "without")
    shutil.move(model / "tokenizer.model", model.parent)  # Meta's layout of Llama 2

    export(model, tmp_path / "with")

    assert not (tmp_path / "without" / "LICENSE").exists()
    assert (tmp_path / "with" / "LICENSE").read_text() == "of somebody else"


@pytest.fixture
def tuned_llama3(make_meta: Any, reference_cases_llama3: Path, tmp_path: Path) -> Path:
    """A Hugging Face folder of a Llama 3 with one token renamed and two added."""
    params = {"dim": 16, "n_layers": 1, "n_heads": 2, "vocab_size": 1282, "multiple_of": 16}
    params |= {"norm_eps": 1e-5, "rope_theta": 500000.0, "use_scaled_rope": True}
    source = make_meta(tmp_path / "plain", params, 1, axis=0)
    export(source, tmp_path / "hf", tokenizer=reference_cases_llama3 / "tokenizer.model")
    path = tmp_path / "hf" / "tokenizer.json"
    value = json.loads(path.read_text())
    added = value["added_tokens"]
    added[2]["content"] = "<|im_start|>"
    added.append({**added[0], "id": 1280, "content": "<|im_end|>"})
    added.append({**added[0], "id": 1281, "content": "<think>", "special": False})
    path.write_text(json.dumps(value))
    (tmp_path / "hf" / "tokenizer_config.json").unlink()
    return tmp_path / "hf"


def test_what_metas_rank_file_cannot_hold_is_named_and_next_to_it(
    tuned_llama3: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = load_for(open_checkpoint(tuned_llama3))

    import_checkpoint(tuned_llama3, tmp_path / "meta")

    assert "cannot hold the added tokens <|im_start|>, <|im_end|>, <think>" in caplog.text
    after = load_for(open_checkpoint(tmp_path / "meta"))
    assert after.path.name == "tokenizer.model"
    assert after.special_ids() == before.special_ids()  # type: ignore[attr-defined]
    assert after.encode("a<think>b<|im_end|>") == before.encode("a<think>b<|im_end|>")


def test_a_tokenizer_json_that_no_tokenizer_model_can_be_made_of_says_why(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    export(model, tmp_path / "hf")
    (tmp_path / "hf" / "tokenizer.model").unlink()

    import_checkpoint(tmp_path / "hf", tmp_path / "meta")

    assert "none can be made of what is there" in caplog.text
    assert not (tmp_path / "meta" / "tokenizer.model").exists()
    assert (tmp_path / "meta" / "tokenizer.json").exists()


def test_a_checkpoint_that_is_a_file_has_no_license_in_it(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    path.touch()

    assert license_files(path, None) == []
