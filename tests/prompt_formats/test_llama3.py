"""The formats llama3, llama4 and llama-guard, held to what Meta's code gives."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from llamakit import load_tokenizer
from llamakit.errors import DialogError, FileFormatError, OptionError, TokenizerError
from llamakit.plugin_manager.factories import build
from llamakit.plugin_manager.toolkit import default_toolkit
from llamakit.protocols import ToolCall
from llamakit.testing import check_prompt_format
from llamakit.tokenizer.rank_file import read_ranks
from llamakit.tokenizer.rank_tokenizer import RankTokenizer
from llamakit.tokenizer.special_tokens import LLAMA_3_0, LLAMA_3_1, LLAMA_3_1_HF, LLAMA_4

DATA = Path(__file__).parents[1] / "data"
SHARED = Path(__file__).parents[3] / "shared" / "reference-cases-llama3"
RANKS = DATA / "llama3" / "tokenizer.model"
HELLO: Any = [{"role": "user", "content": "Hello"}]
TOOL = {
    "name": "get_weather",
    "description": "Get the weather of a place",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
TOOLS = [{"type": "function", "function": TOOL}]


class Named(RankTokenizer):
    """Shows special tokens by their names."""

    def show(self, tokens: list[int]) -> str:
        names = {token: name for name, token in self.special_ids().items()}
        return "".join(names.get(token) or self.decode([token]) for token in tokens)


@pytest.fixture(scope="module")
def small() -> Named:
    return Named(RANKS, read_ranks(RANKS), LLAMA_3_1)


@pytest.fixture(scope="module")
def small4() -> Named:
    return Named(RANKS, read_ranks(RANKS), LLAMA_4)


def make(name: str, tokenizer: Any, **options: Any) -> Any:
    return build(default_toolkit().prompt_formats.entry(name), options, tokenizer)


@pytest.mark.parametrize("case", ["llama3-gqa-mp1", "llama31-mp8"])
def test_the_dialogs_of_the_reference_cases_become_its_tokens(case: str) -> None:
    folder = DATA / "reference-cases-llama3"
    expected = json.loads((folder / f"{case}.expected.json").read_text())
    prompt_format = make("llama3", load_tokenizer(folder / "tokenizer.model"))

    tokens = [prompt_format.encode(dialog) for dialog in expected["dialogs"]]

    assert tokens == expected["dialog_tokens"]
    assert sorted(prompt_format.stop_tokens) == expected["stop_tokens"]


def test_with_meta_s_tokenizer_dialogs_become_its_tokens() -> None:
    if not SHARED.is_dir():
        pytest.skip("Meta's tokenizer is not there: it has a license of its own")
    dialogs = json.loads((SHARED / "llama3-tokenizer.expected.json").read_text())["dialogs"]
    prompt_format = make("llama3", load_tokenizer(SHARED / "meta-tokenizer" / "tokenizer.model"))

    assert all(prompt_format.encode(it["messages"]) == it["ids"] for it in dialogs)
    dated = make(
        "llama3", load_tokenizer(SHARED / "meta-tokenizer" / "tokenizer.model"), date="26 Jul 2024"
    )
    assert dated.encode(HELLO)[:26] == [
        *(128000, 128006, 9125, 128007, 271, 38766, 1303, 33025, 2696, 25, 6790, 220, 2366, 18),
        *(198, 15724, 2696, 25, 220, 1627, 10263, 220, 2366, 19, 271, 128009),
    ]


def test_every_part_is_encoded_by_itself(small: Named) -> None:
    dialog: Any = [{"role": "user", "content": "\n Hi \n"}]

    tokens = make("llama3", small).encode(dialog)

    special, newlines = small.special_ids(), small.encode("\n\n")
    header = [special["<|start_header_id|>"], *small.encode("user"), special["<|end_header_id|>"]]
    assert tokens[: len(header) + 1] == [small.bos_id, *header]
    rest = [*newlines, *small.encode("\n Hi \n"), special["<|eot_id|>"]]
    assert tokens[1 + len(header) :][: len(rest)] == rest


def test_messages_are_trimmed_when_that_is_asked_for(small: Named) -> None:
    dialog: Any = [{"role": "system", "content": " Be brief.\n"}, *HELLO]

    kept = small.show(make("llama3", small).encode(dialog))
    trimmed = small.show(make("llama3", small, trim="yes").encode(dialog))

    assert "\n\n Be brief.\n<|eot_id|>" in kept
    assert "\n\nBe brief.<|eot_id|>" in trimmed


def test_a_date_goes_before_the_system_message(small: Named) -> None:
    dialog: Any = [{"role": "system", "content": "Be brief."}, *HELLO]

    text = small.show(make("llama3", small, date="26 Jul 2024").encode(dialog))
    today = small.show(make("llama3", small, date="today").encode(HELLO))

    assert (
        "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\nBe brief.<|eot_id|>"
        in text
    )
    assert f"Today Date: {datetime.now():%d %b %Y}\n\n<|eot_id|>" in today
    given = make("llama3", small).with_variables({"date_string": "26 Jul 2024"})
    assert small.show(given.encode(dialog)) == text


@pytest.mark.parametrize("role", ["tool", "ipython"])
def test_a_tool_s_answer_is_written_as_ipython(small: Named, role: str) -> None:
    call = {"name": "code_interpreter", "arguments": {"code": "print(1)"}}
    dialog: Any = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call], "ends": "eom"},
        {"role": role, "content": "1", "tool_call_id": "call_1"},
    ]

    text = small.show(make("llama3", small).encode(dialog))

    assert text == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n<|python_tag|>print(1)<|eom_id|>"
        "<|start_header_id|>ipython<|end_header_id|>\n\n1<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_openai_s_calls_are_written_as_our_own(small: Named) -> None:
    own = {"name": "f", "arguments": {"a": 1}}
    theirs = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}

    one, other = (
        make("llama3", small).encode([{"role": "assistant", "content": "", "tool_calls": [call]}])
        for call in (own, theirs)
    )

    assert one == other


@pytest.mark.parametrize("special", [LLAMA_3_0, LLAMA_3_1_HF])
def test_reserved_names_of_other_versions_do_not_matter(small: Named, special: Any) -> None:
    other = RankTokenizer(RANKS, read_ranks(RANKS), special)
    dialog: Any = [{"role": "assistant", "content": "a", "ends": "eom"}]

    one, two = (make("llama3", tokenizer).encode(dialog) for tokenizer in (small, other))

    assert one == two


def test_llama_4_ends_calls_and_their_answers_with_eom(small4: Named) -> None:
    call = {"name": "f", "arguments": {}}
    dialog: Any = [
        *HELLO,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "1"},
    ]

    text = small4.show(make("llama4", small4).encode(dialog))

    assert text == (
        "<|begin_of_text|><|header_start|>user<|header_end|>\n\nHello<|eot|>"
        '<|header_start|>assistant<|header_end|>\n\n{"type": "function", "name": "f", '
        '"parameters": {}}<|eom|><|header_start|>ipython<|header_end|>\n\n1<|eom|>'
        "<|header_start|>assistant<|header_end|>\n\n"
    )


def test_tools_in_json_are_in_a_message_of_their_own(small: Named) -> None:
    dialog: Any = [{"role": "system", "content": "Be brief."}, *HELLO]

    text = small.show(make("llama3", small).with_tools(TOOLS).encode(dialog))

    system, tools, question, _ = text.split("<|eot_id|>")
    assert system.endswith("system<|end_header_id|>\n\nEnvironment: ipython\n\nBe brief.")
    assert tools.startswith("<|start_header_id|>user<|end_header_id|>\n\nAnswer the user's")
    assert json.dumps(TOOLS[0], indent=4) in tools
    assert question.endswith("Hello")


def test_tools_as_function_tags_need_no_environment(small: Named) -> None:
    text = small.show(
        make("llama3", small, tool_style="function-tag").with_tools(TOOLS).encode(HELLO)
    )

    assert "Environment" not in text
    assert "Use the function 'get_weather' to 'Get the weather of a place':\n" in text
    assert json.dumps(TOOL) in text


@pytest.mark.parametrize("name", ["llama3", "llama4"])
def test_tools_as_a_python_list_are_in_the_system_message(
    small: Named, small4: Named, name: str
) -> None:
    tokenizer = small4 if name == "llama4" else small
    options = {} if name == "llama4" else {"tool_style": "python-list"}
    dialog: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {"n": 1}}]},
    ]

    text = tokenizer.show(make(name, tokenizer, **options).with_tools(TOOLS).encode(dialog))

    system = text.partition("<|eot")[0]
    assert json.dumps([TOOL], indent=4) in system
    assert system.endswith("\n\nBe brief.")
    assert "[f(n=1)]" in text


def test_built_in_tools_are_switched_on_in_the_system_message(small: Named) -> None:
    prompt_format = make("llama3", small, builtin_tools="brave_search code_interpreter")

    text = small.show(prompt_format.encode(HELLO))

    assert "Environment: ipython\nTools: brave_search\n\n<|eot_id|>" in text
    assert prompt_format.has_tools


def test_tools_come_from_a_file(small: Named, tmp_path: Path) -> None:
    file = tmp_path / "tools.json"
    file.write_text(json.dumps({"tools": TOOLS}))

    from_file = make("llama3", small, tools=str(file)).encode(HELLO)

    assert from_file == make("llama3", small).with_tools([TOOL]).encode(HELLO)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "tools.json is not JSON"),
        ("[1]", "tools.json: tool 1 is 1; expected"),
        ('{"a": 1}', "tools.json: the tools are a dict; expected"),
        ("[" * 10**5, "tools.json is not JSON"),
        ('[{"type": "function", "function": {}}]', "tools.json: tool 1 is"),
    ],
)
def test_a_file_of_no_tools_is_a_sentence(
    small: Named, tmp_path: Path, content: str, said: str
) -> None:
    file = tmp_path / "tools.json"
    file.write_text(content)

    with pytest.raises(FileFormatError, match=said):
        make("llama3", small, tools=str(file))


def test_an_answer_s_tokens_are_read_with_their_tag(small: Named) -> None:
    prompt_format = make("llama3", small)
    tag, eom = small.special_ids()["<|python_tag|>"], small.special_ids()["<|eom_id|>"]

    code = prompt_format.read_answer([*small.encode("So: "), tag, *small.encode("1+1"), eom])
    typed = prompt_format.read_answer(small.encode("a <|python_tag|>b"))

    assert (code.content, list(code.tool_calls)) == (
        "So:",
        [ToolCall("code_interpreter", {"code": "1+1"})],
    )
    assert not typed.tool_calls


@pytest.mark.parametrize(
    ("dialog", "said"),
    [
        ([], "the dialog has no message"),
        ([{"role": "nobody", "content": "a"}], "message 1 has the role 'nobody'"),
        (
            [{"role": "assistant", "content": "", "tool_calls": [{"name": "brave_search"}]}],
            "message 1: the call of brave_search has no query",
        ),
        ([{"role": "assistant", "content": "", "tool_calls": "f"}], "message 1: its tool_calls"),
    ],
)
def test_a_dialog_that_cannot_be_written_is_a_sentence(
    small: Named, dialog: Any, said: str
) -> None:
    with pytest.raises(DialogError, match=said):
        make("llama3", small).encode(dialog)


def test_llama_guard_is_asked_about_the_last_message(small: Named) -> None:
    dialog: Any = [
        {"role": "user", "content": "How?"},
        {"role": "assistant", "content": "So."},
    ]

    text = small.show(make("llama-guard", small, categories=13).encode(dialog))

    assert text == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n"
        "Task: Check if there is unsafe content in 'Agent' messages in conversations according "
        "our safety policy with the below categories.\n\n<BEGIN UNSAFE CONTENT CATEGORIES>\n"
        "S1: Violent Crimes.\nS2: Non-Violent Crimes.\nS3: Sex Crimes.\nS4: Child Exploitation.\n"
        "S5: Defamation.\nS6: Specialized Advice.\nS7: Privacy.\nS8: Intellectual Property.\n"
        "S9: Indiscriminate Weapons.\nS10: Hate.\nS11: Self-Harm.\nS12: Sexual Content.\n"
        "S13: Elections.\n<END UNSAFE CONTENT CATEGORIES>\n\n<BEGIN CONVERSATION>\n\nUser: How?\n\n"
        "Agent: So.\n\n<END CONVERSATION>\n\nProvide your safety assessment for ONLY THE LAST "
        "Agent message in the above conversation:\n - First line must read 'safe' or 'unsafe'.\n"
        " - If unsafe, a second line must include a comma-separated list of violated categories."
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_llama_guard_judges_user_and_assistant_only(small: Named) -> None:
    with pytest.raises(DialogError, match="message 1 has the role 'system'"):
        make("llama-guard", small).encode([{"role": "system", "content": "a"}])
    with pytest.raises(OptionError, match="categories is 15; expected 1 to 14"):
        make("llama-guard", small, categories=15)


@pytest.mark.parametrize("name", ["llama3", "llama4", "llama-guard"])
def test_the_contract_of_prompt_formats_holds(small: Named, small4: Named, name: str) -> None:
    tokenizer = small4 if name == "llama4" else small

    check_prompt_format(default_toolkit().prompt_formats.entry(name).value, tokenizer=tokenizer)


def test_another_model_s_tokenizer_is_refused(small: Named, plain_tokenizer: Any) -> None:
    with pytest.raises(TokenizerError, match=r"no token <\|start_header_id\|>: it is not the"):
        make("llama3", plain_tokenizer)
    with pytest.raises(TokenizerError, match="not the tokenizer of a Llama 4"):
        make("llama4", small)
