"""Chat templates that write tools, calls and results: transformers' tokens, and nobody else's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamakit.errors import DialogError, SpecialTagError
from llamakit.llama.dialog_encoding import answer_reader, encode_dialog, with_tools
from llamakit.plugin_manager.factories import build
from llamakit.plugin_manager.toolkit import default_toolkit
from llamakit.protocols import PromptFormat, ToolCall

LLAMA31 = """{{- bos_token }}
{%- set ns = namespace(first=true) %}
{%- for m in messages %}
    {%- if m.role == 'tool' or m.role == 'ipython' %}
        {{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' }}
        {%- if m.content is mapping or m.content is iterable %}{{ m.content | tojson }}
        {%- else %}{{ m.content }}{% endif %}{{ '<|eot_id|>' }}
    {%- elif 'tool_calls' in m %}
        {%- if m.tool_calls | length != 1 %}{{ raise_exception('one call at a time') }}{% endif %}
        {%- set call = m.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + call.name }}
        {{- '", "parameters": ' }}{{ call.arguments | tojson }}{{ '}<|eot_id|>' }}
    {%- else %}
        {{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' }}
        {%- if m.role == 'user' and tools is not none and ns.first %}
            {%- set ns.first = false %}
            {%- for t in tools %}{{ t | tojson(indent=4) + '\\n\\n' }}{% endfor %}
        {%- endif %}
        {{- m.content | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""

HERMES = """
{%- if tools %}
    {{- '<|im_start|>system\\n# Tools\\n<tools>' }}
    {%- for tool in tools %}{{ '\\n' }}{{ tool | tojson }}{% endfor %}
    {{- '\\n</tools><|im_end|>\\n' }}
{%- endif %}
{%- for m in messages %}
    {%- if m.role == 'assistant' and m.tool_calls %}
        {{- '<|im_start|>assistant' }}{% if m.content %}{{ '\\n' + m.content }}{% endif %}
        {%- for call in m.tool_calls %}
            {%- if call.function is defined %}{% set call = call.function %}{% endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}{{ call.name }}{{ '", "arguments": ' }}
            {{- call.arguments | tojson(sort_keys=true) }}{{ '}\\n</tool_call>' }}
        {%- endfor %}{{ '<|im_end|>\\n' }}
    {%- elif m.role == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}
        {{- '<|im_end|>\\n' }}
    {%- else %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

PARAMETERS = """
{%- for tool in tools or [] %}
    {%- set f = tool.function %}
    {{- 'type ' ~ f['name'] ~ ' = (_: {' }}
    {%- for name, it in f.parameters.properties.items() | sort %}
        {%- if it.type == 'string' %}{{ name ~ ': string' }}
        {%- elif it['type'] in ('number', 'integer') %}{{ name ~ ': number' }}
        {%- else %}{{ name ~ ': any' }}{% endif %}
        {{- '' if name in (f.parameters.required or []) else '?' }}
        {%- if it.enum %}{{ ' // ' + it.enum | join(' | ') }}{% endif %}{{ ', ' }}
    {%- endfor %}{{ '})\\n' }}
{%- endfor %}
{%- for m in messages %}
    {{- '<|im_start|>' + m.role + (' ' + m.name if m.role == 'tool' else '') + '\\n' + m.content }}
    {%- for call in m.tool_calls or [] %}
        {{- call.id ~ call.function.name + '(' }}
        {%- for key, value in call.function.arguments | dictsort %}
            {{- key ~ '=' ~ value | tojson ~ ', ' }}
        {%- endfor %}{{ ')' }}
    {%- endfor %}{{ '<|im_end|>' }}
{%- endfor %}"""

TEMPLATES = {"llama31": LLAMA31, "hermes": HERMES, "parameters": PARAMETERS}

PLACE = {"type": "string", "description": 'A "city"\nor a caf\N{LATIN SMALL LETTER E WITH ACUTE}'}
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Says what the weather_is.",
            "parameters": {
                "type": "object",
                "properties": {"unit": {"enum": ["c", "f_"], "type": "string"}, "city": PLACE},
                "required": ["city"],
            },
        },
    },
    {
        "type": "function",
        "function": {"name": "add", "parameters": {"type": "object", "properties": {}}},
    },
]
ARGUMENTS = {
    "unit": "c",
    "city": 'Zo\N{LATIN SMALL LETTER E WITH DIAERESIS}\\"s_',
    "days": [1, 2.5],
}
QUESTION: Any = {"role": "user", "content": "How is it?"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather"}}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": '{"sun": true}'}


def called(arguments: Any) -> dict[str, Any]:
    call = {**CALL, "function": {"name": "get_weather", "arguments": arguments}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


Make = Callable[..., Any]


@pytest.fixture
def make(tmp_path: Path, rich_tokenizer: Any) -> Make:
    """Build the format from the text of a template, with tools described as a server does it."""

    def build_format(text: str, tools: Any = None) -> PromptFormat:
        file = tmp_path / "chat.jinja"
        file.write_text(text, encoding="utf-8")
        entry = default_toolkit().prompt_formats.entry("jinja")
        return with_tools(build(entry, {"file": str(file)}, rich_tokenizer), tools, rich_tokenizer)

    return build_format


@pytest.mark.parametrize("spelling", ["object", "text"])
@pytest.mark.parametrize("tools", [TOOLS, None], ids=["tools", "none"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_tools_calls_and_results_are_the_tokens_of_transformers(
    name: str, tools: Any, spelling: str, make: Make, judge: Any
) -> None:
    sent = ARGUMENTS if spelling == "object" else json.dumps(ARGUMENTS)
    expected = judge.apply_chat_template(
        [QUESTION, called(ARGUMENTS), {**RESULT, "name": "get_weather"}, QUESTION],
        tools=tools,
        chat_template=TEMPLATES[name],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,
    )

    found = encode_dialog(make(TEMPLATES[name], tools), [QUESTION, called(sent), RESULT, QUESTION])

    assert found == expected


@pytest.mark.parametrize("text", ["<|im_end|>", "<s>", "</s>", "a<|eot_id|>b", "<|im_", "</tools>"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_nothing_in_tools_and_calls_becomes_a_control_token(
    name: str, text: str, make: Make, rich_tokenizer: Any
) -> None:
    special = rich_tokenizer.special_ids().values()

    def written(word: str) -> list[int]:
        function = {
            "name": f"f{word}",
            "description": f'"{word}\n',
            "parameters": {"type": word, "properties": {word: {"type": "string", "enum": [word]}}},
        }
        tools = [{"type": "function", "function": function, word: word}]
        dialog = [QUESTION, called({word: [word]}), {**RESULT, "content": word}]
        tokens = make(TEMPLATES[name], tools).encode(dialog)
        return [token for token in tokens if token in special]

    try:
        found = written(text)
    except SpecialTagError:
        return

    assert found == written("x")


def test_text_in_json_is_written_as_text(make: Make, rich_tokenizer: Any) -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": 'say "<s>"\n'}}]

    tokens = make(LLAMA31, tools).encode([QUESTION])

    assert r'"say \"<s>\"\n"' in rich_tokenizer.decode(tokens)
    assert tokens.count(rich_tokenizer.bos_id) == 1


def test_an_answer_with_a_call_is_read(make: Make, rich_tokenizer: Any) -> None:
    read = answer_reader(make(HERMES, TOOLS))
    assert read is not None
    written = '{"name": "add", "arguments": {"a": 1}}'

    plain = read(rich_tokenizer.encode(written))
    tagged = read(rich_tokenizer.encode(f"Well.\n<tool_call>\n{written}\n</tool_call>"))

    assert plain.tool_calls == tagged.tool_calls == [ToolCall("add", {"a": 1})]
    assert tagged.content == "Well."
    assert answer_reader(make(HERMES)) is None


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.role }} {{ m.content }}{% endfor %}",
        "{% for m in messages %}{{ m.role }} {{ m.content }}{% endfor %} You have no tools.",
        "{% if tools %}{{ raise_exception('no tools') }}{% endif %}{{ messages[0].content }}",
    ],
)
def test_tools_that_a_template_does_not_write_are_in_the_system_message(
    template: str, make: Make, rich_tokenizer: Any
) -> None:
    prompt_format = make(template, TOOLS)

    text = rich_tokenizer.decode(encode_dialog(prompt_format, [QUESTION]))

    assert "You have these functions:" in text
    assert '"name": "get_weather"' in text


@pytest.mark.parametrize(
    ("tools", "words"),
    [
        ({"name": "f"}, "expected a list of functions"),
        (["f"], "tool 1 is 'f'; expected"),
        ([{"type": "function", "function": {}}], "tool 1 is"),
        ([{"name": "f", "parameters": {1j}}], "tool 1 is not JSON"),
        ([{"name": "f", "description": "\ud800"}], "tool 1 has a lone surrogate"),
    ],
)
def test_what_is_no_tool_is_refused(tools: Any, words: str, make: Make) -> None:
    with pytest.raises(DialogError, match=words):
        make(LLAMA31).with_tools(tools)


def test_what_the_template_says_of_calls_is_said(make: Make) -> None:
    message = called(ARGUMENTS)
    twice = {**message, "tool_calls": message["tool_calls"] * 2}

    with pytest.raises(DialogError, match="one call at a time"):
        make(LLAMA31, TOOLS).encode([QUESTION, twice])
    with pytest.raises(DialogError, match="message 2: the arguments of get_weather are not JSON"):
        make(LLAMA31, TOOLS).encode([QUESTION, called("{")])
