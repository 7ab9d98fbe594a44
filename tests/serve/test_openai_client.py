"""The official client against a server as typed."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import openai
import pydantic
import pytest
from openai import OpenAI
from server_kit import QUESTION, STORY, Running

from llamakit.api import Llama, choose_sampling


@pytest.fixture(scope="module")
def client(server: Running) -> OpenAI:
    return server.openai()


def complete(client: OpenAI, **settings: Any) -> Any:
    settings = {"model": "llama-demo", "prompt": STORY, "temperature": 0, **settings}
    return client.completions.create(**settings)


def chat(client: OpenAI, **settings: Any) -> Any:
    settings = {"model": "llama-demo", "messages": QUESTION, "temperature": 0, **settings}
    return client.chat.completions.create(**settings)


def alone(llama: Llama, text: str, new: int, **settings: Any) -> str:
    """What the Python API answers, as completions show it: with its first space."""
    prompt = llama.tokenizer.encode(text, bos=True)
    sampling = choose_sampling(temperature=settings.pop("temperature", 0.0))
    chunks = list(
        llama.stream([prompt], sampling=sampling, max_new_tokens=new, echo=True, **settings)
    )
    return "".join(chunk.text for chunk in chunks).removeprefix(text)


def test_models_are_listed_and_described(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["llama-demo"]
    assert client.models.retrieve("llama-demo").owned_by == "llamakit"
    with pytest.raises(openai.NotFoundError, match="no such model"):
        client.models.retrieve("gpt-4")


def test_a_completion_is_what_the_python_api_answers(client: OpenAI, llama: Llama) -> None:
    answer = complete(client, max_tokens=30)

    assert answer.choices[0].text == alone(llama, STORY, 30)
    assert answer.choices[0].text.startswith(" ") or not answer.choices[0].text[0].isalpha()
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.prompt_tokens == len(llama.tokenizer.encode(STORY, bos=True))
    assert answer.usage.completion_tokens == 30


def test_a_completion_has_sixteen_tokens_when_nothing_is_said(client: OpenAI) -> None:
    assert complete(client).usage.completion_tokens == 16


def test_a_seeded_completion_is_what_the_python_api_answers(client: OpenAI, llama: Llama) -> None:
    answer = complete(client, temperature=0.9, seed=7, max_tokens=30)

    assert answer.choices[0].text == alone(llama, STORY, 30, temperature=0.9, seeds=[7])


def test_prompts_may_be_tokens_and_several(client: OpenAI, llama: Llama) -> None:
    tokens = llama.tokenizer.encode(STORY, bos=True)
    expected = alone(llama, STORY, 8)

    one = complete(client, prompt=tokens, max_tokens=8)
    several = complete(client, prompt=[tokens, tokens], max_tokens=8)
    texts = complete(client, prompt=[STORY, "How do I"], max_tokens=8)

    assert [it.text for it in one.choices] == [expected]
    assert [it.text for it in several.choices] == [expected, expected]
    assert [it.text for it in texts.choices] == [expected, alone(llama, "How do I", 8)]
    assert [it.index for it in texts.choices] == [0, 1]


def test_n_answers_differ_and_come_again_with_their_seed(client: OpenAI) -> None:
    first, second = (
        [it.text for it in complete(client, n=3, temperature=1.5, seed=5).choices] for _ in range(2)
    )

    assert first == second
    assert len(set(first)) == 3


@pytest.mark.parametrize("several", [False, True])
def test_a_stop_string_ends_an_answer_and_is_not_part_of_it(
    client: OpenAI, several: bool, llama: Llama
) -> None:
    whole = alone(llama, STORY, 30)
    stop = whole.split()[4]

    answer = complete(client, max_tokens=30, stop=["never said", stop] if several else stop)

    assert answer.choices[0].text == whole[: whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


def test_a_stream_says_the_same_as_the_whole_answer(client: OpenAI) -> None:
    whole = complete(client, max_tokens=20, n=2, logprobs=2)

    pieces = list(
        complete(
            client,
            max_tokens=20,
            n=2,
            logprobs=2,
            stream=True,
            stream_options={"include_usage": True},
        )
    )

    *steps, last = pieces
    for choice in whole.choices:
        mine = [step.choices[0] for step in steps if step.choices[0].index == choice.index]
        assert "".join(it.text for it in mine) == choice.text
        tokens = [token for it in mine for token in it.logprobs.tokens]
        offsets = [offset for it in mine for offset in it.logprobs.text_offset]
        assert (tokens, offsets) == (choice.logprobs.tokens, choice.logprobs.text_offset)
        assert [it.finish_reason for it in mine][-1] == choice.finish_reason
    assert last.usage == whole.usage
    assert last.choices == []
    assert all(step.usage is None for step in steps)


def test_completion_logprobs_are_those_of_the_python_face(client: OpenAI, llama: Llama) -> None:
    prompt = llama.tokenizer.encode(STORY, bos=True)
    _, expected = llama.generate([prompt], 12, temperature=0, logprobs=True)
    assert expected is not None

    found = complete(client, max_tokens=12, logprobs=3).choices[0].logprobs

    assert found.token_logprobs == pytest.approx(expected[0], abs=1e-4)
    for token, logprob, top in zip(
        found.tokens, found.token_logprobs, found.top_logprobs, strict=True
    ):
        assert len(top) == 3
        assert max(top.values()) == top[token] == logprob
    for token, offset in zip(found.tokens, found.text_offset, strict=True):
        assert complete(client, max_tokens=12).choices[0].text[offset:].startswith(token)


def test_echo_shows_the_prompt_and_its_logprobs(client: OpenAI, llama: Llama) -> None:
    prompt = llama.tokenizer.encode(STORY, bos=True)
    _, expected = llama.generate([prompt], 1, temperature=0, logprobs=True, echo=True)
    assert expected is not None

    answer = complete(client, max_tokens=0, echo=True, logprobs=1)

    (choice,) = answer.choices
    assert choice.text == STORY
    assert answer.usage.completion_tokens == 0
    assert choice.logprobs.token_logprobs[0] is None
    assert choice.logprobs.token_logprobs[1:] == pytest.approx(expected[0][1:-1], abs=1e-4)
    assert [STORY[offset:][:4] for offset in choice.logprobs.text_offset] == [
        "Once",
        "Once",
        " upo",
        " a t",
        " tim",
    ][: len(prompt)]


def test_logprobs_of_a_completion_end_with_the_stop_token(client: OpenAI, llama: Llama) -> None:
    # lm-eval takes the last entry off, since it asks for one token more than it scores
    prompt = llama.tokenizer.encode(STORY, bos=True)
    likeliest = llama.generate([prompt], 1, temperature=0)[0][0]
    token = complete(client, max_tokens=1, logprobs=1).choices[0].logprobs

    stopped = complete(
        client, max_tokens=1, logprobs=1, echo=True, extra_body={"stop_token_ids": likeliest}
    )

    (choice,) = stopped.choices
    assert (choice.text, choice.finish_reason) == (STORY, "stop")
    assert stopped.usage.completion_tokens == 0
    assert choice.logprobs.tokens[-1:] == token.tokens
    assert choice.logprobs.top_logprobs[-1] == token.top_logprobs[0]
    assert len(choice.logprobs.tokens) == stopped.usage.prompt_tokens + 1


def test_a_chat_is_answered(client: OpenAI, llama: Llama) -> None:
    expected = "".join(llama.stream_chat(QUESTION, temperature=0))  # type: ignore[arg-type]

    answer = chat(client)

    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content == expected
    assert answer.choices[0].finish_reason == "stop"
    assert answer.object == "chat.completion"


def test_a_chat_is_streamed(client: OpenAI) -> None:
    whole = chat(client).choices[0].message.content

    pieces = list(chat(client, stream=True))

    assert pieces[0].choices[0].delta.role == "assistant"
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == whole
    assert pieces[-1].choices[0].finish_reason == "stop"
    assert len({piece.id for piece in pieces}) == 1
    assert len(pieces) > 5


def test_a_chat_tells_logprobs_with_alternatives(client: OpenAI, llama: Llama) -> None:
    prompt = llama.prompt_format().encode(QUESTION)  # type: ignore[arg-type]
    _, expected = llama.generate([prompt], 6, temperature=0, logprobs=True)
    assert expected is not None

    found = chat(client, max_tokens=6, logprobs=True, top_logprobs=4).choices[0].logprobs.content
    streamed = [
        it
        for piece in chat(client, max_tokens=6, logprobs=True, top_logprobs=4, stream=True)
        if piece.choices[0].logprobs
        for it in piece.choices[0].logprobs.content
    ]

    assert [it.logprob for it in found] == pytest.approx(expected[0], abs=1e-4)
    assert [it.token for it in streamed] == [it.token for it in found]
    for it in found:
        scores = [other.logprob for other in it.top_logprobs]
        assert len(scores) == 4
        assert scores == sorted(scores, reverse=True)
        assert it.top_logprobs[0].token == it.token
        assert bytes(it.bytes).decode() == it.token


def test_max_completion_tokens_and_max_tokens_bound_a_chat(client: OpenAI) -> None:
    assert chat(client, max_tokens=3).usage.completion_tokens == 3
    assert chat(client, max_completion_tokens=4).usage.completion_tokens == 4
    assert chat(client, max_tokens=3).choices[0].finish_reason == "length"


def test_content_may_be_parts_and_a_developer_speaks_for_the_system(client: OpenAI) -> None:
    plain = [{"role": "system", "content": "Be short."}, *QUESTION]
    parts = [
        {"type": "text", "text": "How do I verify "},
        {"type": "text", "text": "a checkpoint?"},
    ]

    answer = chat(
        client,
        messages=[
            {"role": "developer", "content": "Be short."},
            {"role": "user", "content": parts},
        ],
    )

    assert answer.choices[0].message == chat(client, messages=plain).choices[0].message


def test_logit_bias_forbids_a_token(client: OpenAI, llama: Llama) -> None:
    prompt = llama.tokenizer.encode(STORY, bos=True)
    first = llama.generate([prompt], 1, temperature=0)[0][0][0]

    free = complete(client, max_tokens=1).choices[0].text
    biased = complete(client, max_tokens=1, logit_bias={str(first): -100}).choices[0].text

    assert free != biased


def test_penalties_change_what_repeats(client: OpenAI) -> None:
    def answer(**settings: Any) -> str:
        text: str = complete(client, prompt="a a a a", max_tokens=40, **settings).choices[0].text
        return text

    for name in ("frequency", "presence"):
        penalized = answer(**{f"{name}_penalty": 2})
        as_typed = answer(extra_body={"processors": [f"{name}-penalty:penalty=2"]})

        assert penalized != answer()
        assert penalized == as_typed


def test_top_p_zero_takes_the_likeliest(client: OpenAI) -> None:
    assert (
        complete(client, temperature=1, top_p=0).choices[0].text == complete(client).choices[0].text
    )


def test_registered_samplers_and_processors_can_be_named(client: OpenAI) -> None:
    greedy = complete(client).choices[0].text

    for body in (
        {"sampler": "greedy"},
        {"sampler": "draw", "processors": ["top-k:k=1"]},
        {"sampler": "draw", "processors": [{"name": "top-k", "options": {"k": 1}}]},
        {"sampler": "top-p", "sampler_options": {"p": 0.0}},
        {"sampler": {"name": "top-p", "options": {"p": 0.0}}},
        {"sampler": {"name": "greedy"}},
        {"sampler": "top-p:p=0"},
    ):
        answer = client.completions.create(model="llama-demo", prompt=STORY, extra_body=body)
        assert answer.choices[0].text == greedy, body
    named = chat(client, extra_body={"prompt_format": "llama2"})
    assert named.choices[0].message == chat(client).choices[0].message


def test_json_mode_answers_json_or_says_what_is_missing(client: OpenAI, llama: Llama) -> None:
    number = {"type": "integer", "minimum": 0, "maximum": 999}
    schema = {"type": "object", "properties": {"a": number}, "required": ["a"]}
    schema |= {"additionalProperties": False}
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
    if "json-schema" not in llama.toolkit.processors:
        for response_format in (wanted, {"type": "json_object"}):
            with pytest.raises(openai.BadRequestError, match="json-schema") as caught:
                chat(client, response_format=response_format)
            assert caught.value.param == "response_format"
        return

    answer = chat(client, response_format=wanted, max_tokens=60)

    assert isinstance(json.loads(answer.choices[0].message.content)["a"], int)


def test_the_clients_own_helpers_work(server: Running, client: OpenAI, llama: Llama) -> None:
    class Person(pydantic.BaseModel):
        name: Literal["Ann", "Bob"]
        is_old: bool

    if "json-schema" in llama.toolkit.processors:
        parsed = client.chat.completions.parse(
            model="llama-demo",
            messages=QUESTION,  # type: ignore[arg-type]
            response_format=Person,
        )
        assert isinstance(parsed.choices[0].message.parsed, Person)
    with client.chat.completions.stream(
        model="llama-demo",
        messages=QUESTION,  # type: ignore[arg-type]
        temperature=0,
    ) as stream:
        text = "".join(event.delta for event in stream if event.type == "content.delta")
    assert text == chat(client).choices[0].message.content

    async def several() -> list[str]:
        url = f"{server.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as asker:
            asked = (asker.completions.create(model="llama-demo", prompt=STORY) for _ in range(9))
            return [answer.choices[0].text for answer in await asyncio.gather(*asked)]

    assert len(asyncio.run(several())) == 9


def test_text_as_a_response_format_changes_nothing(client: OpenAI) -> None:
    assert (
        chat(client, response_format={"type": "text"}).choices[0].message
        == chat(client).choices[0].message
    )


def test_fields_that_change_nothing_here_are_taken(client: OpenAI) -> None:
    answer = chat(client, user="somebody", metadata={"a": "b"}, store=False, max_tokens=2)

    assert answer.usage.completion_tokens == 2


def test_text_becomes_tokens_and_text_again(server: Running, llama: Llama) -> None:
    found = server.post("/tokenize", {"text": STORY}).json()
    chat_ids = server.post("/tokenize", {"messages": QUESTION}).json()

    assert found["tokens"] == llama.tokenizer.encode(STORY, bos=True)
    assert found["count"] == len(found["pieces"]) == len(found["tokens"])
    assert "".join(found["pieces"][1:]).strip() == STORY
    assert chat_ids["tokens"] == llama.prompt_format().encode(QUESTION)  # type: ignore[arg-type]
    assert server.post("/detokenize", {"tokens": found["tokens"]}).json()["text"] == STORY
