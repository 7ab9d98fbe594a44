"""openai: chats and responses, whole, parsed and as streams."""

import json
from typing import Any

from conftest import MODEL
from weather import CITIES, QUESTION, TOOL, Weather, weather, weather_of


def test_openai_chat_tool_runner(base_url: str) -> None:
    from openai import OpenAI

    client = OpenAI(base_url=base_url, api_key="any")
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    first = client.chat.completions.create(
        model=MODEL, messages=messages, tools=[TOOL], tool_choice="required"
    )
    message = first.choices[0].message
    results = [
        {
            "role": "tool",
            "tool_call_id": call.id,
            "content": weather(**json.loads(call.function.arguments)),
        }
        for call in message.tool_calls
    ]
    last = client.chat.completions.create(
        model=MODEL, messages=[*messages, message, *results], tools=[TOOL]
    )

    assert first.choices[0].finish_reason == "tool_calls"
    assert last.choices[0].finish_reason in ("stop", "length")


def test_openai_chat_stream(base_url: str) -> None:
    from openai import OpenAI

    client = OpenAI(base_url=base_url, api_key="any")
    with client.chat.completions.stream(
        model=MODEL,
        messages=[{"role": "user", "content": QUESTION}],
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "weather"}},
    ) as stream:
        kinds = {event.type for event in stream}
        call = stream.get_final_completion().choices[0].message.tool_calls[0]

    assert {"tool_calls.function.arguments.delta", "tool_calls.function.arguments.done"} <= kinds
    assert weather_of(call.function.arguments) in CITIES


def test_openai_chat_parse(base_url: str) -> None:
    from openai import OpenAI

    answer = OpenAI(base_url=base_url, api_key="any").chat.completions.parse(
        model=MODEL, messages=[{"role": "user", "content": QUESTION}], response_format=Weather
    )

    assert answer.choices[0].message.parsed.city in CITIES


def test_openai_responses(base_url: str) -> None:
    from openai import OpenAI

    client = OpenAI(base_url=base_url, api_key="any")
    tool = {"type": "function", **TOOL["function"]}
    with client.responses.stream(
        model=MODEL, input=QUESTION, tools=[tool], tool_choice="required"
    ) as stream:
        kinds = [event.type for event in stream]
        response = stream.get_final_response()
    calls = [item for item in response.output if item.type == "function_call"]
    results = [
        {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny."}
        for call in calls
    ]
    last = client.responses.create(
        model=MODEL,
        input=[{"role": "user", "content": QUESTION}, *response.output, *results],
        tools=[tool],
        max_output_tokens=30,
    )

    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert weather_of(calls[0].arguments) in CITIES
    assert last.output_text
