"""Frameworks for agents: pydantic-ai, openai-agents, smolagents, ag2, autogen, agno."""

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
