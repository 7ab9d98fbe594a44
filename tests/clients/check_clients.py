"""Each client against the bundled model, with a call that it has to make.

The model knows little of tools: its choice is forced, and the arguments have few values.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from conftest import MODEL
from pydantic import BaseModel

MODULES = Path(sys.prefix) / "node_modules"
QUESTION = "What is the weather in Rome?"
CITIES = ("Rome", "Oslo")


class Weather(BaseModel):
    """The weather of a city."""

    model_config = {"extra": "forbid"}  # the small model would go on and on

    city: Literal["Rome", "Oslo"]
    degrees: Literal[10, 20]


def weather(city: Literal["Rome", "Oslo"]) -> str:
    """Tell the weather in a city."""
    return f"It is sunny in {city}."


TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tell the weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": list(CITIES)}},
            "required": ["city"],
        },
    },
}


def test_openai_chat_tool_runner(base_url: str) -> None:
    import json

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


def weather_of(arguments: str) -> str:
    import json

    return str(json.loads(arguments)["city"])


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


def test_langchain_tools(base_url: str) -> None:
    from langchain_core.messages import HumanMessage, ToolMessage
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model=MODEL, base_url=base_url, api_key="any", max_retries=0)
    forced = model.bind_tools([tool(weather)], tool_choice="any")
    answer = forced.invoke([HumanMessage(QUESTION)])
    results = [ToolMessage("Sunny.", tool_call_id=call["id"]) for call in answer.tool_calls]
    last = model.bind_tools([tool(weather)]).invoke([HumanMessage(QUESTION), answer, *results])

    assert answer.tool_calls[0]["args"]["city"] in CITIES
    assert last.content


def test_langchain_agent_loop(base_url: str) -> None:
    from langchain.agents import create_agent
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model=MODEL, base_url=base_url, api_key="any", max_retries=0)
    agent = create_agent(model, [tool(weather)], system_prompt="Be short.")
    done = agent.invoke({"messages": [("user", QUESTION)]})

    assert done["messages"][-1].content


def test_langchain_stream(base_url: str) -> None:
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(
        model=MODEL, base_url=base_url, api_key="any", max_retries=0, stream_usage=True
    )
    whole = None
    for chunk in model.bind_tools([tool(weather)], tool_choice="weather").stream(QUESTION):
        whole = chunk if whole is None else whole + chunk

    assert whole.tool_calls[0]["args"]["city"] in CITIES
    assert whole.usage_metadata["output_tokens"] > 0


def test_langchain_structured_output(base_url: str) -> None:
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model=MODEL, base_url=base_url, api_key="any", max_retries=0)
    for method in ("json_schema", "function_calling"):
        found = model.with_structured_output(Weather, method=method).invoke(QUESTION)

        assert found.city in CITIES


def test_langchain_responses(base_url: str) -> None:
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(
        model=MODEL, base_url=base_url, api_key="any", max_retries=0, use_responses_api=True
    )
    answer = model.bind_tools([tool(weather)], tool_choice="weather").invoke(QUESTION)

    assert answer.tool_calls[0]["args"]["city"] in CITIES


def test_langchain_batch_of_20(base_url: str) -> None:
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model=MODEL, base_url=base_url, api_key="any", max_retries=0, max_tokens=2)

    assert len(model.batch([QUESTION] * 20)) == 20


def test_pydantic_ai_chat(base_url: str) -> None:
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=base_url, api_key="any"))

    assert Agent(model, output_type=Weather).run_sync(QUESTION).output.city in CITIES


def test_pydantic_ai_responses(base_url: str) -> None:
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIResponsesModel(MODEL, provider=OpenAIProvider(base_url=base_url, api_key="any"))

    assert Agent(model, output_type=Weather).run_sync(QUESTION).output.city in CITIES


def test_instructor(base_url: str) -> None:
    import instructor
    from openai import OpenAI

    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
        client = instructor.from_openai(OpenAI(base_url=base_url, api_key="any"), mode=mode)
        found = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": QUESTION}],
            response_model=Weather,
            max_retries=0,
        )

        assert found.city in CITIES


def test_llama_index(base_url: str) -> None:
    from llama_index.core.llms import ChatMessage
    from llama_index.core.tools import FunctionTool
    from llama_index.llms.openai_like import OpenAILike

    model = OpenAILike(
        model=MODEL,
        api_base=base_url,
        api_key="any",
        is_chat_model=True,
        is_function_calling_model=True,
        max_retries=0,
    )
    tool = FunctionTool.from_defaults(weather)
    answer = model.chat_with_tools([tool], user_msg=QUESTION, tool_choice="required")
    calls = model.get_tool_calls_from_response(answer)
    plain = model.chat([ChatMessage(role="user", content=QUESTION)])

    assert calls[0].tool_kwargs["city"] in CITIES
    assert plain.message.content


def test_llm(base_url: str, tmp_path: Path) -> None:
    models = tmp_path / "extra-openai-models.yaml"
    models.write_text(
        f"- model_id: demo\n  model_name: {MODEL}\n  api_base: {base_url}\n  supports_tools: true\n"
    )
    program = str(Path(sys.executable).with_name("llm"))
    done = subprocess.run(
        [program, "-m", "demo", "-T", "llm_version", "-o", "max_tokens", "40", QUESTION],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_openai_agents(base_url: str) -> None:
    from agents import Agent, ModelSettings, Runner, function_tool, set_default_openai_client
    from openai import AsyncOpenAI

    set_default_openai_client(AsyncOpenAI(base_url=base_url, api_key="any"), use_for_tracing=False)
    agent = Agent(
        name="weather",
        model=MODEL,
        instructions="Be short.",
        tools=[function_tool(weather)],
        model_settings=ModelSettings(tool_choice="required", max_tokens=300),
    )
    done = Runner.run_sync(agent, QUESTION)

    assert done.final_output
    assert [item.type for item in done.new_items][:2] == ["tool_call_item", "tool_call_output_item"]


def test_openai_agents_chat(base_url: str) -> None:
    from agents import (
        Agent,
        ModelSettings,
        OpenAIChatCompletionsModel,
        Runner,
        function_tool,
    )
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=base_url, api_key="any")
    agent = Agent(
        name="weather",
        model=OpenAIChatCompletionsModel(MODEL, client),
        tools=[function_tool(weather)],
        model_settings=ModelSettings(tool_choice="required", max_tokens=300),
    )
    done = Runner.run_sync(agent, QUESTION)

    assert done.final_output
    assert done.new_items[0].type == "tool_call_item"


def test_litellm(base_url: str) -> None:
    import litellm

    answer = litellm.completion(
        model=f"openai/{MODEL}",
        api_base=base_url,
        api_key="any",
        messages=[{"role": "user", "content": QUESTION}],
        tools=[TOOL],
        tool_choice="required",
        stream=True,
    )
    message = litellm.stream_chunk_builder(list(answer)).choices[0].message

    assert weather_of(message.tool_calls[0].function.arguments) in CITIES


@pytest.mark.skipif(not MODULES.exists(), reason="there was no npm to install the AI SDK with")
def test_ai_sdk(base_url: str) -> None:
    script = Path(__file__).with_name("ai-sdk") / "check.mjs"
    shutil.copy(script, MODULES.parent)  # Node looks for modules beside the script
    done = subprocess.run(
        ["node", MODULES.parent / script.name, base_url, MODEL],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    *calls, steps = done.stdout.split()
    assert len(calls) == 4
    assert set(calls) <= set(CITIES)
    assert steps == "2"
