"""``/tokenize``, ``/detokenize`` and ``/tokenizer_info``, as clients of other servers ask them."""

from __future__ import annotations

from typing import Any

import jinja2
import pytest
from server_kit import QUESTION, STORY, Running

from llamakit.api import Llama
from llamakit.serve.special_text import SpecialText
from llamakit.serve.tokenizer_answers import TOKENS_A_TURN


def ask(server: Running, **body: Any) -> dict[str, Any]:
    response = server.post("/tokenize", body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_a_prompt_is_tokenized_as_vllm_does(server: Running, llama: Llama) -> None:
    tokens = llama.tokenizer.encode(STORY)

    found = ask(server, model=None, prompt=STORY, return_token_strs=True)

    assert found.pop("token_strs")[0] == "<s>"
    assert found == {"count": 1 + len(tokens), "max_model_len": 256, "tokens": [1, *tokens]}
    assert ask(server, prompt=STORY, add_special_tokens=False)["tokens"] == tokens


def test_a_dialog_is_tokenized_as_a_chat_request_would_be(server: Running) -> None:
    tools = [{"type": "function", "function": {"name": "weather"}}]
    beginning = {"role": "assistant", "content": "It is"}
    body = {"messages": [*QUESTION, beginning], "continue_final_message": True}
    used = server.post("/v1/chat/completions", {**body, "max_tokens": 1}).json()["usage"]

    found = ask(server, **body, return_token_strs=True, add_generation_prompt=False)

    assert found["count"] == used["prompt_tokens"] == len(found["token_strs"])
    assert ask(server, **body, add_special_tokens=True)["tokens"] == [1, *found["tokens"]]
    assert ask(server, messages=QUESTION, tools=tools)["count"] > 20


def test_content_is_tokenized_as_llama_cpp_does(server: Running, llama: Llama) -> None:
    tokens = llama.tokenizer.encode("half \N{CLOUD}")

    pieces = ask(server, content="half \N{CLOUD}", add_special=True, with_pieces=True)["tokens"]

    assert ask(server, content="half \N{CLOUD}")["tokens"] == tokens
    assert [piece["id"] for piece in pieces] == [1, *tokens]
    assert pieces[0]["piece"] == "<s>"
    assert [piece["piece"] for piece in pieces[-3:]] == [[byte] for byte in "\N{CLOUD}".encode()]
    assert ask(server, content="")["tokens"] == []


def test_names_of_special_tokens_are_those_tokens_where_other_servers_do_so(
    server: Running, llama: Llama
) -> None:
    encode = llama.tokenizer.encode
    text = "a</s><s><s"

    found = ask(server, prompt=text, add_special_tokens=False)["tokens"]

    assert found == [*encode("a"), 2, 1, *encode("<s")] == ask(server, content=text)["tokens"]
    assert ask(server, content=text, parse_special=False)["tokens"] == encode(text)
    assert ask(server, text=text, bos=False)["tokens"] == encode(text)
    decoded = server.post("/detokenize", {"tokens": found}).json()
    assert decoded == {"text": llama.tokenizer.decode(found), "prompt": text, "content": text}


def test_the_longest_name_of_a_special_token_counts(llama: Llama) -> None:
    class Tokenizer:
        bos_id, eos_id = 7, 8

        def special_ids(self) -> dict[str, int]:
            return {"<a>": 7, "<a>b": 8, " ": 9}

        def encode(self, text: str) -> list[int]:
            return [len(text)]

        def decode(self, tokens: list[int]) -> str:
            return f"({len(tokens)})"

    text: Any = SpecialText(Tokenizer())  # type: ignore[arg-type]

    assert text.encode("x <a>b<a<a>") == [2, 8, 2, 7]
    assert text.decode([2, 8, 2, 3, 7]) == "(1)<a>b(2)<a>"


def test_a_long_answer_is_whole(server: Running, llama: Llama) -> None:
    text = "How do I reshard it? " * 400
    tokens = llama.tokenizer.encode(text, bos=True)
    assert len(tokens) > TOKENS_A_TURN

    found = ask(server, text=text, return_token_strs=True)

    assert found["tokens"] == tokens
    assert found["count"] == len(found["pieces"]) == len(found["token_strs"]) == len(tokens)


def test_lm_evals_remote_tokenizer_finds_what_it_reads(server: Running, llama: Llama) -> None:
    """What ``RemoteTokenizer`` of lm_eval 0.4.13, ``lm_eval/utils.py``, asks in this order."""
    info = server.get("/tokenizer_info").json()

    def encode(text: str) -> Any:
        return ask(server, prompt=text, add_special_tokens=False)["tokens"]

    assert (encode(info["bos_token"]), encode(info["eos_token"])) == ([1], [2])
    assert info["pad_token"] is None
    assert server.post("/detokenize", {"tokens": encode(STORY)}).json()["prompt"] == STORY
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    template = environment.from_string(info["chat_template"])
    written = template.render(messages=QUESTION, add_generation_prompt=True)
    expected = llama.prompt_format().encode(QUESTION)  # type: ignore[arg-type]
    assert encode(written.strip()) == expected
    assert info["model_max_length"] == 256


@pytest.mark.parametrize(
    ("path", "body"), [("/tokenize", {"prompt": "a"}), ("/detokenize", {"tokens": [1]})]
)
def test_another_model_than_the_server_s_is_refused(
    server: Running, path: str, body: dict[str, Any]
) -> None:
    response = server.post(path, {"model": "gpt-4", **body})

    assert response.status_code == 404
    assert "no model 'gpt-4'" in response.json()["error"]["message"]
