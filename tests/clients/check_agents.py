"""Frameworks for agents: pydantic-ai, openai-agents, smolagents, ag2, autogen, agno."""

from typing import Any

from conftest import MODEL
from weather import CITIES, QUESTION, Weather, weather


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


def test_smolagents(base_url: str) -> None:
    from smolagents import OpenAIModel, ToolCallingAgent, tool

    model = OpenAIModel(MODEL, api_base=base_url, api_key="any", max_tokens=200)

    @tool
    def weather_of_city(city: str) -> str:
        """Tell the weather in a city.

        Args:
            city: its name.
        """
        return f"It is sunny in {city}."

    agent = ToolCallingAgent([weather_of_city], model, max_steps=1)
    agent.prompt_templates["system_prompt"] = "Be short."  # its own has 1,500 tokens
    answer = agent.run(QUESTION)

    assert answer
    assert agent.memory.steps[1].tool_calls[0].name in ("weather_of_city", "final_answer")


def test_ag2(base_url: str) -> None:
    import asyncio

    from ag2 import Agent
    from ag2.config import OpenAIConfig

    config = OpenAIConfig(MODEL, api_key="any", base_url=base_url, max_retries=0, max_tokens=200)
    with_tool = Agent("weather", "Be short.", config=config, tools=[weather])
    structured = Agent("forecast", config=config, response_schema=Weather)

    async def ask() -> tuple[Any, Any]:
        return (
            await (await with_tool.ask(QUESTION)).content(),
            await (await structured.ask(QUESTION)).content(),
        )

    text, forecast = asyncio.run(ask())

    assert text
    assert forecast.city in CITIES


def test_autogen(base_url: str) -> None:
    import asyncio

    from autogen_agentchat.agents import AssistantAgent
    from autogen_core.models import UserMessage
    from autogen_core.tools import FunctionTool
    from autogen_ext.models.openai import OpenAIChatCompletionClient

    info = dict.fromkeys(("vision", "structured_output"), False) | {"family": "unknown"}
    client = OpenAIChatCompletionClient(
        model=MODEL,
        base_url=base_url,
        api_key="any",
        max_retries=0,
        max_tokens=200,
        model_info=info | {"function_calling": True, "json_output": True},
    )
    tool = FunctionTool(weather, "Tell the weather in a city.", strict=True)
    question = UserMessage(content=QUESTION, source="user")

    async def ask() -> tuple[Any, Any]:
        forced = await client.create([question], tools=[tool], tool_choice=tool)
        agent = AssistantAgent("weather", client, tools=[tool])
        return forced, await agent.run(task=QUESTION)

    forced, done = asyncio.run(ask())

    assert forced.content[0].name == "weather"
    assert done.messages[-1].content


def test_agno(base_url: str) -> None:
    from agno.agent import Agent
    from agno.models.openai import OpenAILike

    model = OpenAILike(id=MODEL, base_url=base_url, api_key="any", max_retries=0, max_tokens=200)
    agent = Agent(model=model, tools=[weather], tool_call_limit=1, telemetry=False)
    done = agent.run(QUESTION)
    structured = Agent(model=model, output_schema=Weather, telemetry=False).run(QUESTION)

    assert done.content
    assert structured.content.city in CITIES
