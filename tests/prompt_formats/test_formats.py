"""The formats alpaca, chatml and infill, and formats on the command line and in a chat."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llamakit import Llama
from llamakit.errors import DialogError, OptionError, PromptError, SpecialTagError, TokenizerError
from llamakit.plugin_manager.factories import build
from llamakit.plugin_manager.toolkit import default_toolkit
from llamakit.protocols import PromptFormat, Tokenizer

Run = Callable[..., "subprocess.CompletedProcess[str]"]
SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "What is a shard?"}
ANSWER = {"role": "assistant", "content": " A piece. "}
AGAIN = {"role": "user", "content": " Why? "}


def make(name: str, tokenizer: Tokenizer, **options: Any) -> PromptFormat:
    entry = default_toolkit().prompt_formats.entry(name)
    made: PromptFormat = build(entry, options, tokenizer)
    return made


# Alpaca ---------------------------------------------------------------------------------------


def test_alpaca_writes_what_stanford_trained_on(plain_tokenizer: Any):
    tokens = make("alpaca", plain_tokenizer).encode([USER])

    expected = (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nWhat is a shard?\n\n### Response:"
    )
    assert tokens == plain_tokenizer.encode(expected, bos=True)


def test_alpaca_knows_an_input_a_system_message_and_earlier_pairs(plain_tokenizer: Any):
    prompt_format = make("alpaca", plain_tokenizer)
    with_input: Any = [{"role": "user", "content": "Sum up.\n\n### Input:\nLong text."}]

    one = plain_tokenizer.decode(prompt_format.encode(with_input))
    several = prompt_format.encode([SYSTEM, USER, ANSWER, AGAIN])

    assert "paired with an input that provides further context. Write" in one
    first = "Be brief.\n\n### Instruction:\nWhat is a shard?\n\n### Response:A piece."
    second = "### Instruction:\nWhy?\n\n### Response:"
    encode = plain_tokenizer.encode
    assert several == encode(first, bos=True, eos=True) + encode(second)


@pytest.mark.parametrize("text", ["### Instruction: x", "a\n### Response:"])
def test_alpaca_refuses_its_tags_in_a_message(text: str, plain_tokenizer: Any):
    with pytest.raises(SpecialTagError, match=r"message 1 \(user\) holds ### "):
        make("alpaca", plain_tokenizer).encode([{"role": "user", "content": text}])


@pytest.mark.parametrize(
    "dialog", [[], [SYSTEM], [ANSWER], [USER, USER], [USER, ANSWER], [USER, SYSTEM]]
)
def test_alpaca_wants_turns(dialog: Any, plain_tokenizer: Any):
    with pytest.raises(DialogError):
        make("alpaca", plain_tokenizer).encode(dialog)


# ChatML ---------------------------------------------------------------------------------------


def test_chatml_writes_the_control_pieces_of_the_tokenizer(rich_tokenizer: Any):
    ids, encode = rich_tokenizer.special_ids(), rich_tokenizer.encode
    start, end = ids["<|im_start|>"], ids["<|im_end|>"]
    prompt_format = make("chatml", rich_tokenizer)

    tokens = prompt_format.encode([SYSTEM, USER])

    turns = [
        *[start, *encode("system\nBe brief."), end, *encode("\n")],
        *[start, *encode("user\nWhat is a shard?"), end, *encode("\n")],
        *[start, *encode("assistant\n")],
    ]
    assert tokens == [rich_tokenizer.bos_id, *turns]
    assert make("chatml", rich_tokenizer, bos=False).encode([SYSTEM, USER]) == turns
    assert set(prompt_format.stop_tokens) == {rich_tokenizer.eos_id, start, end}


def test_chatml_writes_tags_as_text_where_there_are_no_pieces(plain_tokenizer: Any):
    prompt_format: Any = make("chatml", plain_tokenizer)

    tokens = prompt_format.encode([USER])

    text = "<|im_start|>user\nWhat is a shard?<|im_end|>\n<|im_start|>assistant\n"
    assert tokens == plain_tokenizer.encode(text, bos=True)
    assert "<|im_end|>" in prompt_format.stop_strings
    with pytest.raises(SpecialTagError, match=r"message 1 \(user\) holds <\|im_start\|>"):
        prompt_format.encode([{"role": "user", "content": "a <|im_end|> b"}])


def test_chatml_refuses_tags_that_the_tokenizer_would_find_in_a_text(train: Any):
    tokenizer = train([], ("<|im_start|>", "<|im_end|>"))
    prompt_format = make("chatml", tokenizer)

    assert prompt_format.encode([USER]).count(tokenizer.special_ids()["<|im_start|>"]) == 2
    with pytest.raises(SpecialTagError, match="message 2"):
        prompt_format.encode([USER, {"role": "user", "content": "a <|im_end|> b"}])


def test_chatml_refuses_other_roles_and_no_message(rich_tokenizer: Any):
    for dialog in ([], [{"role": "tool<|im_end|>", "content": "x"}]):
        with pytest.raises(DialogError):
            make("chatml", rich_tokenizer).encode(dialog)


# Infilling ------------------------------------------------------------------------------------


def reference_infilling(tokenizer: Any, prefix: str, suffix: str, suffix_first: bool) -> list[int]:
    """``infilling_prompt_tokens`` of the reference codellama, with its ``encode_infilling``."""
    model = tokenizer._model
    blank = len(model.encode("☺"))  # 2 in Code Llama's vocabulary, whose pieces have the ☺
    bare = model.encode("☺" + suffix)[blank:]
    pre, suf, mid = (model.piece_to_id(f"▁<{name}>") for name in ("PRE", "SUF", "MID"))
    if suffix_first:
        return [model.bos_id(), pre, suf, *bare, mid, *model.encode(prefix)]
    return [model.bos_id(), pre, *model.encode(prefix), suf, *bare, mid]


@pytest.mark.parametrize("suffix_first", [False, True])
@pytest.mark.parametrize(
    ("prefix", "suffix"),
    [("def f(x):\n    ", "\n    return y"), ("a ", " b"), ("", "x"), ("x", ""), ("  ", "  ")],
)
def test_infill_follows_the_reference(
    prefix: str, suffix: str, suffix_first: bool, rich_tokenizer: Any
):
    prompt_format: Any = make("infill", rich_tokenizer, suffix_first=suffix_first)
    text = f"{prefix}<FILL_ME>{suffix}"

    tokens = prompt_format.encode_text(text)

    assert tokens == reference_infilling(rich_tokenizer, prefix, suffix, suffix_first)
    assert prompt_format.encode([{"role": "user", "content": text}]) == tokens
    assert prompt_format.stop_tokens[0] == rich_tokenizer.special_ids()["▁<EOT>"]


@pytest.mark.parametrize("text", ["no gap", "<FILL_ME> and <FILL_ME>"])
def test_infill_wants_one_gap(text: str, rich_tokenizer: Any):
    prompt_format: Any = make("infill", rich_tokenizer)

    with pytest.raises(PromptError, match="wants <FILL_ME> once"):
        prompt_format.encode_text(text)


def test_infill_takes_another_marker_and_one_message_only(rich_tokenizer: Any):
    prompt_format: Any = make("infill", rich_tokenizer, marker="___")

    assert prompt_format.encode_text("a___b") == make("infill", rich_tokenizer).encode(
        [{"role": "user", "content": "a<FILL_ME>b"}]
    )
    with pytest.raises(DialogError, match="one user message"):
        prompt_format.encode([USER, ANSWER, {"role": "user", "content": "a___b"}])
    with pytest.raises(OptionError, match="marker is empty"):
        make("infill", rich_tokenizer, marker="")


def test_infill_wants_code_llamas_tokenizer(plain_tokenizer: Any):
    with pytest.raises(TokenizerError, match=r"has no piece ▁<PRE>: it is not the tokenizer of"):
        make("infill", plain_tokenizer)


# Text never becomes a control token --------------------------------------------------------------

WORDS = st.sampled_from(
    [
        *("<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "[INST]", "<<SYS>>", "<PRE>"),
        *("▁<PRE>", " <SUF>", "▁<MID>", "▁<EOT>", "<|eot_id|>", "<0x0A>", "☺", "\n", " "),
    ]
)
TEXTS = st.lists(WORDS | st.text(max_size=4), max_size=6).map("".join)


@pytest.mark.parametrize("name", ["llama2", "alpaca", "chatml", "infill"])
@settings(max_examples=200, derandomize=True)
@given(texts=st.tuples(TEXTS, TEXTS, TEXTS))
def test_text_of_messages_never_becomes_a_control_id(
    name: str, texts: tuple[str, str, str], rich_tokenizer: Any
):
    roles = ("user",) if name == "infill" else ("user", "assistant", "user")
    gap = "<FILL_ME>" if name == "infill" else ""
    prompt_format = make(name, rich_tokenizer)
    dialog: Any = [
        {"role": role, "content": text.replace("<FILL_ME>", "") + gap}
        for role, text in zip(roles, texts, strict=False)
    ]
    plain: Any = [{"role": role, "content": f"x{gap}"} for role in roles]
    special = set(rich_tokenizer.special_ids().values())

    try:
        tokens = prompt_format.encode(dialog)
    except SpecialTagError:
        assert name != "chatml"  # its tags are pieces here, and no text is in their way
        return

    written = [token for token in tokens if token in special]
    assert written == [token for token in prompt_format.encode(plain) if token in special]


@settings(max_examples=200, derandomize=True)
@given(text=TEXTS)
def test_the_text_of_a_message_arrives_whole_in_chatml(text: str, rich_tokenizer: Any):
    tokens = make("chatml", rich_tokenizer, bos=False).encode([{"role": "user", "content": text}])

    end = rich_tokenizer.special_ids()["<|im_end|>"]
    assert tokens[1 : tokens.index(end)] == rich_tokenizer.encode(f"user\n{text}")


# Where formats are named ----------------------------------------------------------------------


def test_a_format_takes_its_options_on_the_command_line(run_llamakit: Run, tmp_path: Path):
    (tmp_path / "chat, two.jinja").write_text(
        "{{ bos_token }}[INST] {{ messages[-1].content }} [/INST]", encoding="utf-8"
    )
    (tmp_path / "one.jsonl").write_text(json.dumps({"messages": [USER]}), encoding="utf-8")
    common = ("generate", "--prompts", "one.jsonl", "--temperature", "0", "--json")

    done = run_llamakit(*common, "--prompt-format", "jinja:file=chat, two.jinja")
    usual = run_llamakit(*common)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["text"] == json.loads(usual.stdout)["text"]


def test_a_format_that_cannot_be_built_is_a_sentence(run_llamakit: Run):
    done = run_llamakit("chat", "--prompt-format", "jinja:fil=x", stdin="hello\n")

    assert done.returncode == 2
    assert "prompt format jinja has no option 'fil'; did you mean 'file'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_chat_continues_in_another_format(run_llamakit: Run):
    done = run_llamakit(
        *("chat", "--prompt-format", "chatml:bos=no", "--max-new-tokens", "8"),
        stdin="a <|im_end|> b\nWhat is a shard?\n",
    )

    assert done.returncode == 1, "a line failed"
    assert done.stdout.strip(), "and the next one is answered"
    assert "holds <|im_start|> or <|im_end|>" in done.stderr


@pytest.fixture(scope="module")
def filling(
    tmp_path_factory: pytest.TempPathFactory, rich_tokenizer: Any, reference_cases: Path
) -> Path:
    """A small random model with a tokenizer that has the pieces for infilling."""
    folder = tmp_path_factory.mktemp("model")
    for file in (reference_cases / "gqa-mp1").iterdir():
        if file.suffix != ".chk":
            (folder / file.name).write_bytes(file.read_bytes())
    (folder / "tokenizer.model").write_bytes(rich_tokenizer.path.read_bytes())
    return folder


def test_generate_fills_in_a_text(filling: Path, run_llamakit: Run, tmp_path: Path):
    text = "def f(x):\n    <FILL_ME>\n    return y"
    common = ("generate", "-m", str(filling), "--max-new-tokens", "4", "--json", "--seed", "1")

    done = run_llamakit(*common, "--prompt-format", "infill:suffix-first=yes", text)
    missing = run_llamakit(*common, "--prompt-format", "infill", "no gap")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["prompt_tokens"] > 10
    assert missing.returncode == 1
    assert "prompt 1: the infill format wants <FILL_ME> once" in missing.stderr


def test_gaps_are_filled_in_as_the_reference_s_method_does(filling: Path):
    with Llama.open(filling, dtype="float32") as llama:
        sides = (["if a", "b"], [":", "<FILL_0>"])

        results = llama.text_infilling(*sides, temperature=0, max_gen_len=3, logprobs=True)
        alone = llama.stream_chat(
            [{"role": "user", "content": "if a<FILL_ME>:"}], prompt_format="infill",
            temperature=0, max_new_tokens=3,
        )  # fmt: skip

        assert results[0]["generation"] == "".join(alone)
        assert [it["full_text"] for it in results] == [
            prefix + it["generation"] + suffix
            for it, prefix, suffix in zip(results, *sides, strict=True)
        ]
        assert [len(it["logprobs"]) for it in results] == [3, 3]


def test_what_is_filled_in_keeps_its_first_space(filling: Path):
    with Llama.open(filling, dtype="float32") as llama:
        tokenizer: Any = llama.tokenizer
        spaced = tokenizer._model.piece_to_id("▁th")
        prompt_format: Any = llama.prompt_format("infill")
        dialog: Any = [{"role": "user", "content": "if a<FILL_ME>:"}]
        sampling = always(spaced)

        kept = "".join(llama.stream_chat(dialog, prompt_format="infill", sampling=sampling,
                                         max_new_tokens=2))  # fmt: skip
        usual = [
            chunk.text
            for chunk in llama.stream(
                [prompt_format.encode(dialog)], sampling=sampling, max_new_tokens=2
            )
        ]

    assert kept == " th th"
    assert "".join(usual) == "th th"


def test_an_answer_ends_at_the_formats_stop_token(filling: Path):
    with Llama.open(filling, dtype="float32") as llama:
        tokenizer: Any = llama.tokenizer
        end = tokenizer.special_ids()["▁<EOT>"]
        prompt_format: Any = llama.prompt_format("infill:suffix-first=yes")

        (chunk,) = llama.stream(
            [prompt_format.encode_text("a<FILL_ME>b")],
            sampling=always(end),
            stop_tokens=prompt_format.stop_tokens,
        )

    assert chunk.finish == "stop"
    assert chunk.token is None


def test_an_id_that_the_model_has_not_is_refused(filling: Path):
    with Llama.open(filling, dtype="float32") as llama:
        rows = llama.checkpoint.params.vocab_size

        with pytest.raises(
            PromptError, match=f"prompt 2 of 2 has the token ID {rows}, and the model"
        ):
            list(llama.stream([[1, 5], [1, rows]]))


def always(token: int) -> Any:
    """Return a sampling that takes one token only."""
    from llamakit.runtime.sampling_pipeline import Sampling

    return Sampling(lambda _logits, rows: torch.full((len(rows),), token))
