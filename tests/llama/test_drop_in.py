"""What Meta's packages have is here under their names: docs/reference/drop-in.md, row by row."""

from __future__ import annotations

import copy
import inspect
import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

import llamakit
import llamakit.llama
from llamakit import ChatFormat, Llama, ModelArgs, Tokenizer, Transformer
from llamakit.errors import TokenizerError, UnsupportedModelError, UsageError
from llamakit.llama_models import datatypes
from llamakit.llama_models.datatypes import RawMessage, RawTextItem, StopReason, ToolCall
from llamakit.llama_models.llama3.generation import Llama3
from llamakit.llama_models.llama3.tokenizer import Tokenizer as LaterTokenizer

DATA = Path(__file__).parents[1] / "data"
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "drop-in.md"
ROWS = re.findall(r"^\| `(llama[\w.]*)` \| (yes|no)", PAGE.read_text("utf-8"), re.MULTILINE)
SAMPLING = ["temperature", "top_p", "max_gen_len", "logprobs"]
SIGNATURES = {
    "llama.Llama.build": ["ckpt_dir", "tokenizer_path", "max_seq_len", "max_batch_size"]
    + ["model_parallel_size", "seed"],
    "llama.Llama.generate": ["prompt_tokens", "max_gen_len", "temperature", "top_p", "logprobs"]
    + ["echo", "stop_token"],
    "llama.Llama.text_completion": ["prompts", *SAMPLING, "echo"],
    "llama.Llama.text_infilling": ["prefixes", "suffixes", *SAMPLING, "suffix_first"],
    "llama.Llama.chat_completion": ["dialogs", *SAMPLING],
    "llama.Transformer.forward": ["tokens", "start_pos"],
    "llama.tokenizer.ChatFormat.encode_header": ["message"],
    "llama.tokenizer.ChatFormat.encode_message": ["message"],
    "llama.tokenizer.ChatFormat.encode_dialog_prompt": ["dialog"],
    "llama_models.llama3.generation.Llama3.build": ["ckpt_dir", "max_seq_len", "max_batch_size"]
    + ["world_size", "quantization_mode", "seed", "device"],
    "llama_models.llama3.generation.Llama3.generate": ["model_inputs", *SAMPLING, "echo"]
    + ["print_model_input", "logits_processor"],
    "llama_models.llama3.generation.Llama3.chat_completion": ["messages_batch", *SAMPLING]
    + ["tool_prompt_format", "echo"],
    "llama_models.llama3.generation.Llama3.completion": ["contents", *SAMPLING, "echo"],
    "llama_models.llama3.chat_format.ChatFormat.encode_message": ["message", "tool_prompt_format"],
    "llama_models.llama3.chat_format.ChatFormat.encode_dialog_prompt": ["messages"]
    + ["tool_prompt_format"],
    "llama_models.llama3.chat_format.ChatFormat.decode_assistant_message": ["tokens"]
    + ["stop_reason"],
}
"""What the reference's functions take, in its order."""


@pytest.fixture(scope="module")
def llama() -> Iterator[Llama]:
    cases = DATA / "reference-cases"
    build = (str(cases / "gqa-mp1"), str(cases / "tokenizer.model"), 128, 4)
    with Llama.build(*build, dtype="float32") as llama:
        yield llama


@pytest.fixture(scope="module")
def llama3() -> Iterator[Llama3]:
    cases = DATA / "reference-cases-llama3"
    built = Llama3.build(cases / "llama31-mp8", 512, 4, dtype="float32")
    with built.llama:
        yield built


def imported(dotted: str) -> list[object]:
    """Import what a name of the reference is here, and return it after what it is part of."""
    names = f"llamakit.{dotted}".split(".")
    depth = len(names)
    while True:
        try:
            values: list[object] = [import_module(".".join(names[:depth]))]
            break
        except ModuleNotFoundError:
            depth -= 1
    for name in names[depth:]:
        values.append(getattr(values[-1], name))
    return values


@pytest.mark.parametrize(("name", "here"), ROWS)
def test_each_row_of_the_table_is_true(name: str, here: str, llama: Llama, llama3: Llama3) -> None:
    later = name.startswith("llama_models") or "special_tokens" in name
    owner, _, attribute = name.rpartition(".")
    objects: dict[str, object] = {
        "Llama": llama,
        "Tokenizer": llama3.tokenizer if later else llama.tokenizer,
        "Transformer": llama.model,
        "ChatFormat": llama3.formatter if later else ChatFormat(llama3.tokenizer),
        "Llama3": llama3,
    }

    if (cls := owner.rpartition(".")[2]) in objects:
        assert isinstance(objects[cls], imported(owner)[-1])  # type: ignore[arg-type]
        assert hasattr(objects[cls], attribute) == (here == "yes")
    elif here == "yes":
        assert imported(name)
    else:
        with pytest.raises(AttributeError):
            imported(name)


@pytest.mark.parametrize("name", SIGNATURES)
def test_arguments_have_the_reference_s_names_and_order(name: str) -> None:
    *_, function = imported(name)

    parameters = inspect.signature(function).parameters  # type: ignore[arg-type]

    by_position = [
        it.name for it in parameters.values()
        if it.kind is it.POSITIONAL_OR_KEYWORD and it.name != "self"
    ]  # fmt: skip
    assert by_position == SIGNATURES[name]


@pytest.mark.parametrize("name", llamakit.llama.__all__)
def test_both_ways_to_import_give_the_same(name: str) -> None:
    assert getattr(llamakit, name) is getattr(llamakit.llama, name)


def test_encode_takes_the_reference_s_arguments(llama: Llama) -> None:
    tokenizer = llama.tokenizer
    plain = tokenizer.encode("hello")

    assert tokenizer.encode("hello", True, False) == [1, *plain]
    assert tokenizer.encode(s="hello", bos=True, eos=True) == [1, *plain, 2]
    assert tokenizer.encode(text="hello", bos=False, eos=False) == plain
    assert tokenizer.decode(t=[1, *plain, -1]) == tokenizer.decode(plain) == "hello"
    assert tokenizer.n_words == tokenizer.vocab_size == llama.model.vocab_size
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, -1)
    assert tokenizer.sp_model.vocab_size() == tokenizer.n_words
    assert tokenizer.eot_id is tokenizer.step_id is None
    for arguments in ({}, {"text": "a", "s": "a"}):
        with pytest.raises(TypeError, match="give text, once"):
            tokenizer.encode(**arguments)
    with pytest.raises(TypeError, match="text is a list; expected a str"):
        tokenizer.encode(["hello"], True, False)


def test_a_tokenizer_is_made_from_a_file_by_either_type_of_path() -> None:
    file = DATA / "reference-cases" / "tokenizer.model"

    tokenizers = [Tokenizer(str(file)), Tokenizer(model_path=file), llamakit.load_tokenizer(file)]

    assert {type(it) for it in tokenizers} == {Tokenizer}
    assert {tuple(it.encode("a b", True, True)) for it in tokenizers} == {
        tuple(copy.copy(tokenizers[0]).encode("a b", True, True))
    }
    with pytest.raises(TokenizerError, match="no such tokenizer file: nowhere"):
        Tokenizer("nowhere.model")


def test_text_becomes_special_tokens_where_it_may(llama3: Llama3) -> None:
    tokenizer = llama3.tokenizer
    text = "a<|eot_id|>b<|eom_id|>"
    a, b = tokenizer.encode("a"), tokenizer.encode("b")

    assert not {tokenizer.eot_id, tokenizer.eom_id} & {*tokenizer.encode(text, True, False)}
    every = tokenizer.encode(text, allowed_special="all")
    one = tokenizer.encode(text, allowed_special={"<|eot_id|>"})
    assert every == [*a, tokenizer.eot_id, *b, tokenizer.eom_id]
    assert one[: len(a) + 1] == [*a, tokenizer.eot_id]
    assert tokenizer.eom_id not in one
    with pytest.raises(ValueError, match=r"holds <\|e"):
        tokenizer.encode(text, disallowed_special="all")
    with pytest.raises(UsageError, match="'some' is no set of special tokens"):
        tokenizer.encode(text, allowed_special="some")


def test_the_model_gives_the_reference_s_logits(llama: Llama) -> None:
    expected = json.loads((DATA / "reference-cases" / "gqa-mp1.expected.json").read_text())
    tokens = torch.tensor([expected["prompt_tokens"][1]])

    whole = llama.model.forward(tokens, 0)
    parts = [llama.model(tokens[:, :5], 0), llama.model(tokens=tokens[:, 5:], start_pos=5)]

    last = torch.tensor(expected["logits_prompt1"])
    assert whole.shape == (1, tokens.shape[1], llama.tokenizer.n_words)
    assert torch.allclose(whole[0, -1], last[-1], atol=1e-3)
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-4)
    with pytest.raises(UsageError, match="1 rows up to position 129"):
        llama.model(tokens[:, :1], 128)


def test_the_model_has_its_numbers_and_its_parameters(llama: Llama) -> None:
    params = llama.model.params

    assert isinstance(params, ModelArgs)
    assert (params.dim, params.n_kv_heads, params.multiple_of) == (64, 2, 32)
    assert (params.max_seq_len, params.max_batch_size) == (128, 4)
    assert sum(it.numel() for it in llama.model.parameters()) > 64 * params.vocab_size
    with pytest.raises(UsageError, match=r"Llama\.build\(\.\.\.\)\.model is one"):
        Transformer(ModelArgs(dim=64))


def test_llama3_s_chat_format_is_the_reference_s() -> None:
    cases = DATA / "reference-cases-llama3"
    formatter = ChatFormat(Tokenizer(cases / "tokenizer.model"))
    special, encode = formatter.tokenizer.special_tokens, formatter.tokenizer.encode
    start, stop = special["<|start_header_id|>"], special["<|end_header_id|>"]

    tokens = formatter.encode_dialog_prompt([{"role": "user", "content": " hello "}])

    user = [start, *encode("user"), stop, *encode("\n\n"), *encode("hello"), special["<|eot_id|>"]]
    assistant = [start, *encode("assistant"), stop, *encode("\n\n")]
    assert tokens == [special["<|begin_of_text|>"], *user, *assistant]


def test_generate_ends_at_a_token_of_the_caller(llama: Llama) -> None:
    prompt = llama.tokenizer.encode("I believe", True, False)
    (tokens,), _ = llama.generate([prompt], 6, 0.0)

    (cut,), _ = llama.generate([prompt], 6, 0.0, 0.9, False, False, tokens[2])

    assert cut == tokens[:2]


def test_gaps_without_the_tokens_for_them_are_refused(llama: Llama) -> None:
    assert llama.text_infilling([], []) == []
    with pytest.raises(TokenizerError, match="no piece ▁<PRE>"):
        llama.text_infilling(["def f("], ["): pass"])


def hello() -> list[RawMessage]:
    return [RawMessage(role="user", content="hello")]


def test_llama_models_answers_a_batch_token_by_token(llama3: Llama3) -> None:
    prompts = [hello(), [RawMessage("user", [RawTextItem("hello"), " you"], context="x")]]

    steps = list(llama3.chat_completion(prompts, temperature=0, max_gen_len=5, logprobs=True))

    assert [[it.batch_idx for it in step] for step in steps] == [[0, 1]] * len(steps)
    streamed = [
        "".join(step[row].text for step in steps if not step[row].ignore_token) for row in (0, 1)
    ]
    dialogs: Any = [[it.as_message() for it in prompt] for prompt in prompts]
    answers = llama3.llama.chat_completion(dialogs, temperature=0, max_gen_len=5)
    assert streamed == [it["generation"]["content"] for it in answers]
    assert all(len(result.logprobs or ()) == 1 for result in steps[0])


def test_llama_models_names_the_token_at_an_end(llama3: Llama3, monkeypatch: Any):
    steps = list(llama3.completion(["a", "b b"], temperature=0, max_gen_len=6))
    first = steps[2][0].token  # as if it were one that ends an answer
    monkeypatch.setattr(llama3.llama, "stop_tokens", frozenset({first}))

    again = list(llama3.completion(["a", "b b"], temperature=0, max_gen_len=6))

    assert [step[0].finished for step in again[:4]] == [False, False, True, True]
    assert [step[0].ignore_token for step in again[:4]] == [False, False, False, True]
    assert [step[1].token for step in again] == [step[1].token for step in steps]


def test_llama_models_echoes_prompts_and_shows_them(llama3: Llama3, capsys: Any) -> None:
    prompt = llama3.formatter.encode_content("ab c")

    steps = list(llama3.generate([prompt], 0, max_gen_len=1, echo=True, print_model_input=True))

    assert [step[0].token for step in steps[:-1]] == prompt.tokens
    assert {step[0].source for step in steps[:-1]} == {"input"}
    assert steps[-1][0].source == "output"
    assert "<|begin_of_text|>ab c" in capsys.readouterr().err


def test_llama_models_reads_and_writes_tool_calls(llama3: Llama3) -> None:
    formatter = llama3.formatter
    call = ToolCall("1", "f", {"city": "Paris"})
    message = RawMessage("assistant", "", None, StopReason.end_of_message, [call])

    tokens, images = formatter.encode_message(message, datatypes.ToolPromptFormat.json)
    at = tokens.index(formatter.tokenizer.special_tokens["<|end_header_id|>"]) + 2
    read = formatter.decode_assistant_message(tokens[at:], StopReason.end_of_turn)

    assert images == []
    assert tokens[-1] == formatter.tokenizer.eom_id
    assert read.stop_reason is StopReason.end_of_message
    assert [(it.tool_name, it.arguments) for it in read.tool_calls] == [("f", {"city": "Paris"})]
    assert read.content == ""


def test_llama_models_has_the_tokenizer_of_the_environment(monkeypatch: Any) -> None:
    folder = DATA / "reference-cases-llama3" / "llama31-mp8"

    monkeypatch.setenv("LLAMAKIT_MODEL", str(folder))
    tokenizer = LaterTokenizer.get_instance()
    monkeypatch.delenv("LLAMAKIT_MODEL")

    assert tokenizer.pad_id == tokenizer.special_tokens["<|finetune_right_pad_id|>"]
    with pytest.raises(TokenizerError, match="set it to a model's folder"):
        LaterTokenizer.get_instance()


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda it: it.generate([], logits_processor=print), UsageError, "register it as a plugin"),
        (lambda it: it.completion(["a"] * 5), UsageError, "5 prompts at the same time"),
        (lambda it: it.completion([object()]), UnsupportedModelError, "not a object"),
        (
            lambda it: it.completion([[{"type": "image"}]]),
            UnsupportedModelError,
            "a list of texts, not a dict",
        ),
    ],
)
def test_what_llama_models_has_more_is_refused(llama3, call, error, sentence):
    with pytest.raises(error, match=sentence):
        list(call(llama3))


def test_quantization_files_are_refused() -> None:
    with pytest.raises(UsageError, match="quantization_mode='int4_mixed' reads files"):
        Llama3.build("nowhere", quantization_mode=datatypes.QuantizationMode.int4_mixed)
