"""Libraries and programs that ask for values: instructor, llama-index, llm, litellm and others."""

import subprocess
import sys
from pathlib import Path

from conftest import MODEL
from weather import CITIES, QUESTION, TOOL, Weather, weather, weather_of


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


def test_haystack(base_url: str) -> None:
    from haystack.components.generators.chat import OpenAIChatGenerator
    from haystack.dataclasses import ChatMessage
    from haystack.tools import create_tool_from_function
    from haystack.utils import Secret

    generator = OpenAIChatGenerator(
        model=MODEL,
        api_base_url=base_url,
        api_key=Secret.from_token("any"),
        max_retries=0,
        tools=[create_tool_from_function(weather)],
    )
    question = ChatMessage.from_user(QUESTION)
    forced = generator.run([question], generation_kwargs={"tool_choice": "required"})["replies"][0]
    call = forced.tool_call
    told = ChatMessage.from_tool("Sunny.", origin=call)
    last = generator.run([question, forced, told], generation_kwargs={"max_tokens": 100})

    assert call.arguments["city"] in CITIES
    assert last["replies"][0].text


def test_dspy(base_url: str) -> None:
    import dspy

    model = dspy.LM(f"openai/{MODEL}", api_base=base_url, api_key="any", cache=False, num_retries=0)
    question = [{"role": "user", "content": QUESTION}]
    (answer,) = model(messages=question, response_format=Weather)

    assert Weather.model_validate_json(answer).city in CITIES


def test_magentic(base_url: str) -> None:
    from magentic import OpenaiChatModel, prompt

    model = OpenaiChatModel(MODEL, api_key="any", base_url=base_url, max_tokens=200)

    @prompt(QUESTION, model=model)
    def answer() -> Weather: ...

    assert answer().city in CITIES


def test_outlines(base_url: str) -> None:
    import outlines
    from openai import OpenAI

    model = outlines.from_openai(OpenAI(base_url=base_url, api_key="any", max_retries=0), MODEL)

    assert Weather.model_validate_json(model(QUESTION, Weather)).city in CITIES


def test_mirascope(base_url: str) -> None:
    from mirascope import llm

    llm.register_provider("openai", f"local/{MODEL}", base_url=base_url, api_key="any")

    @llm.call(f"local/{MODEL}", format=Weather)
    def answer() -> str:
        return QUESTION

    assert answer().parse().city in CITIES
