"""Tools with a model's own chat template, over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jinja2
import pytest
from server_kit import QUESTION, Running, demo_folder, thread
from test_tool_choice import CHAT, TOOLS, answer, calls, named

from llamakit.api import Llama

TEMPLATE = """
{%- if tools %}Tools:{% for tool in tools %} {{ tool | tojson }}{% endfor %}\n{% endif %}
{%- for m in messages %}
    {{- m.role }}: {{ m.content }}
    {%- for call in m.tool_calls or [] %}{{ call.id ~ call.function | tojson }}{% endfor %}
    {{- '' if m.role != 'tool' else m.name }}\n
{%- endfor %}"""


@pytest.fixture(scope="module")
def templated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server whose prompt format is a chat template with tools."""
    file = tmp_path_factory.mktemp("template") / "chat.jinja"
    file.write_text(TEMPLATE)
    with (
        Llama.open(demo_folder(), max_seq_len=1024, max_batch_size=4, dtype="float32") as llama,
        thread(llama, prompt_format=f"jinja:file={file}") as running,
    ):
        yield running


def prompt(server: Running, **body: Any) -> str:
    """Return what a chat request's prompt says."""
    tokens = server.post("/tokenize", body).json()["tokens"]
    text: str = server.post("/detokenize", {"tokens": tokens}).json()["text"]
    return text


def test_a_template_is_called_with_the_tools_that_may_be_called(templated: Running) -> None:
    written = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False)
    written.filters["tojson"] = json.dumps
    expected = written.from_string(TEMPLATE).render(messages=QUESTION, tools=TOOLS)

    assert prompt(templated, messages=QUESTION, tools=TOOLS) == expected
    alone = prompt(templated, messages=QUESTION, tools=TOOLS, tool_choice=named("add"))
    assert '"add"' in alone
    assert "weather" not in alone
    assert "Tools" not in prompt(templated, messages=QUESTION, tools=TOOLS, tool_choice="none")


def test_a_forced_call_is_made_and_goes_back_into_the_dialog(templated: Running) -> None:
    found = answer(templated, tool_choice=named("add"))
    streamed = templated.post(
        CHAT,
        {"messages": QUESTION, "temperature": 0, "tools": TOOLS, "tool_choice": named("add")}
        | {"stream": True},
    ).text
    message = found["message"]
    (call,) = message["tool_calls"]
    result = {"role": "tool", "tool_call_id": call["id"], "content": "7"}

    text = prompt(templated, messages=[*QUESTION, message, result], tools=TOOLS)

    ((name, arguments),) = calls(found)
    assert (name, found["finish_reason"]) == ("add", "tool_calls")
    assert f'{call["id"]}{{"name": "add", "arguments": {json.dumps(arguments)}}}' in text
    assert "tool: 7add" in text
    assert '"finish_reason": "tool_calls"' in streamed or '"finish_reason":"tool_calls"' in streamed
    last = answer(templated, messages=[*QUESTION, message, result], max_tokens=4)
    assert last["message"]["content"]


def test_required_calls_one_of_the_tools(templated: Running) -> None:
    found = answer(templated, tool_choice="required", parallel_tool_calls=False)

    ((name, _),) = calls(found)
    assert name in ("weather", "add")
