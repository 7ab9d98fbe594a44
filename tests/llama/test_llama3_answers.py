"""A Llama 3 from its folder alone: tokenizer, prompt format, stop tokens and tools."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llamakit import Llama, load_tokenizer
from llamakit.api import choose_sampling
from llamakit.plugin_manager.factories import Choice

Run = Callable[..., "subprocess.CompletedProcess[str]"]
CASES = Path(__file__).parents[1] / "data" / "reference-cases-llama3"
CASE = CASES / "llama31-mp8"
TOOLS: Any = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
CALL = r'\{"name": "f", "parameters": \{"n": [0-9]\}\}'


@pytest.fixture(scope="module")
def llama() -> Iterator[Llama]:
    with Llama.open(CASE, dtype="float32", max_seq_len=512) as llama:
        yield llama


def test_the_tokenizer_chooses_format_and_stop_tokens(llama: Llama) -> None:
    expected = json.loads((CASES / "llama31-mp8.expected.json").read_text())

    tokens = [llama.prompt_format().encode(dialog) for dialog in expected["dialogs"]]

    assert tokens == expected["dialog_tokens"]
    assert sorted(llama.stop_tokens) == expected["stop_tokens"]


@pytest.mark.parametrize("offset", [1, 8, 9])
def test_each_of_the_three_stop_tokens_ends_an_answer(llama: Llama, offset: int) -> None:
    prompt = llama.tokenizer.encode("a", bos=True)
    sampling = _always(llama, 1024 + offset)

    events = list(llama.stream([prompt], sampling=sampling, max_new_tokens=5))

    assert [(event.token, event.text, event.finish) for event in events] == [(None, "", "stop")]


def _always(llama: Llama, token: int) -> Any:
    choice = Choice("logit-bias", {"bias": f"{token}:100"})
    return choose_sampling(
        temperature=0, processors=[choice], toolkit=llama.toolkit, tokenizer=llama.tokenizer
    )


def test_a_folder_s_numbers_tell_which_special_tokens_there_are() -> None:
    old = load_tokenizer(CASES / "llama3-gqa-mp1")
    new = load_tokenizer(CASE)

    names = [it.special_ids() for it in (old, new)]  # type: ignore[attr-defined]

    assert ("<|eom_id|>" in names[0], "<|eom_id|>" in names[1]) == (False, True)


def test_calls_of_tools_in_a_file_of_prompts_are_in_the_json(
    run_llamakit: Run, tmp_path: Path
) -> None:
    file = tmp_path / "prompts.jsonl"
    dialog = [{"role": "user", "content": "Weather?"}]
    lines = [{"messages": dialog, "tools": TOOLS}, {"messages": dialog}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    done = run_llamakit(
        *("generate", "-m", CASE, "--dtype", "float32", "--prompts", file, "--json"),
        *("--regex", CALL, "--max-seq-len", "512"),
    )

    with_tools, without = (json.loads(line) for line in done.stdout.splitlines())
    assert with_tools["text"].startswith('{"name": "f"')
    assert with_tools["tools"] == TOOLS
    (call,) = with_tools["tool_calls"]
    assert call["function"]["name"] == "f"
    assert "tool_calls" not in without
    assert with_tools["prompt_tokens"] > without["prompt_tokens"] + 50


def test_a_chat_needs_no_flag(run_llamakit: Run) -> None:
    words = ("-m", CASE, "--dtype", "float32", "--temperature", "0", "--max-new-tokens", "6")

    plain, named, other = (
        run_llamakit("chat", *words, *more, stdin="Hello\n")
        for more in ((), ("--prompt-format", "llama3"), ("--prompt-format", "llama2"))
    )

    assert plain.returncode == 0, plain.stderr
    assert plain.stdout == named.stdout != other.stdout


def test_a_format_without_tools_has_them_in_its_system_message(
    run_llamakit: Run, tmp_path: Path
) -> None:
    file = tmp_path / "prompts.jsonl"
    line = {"id": "w", "messages": [{"role": "user", "content": "Hi"}]}
    lines = [line, {**line, "id": "t", "tools": TOOLS}]
    file.write_text("\n".join(map(json.dumps, lines)))

    done = run_llamakit("generate", "--prompts", file, "--json", "--max-new-tokens", "1")

    assert done.returncode == 0, done.stderr
    plain, told = (json.loads(it)["prompt_tokens"] for it in done.stdout.splitlines())
    assert told > plain + 50
