"""langchain-openai, and langchain's agents."""

from conftest import MODEL
from weather import CITIES, QUESTION, Weather, weather


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
