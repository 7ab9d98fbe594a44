"""Llama 3's tokenizer as Hugging Face's files, against the hub's and against our own tokens."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before the import below, which reads it

import pytest
import transformers

from llamakit import load_tokenizer
from llamakit.api import export, import_checkpoint, open_checkpoint, reshard
from llamakit.plugin_manager.factories import build
from llamakit.plugin_manager.toolkit import default_toolkit

SHARED = Path(__file__).parents[3] / "shared" / "reference-cases-llama3"
RANKS = Path(__file__).parents[1] / "data" / "llama3" / "tokenizer.model"
META = SHARED / "meta-tokenizer" / "tokenizer.model"
HUB = {
    "tokenizer.json": "79e3e522635f3171300913bb421464a87de6222182a0570b9b2ccba2a964b2b4",
    "special_tokens_map.json": "6f38c73729248f6c127296386e3cdde96e254636cc58b4169d3fd32328d9a8ec",
}
"""The sha256 of the hub's files for Llama 3.1 8B Instruct."""
SHAPE = {"dim": 8, "n_layers": 1, "n_heads": 2, "multiple_of": 8, "norm_eps": 1e-5}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Le temps qu'il fait à un endroit",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
QUESTION = {"role": "user", "content": "How is the weather?"}


def called(name: str, **arguments: Any) -> list[dict[str, Any]]:
    """Return a dialog in which a tool is called."""
    calls = [{"name": name, "arguments": arguments}]
    call = {"role": "assistant", "content": "", "tool_calls": calls, "ends": "eom"}
    return [QUESTION, call, {"role": "tool", "content": "21"}]


DIALOGS = [
    [QUESTION],
    [{"role": "system", "content": " Be brief. "}, QUESTION],
    [QUESTION, {"role": "assistant", "content": "Fine.\n"}, {"role": "user", "content": "  Why? "}],
    called("get_weather", city="Orléans", days=2, units=["C", None], at={"hour": 1.5, "pm": True}),
    called("brave_search", query="weather of today"),
    called("code_interpreter", code="print(1)"),
]


@pytest.fixture(scope="session")
def meta_s(make_meta: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported checkpoint of Llama 3.1 with Meta's own tokenizer."""
    if not META.is_file():
        pytest.skip("Meta's tokenizer is not there: it has a license of its own")
    folder = tmp_path_factory.mktemp("models")
    params = {**SHAPE, "vocab_size": 128256, "rope_theta": 500000.0, "use_scaled_rope": True}
    source = make_meta(folder / "Llama3.1-Tiny-Instruct", params, 1, axis=0)
    export(source, folder / "hf", tokenizer=META)
    return folder / "hf"


def test_the_files_are_the_hub_s_byte_for_byte(meta_s: Path) -> None:
    assert (meta_s / "tokenizer.json").stat().st_size == 9_085_657
    for name, sha256 in HUB.items():
        assert hashlib.sha256((meta_s / name).read_bytes()).hexdigest() == sha256
    assert not (meta_s / "tokenizer.model").exists()  # other programs take it for SentencePiece


def test_auto_tokenizer_gives_metas_tokens(meta_s: Path) -> None:
    expected = json.loads((SHARED / "llama3-tokenizer.expected.json").read_text())
    tokenizer = transformers.AutoTokenizer.from_pretrained(meta_s)
    plain = [it for it in expected["texts"] if "<|" not in it["text"]]

    assert len(plain) > len(expected["texts"]) / 2
    for it in plain:
        assert tokenizer.encode(it["text"], add_special_tokens=False) == it["ids"]
        assert tokenizer.decode(it["ids"]) == it["text"]
    for it in expected["dialogs"]:
        if "<|" not in json.dumps(it["messages"]):
            rendered = tokenizer.apply_chat_template(it["messages"], add_generation_prompt=True)
            assert rendered["input_ids"] == it["ids"]


def test_import_gives_metas_own_file(meta_s: Path, tmp_path: Path) -> None:
    import_checkpoint(meta_s, tmp_path / "back")

    assert (tmp_path / "back" / "tokenizer.model").read_bytes() == META.read_bytes()


@pytest.fixture(scope="module", params=["3.0", "3.1", "4"])
def version(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def source(version: str, make_meta: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An instruct model of a version, with our own small rank file."""
    ranks = RANKS.read_bytes().count(b"\n")
    vocab = ranks + (2048 if version == "4" else 256)
    params = {**SHAPE, "vocab_size": vocab, "rope_theta": 500000.0}
    folder = tmp_path_factory.mktemp(version) / f"Llama-{version}-Tiny-Instruct"
    make_meta(folder, params | {"use_scaled_rope": version != "3.0"}, 1, axis=0)
    (folder / "tokenizer.model").write_bytes(RANKS.read_bytes())
    return folder


@pytest.fixture(scope="module")
def exported(source: Path) -> Path:
    export(source, source.parent / "hf")
    return source.parent / "hf"


@pytest.mark.parametrize("tools", [None, TOOLS], ids=["without tools", "with tools"])
def test_the_chat_template_gives_the_tokens_of_our_prompt_format(
    source: Path, exported: Path, tools: Any
) -> None:
    ours = load_tokenizer(source)
    name = ours.prompt_format  # type: ignore[attr-defined]
    chat: Any = build(default_toolkit().prompt_formats.entry(name), {}, ours)
    chat = chat.with_tools(tools) if tools else chat
    theirs = transformers.AutoTokenizer.from_pretrained(exported)

    for dialog in DIALOGS:
        rendered = theirs.apply_chat_template(dialog, tools=tools, add_generation_prompt=True)
        assert rendered["input_ids"] == chat.encode(dialog)


def test_openai_s_spelling_of_calls_is_understood(exported: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    (question, call, answer), (inner,) = DIALOGS[3], DIALOGS[3][1]["tool_calls"]
    nested = {**call, "tool_calls": [{"type": "function", "function": inner}]}

    rendered, expected = (
        tokenizer.apply_chat_template([question, it, answer], tokenize=False)
        for it in (nested, call)
    )

    assert rendered == expected


def test_a_string_begins_with_the_token_for_that(exported: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)

    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("a"))[0] == "<|begin_of_text|>"


def test_the_chat_template_names_the_tokens_of_the_version(exported: Path, version: str) -> None:
    header = "'<|header_start|>', '<|header_end|>'"
    names = {
        "3.0": "'<|reserved_special_token_4|>', '<|reserved_special_token_5|>'",
        "3.1": "'<|eom_id|>', '<|python_tag|>'",
        "4": f"{header}, '<|eot|>', '<|eom|>', '<|python_start|>'",
    }

    config = json.loads((exported / "tokenizer_config.json").read_text("utf-8"))
    first = config["chat_template"].splitlines()[0]

    assert f"{names[version]} %}}" in first


def test_special_tokens_have_the_names_of_the_version(exported: Path, version: str) -> None:
    names = {
        "3.0": ("<|reserved_special_token_2|>", "<|reserved_special_token_4|>", "<|eot_id|>"),
        "3.1": ("<|finetune_right_pad_id|>", "<|eom_id|>", "<|eot_id|>"),
        "4": ("<|fim_suffix|>", "<|eot|>", "<|step|>"),
    }

    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)

    first = tokenizer.bos_token_id
    assert (
        tuple(tokenizer.convert_ids_to_tokens([first + it for it in (4, 8, 9)])) == names[version]
    )


@pytest.mark.parametrize(
    ("folder", "flag", "is_instruct"),
    [
        ("Llama3.1-8B-Instruct", None, True),
        ("8b_instruction_tuned", None, True),
        ("Llama3.1-8B", None, False),
        ("Llama3.1-8B", True, True),
        ("Llama3.1-8B-Instruct", False, False),
        ("Meta-Llama-3-8B-Instruct/original", None, True),
        ("Llama-3.1-405B-Instruct/original/mp8", None, True),
        ("chatty/model", None, False),
    ],
)
def test_base_or_instruct_is_the_flag_or_else_the_folder_s_name(
    make_meta: Any, tmp_path: Path, folder: str, flag: Any, is_instruct: bool
) -> None:
    params = {**SHAPE, "vocab_size": 512 + 256, "rope_theta": 500000.0, "use_scaled_rope": True}
    path = make_meta(tmp_path / folder, params, 1, axis=0)
    first = RANKS.read_bytes().count(b"\n")

    report = export(path, tmp_path / "hf", tokenizer=RANKS, instruct=flag)

    config = json.loads((tmp_path / "hf" / "tokenizer_config.json").read_text())
    generation = json.loads((tmp_path / "hf" / "generation_config.json").read_text())
    stops = [first + 1, first + 8, first + 9] if is_instruct else first + 1
    assert generation["eos_token_id"] == stops
    assert ("chat_template" in config) is is_instruct
    (note,) = report["notes"]
    assert ("instruct model" if is_instruct else "base model") in note


def test_a_resharded_instruct_model_stays_one(source: Path, tmp_path: Path) -> None:
    reshard(source, tmp_path / "two", 2)
    export(tmp_path / "two", tmp_path / "hf")

    assert "chat_template" in json.loads((tmp_path / "hf" / "tokenizer_config.json").read_text())


def test_a_llama_guard_has_stop_tokens_and_no_template_of_dialogs(
    make_meta: Any, tmp_path: Path
) -> None:
    params = {**SHAPE, "vocab_size": 768, "rope_theta": 500000.0, "use_scaled_rope": True}
    path = make_meta(tmp_path / "Llama-Guard-3-8B", params, 1, axis=0)

    report = export(path, tmp_path / "hf", tokenizer=RANKS)

    assert report["notes"] == [
        "Llama-Guard-3-8B is a Llama Guard, for which no chat template is written"
    ]
    assert len(open_config(tmp_path / "hf")["eos_token_id"]) == 3


def open_config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    assert open_checkpoint(folder)
    return config
