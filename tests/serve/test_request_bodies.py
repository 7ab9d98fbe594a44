"""Bodies of requests: large ones, compressed ones, and those that would keep others waiting."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import socket
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from server_kit import (
    HTTP,
    QUESTION,
    STORY,
    Running,
    begin,
    head,
    read_all,
    say,
    thread,
    wait_until,
)

from llamakit.api import Llama
from llamakit.serve.api_errors import ApiError
from llamakit.serve.body_check import BODIES, MOST_VALUES, BodyLimits, checked_body
from llamakit.serve.body_process import BodyProcess
from llamakit.serve.server_settings import Limits

COMPLETIONS = "/v1/completions"
LIMITS = BodyLimits(nbytes=1 << 20, choices=16, context=256)
SHORT = {"prompt": STORY, "max_tokens": 1}


@pytest.fixture(scope="module")
def running(llama: Llama) -> Iterator[Running]:
    with thread(llama, limits=Limits(choices=16)) as running:
        yield running


@pytest.fixture
def encoded(llama: Llama, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The strings that the tokenizer has encoded."""
    texts: list[str] = []
    encode = llama.tokenizer.encode

    def noting(text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        texts.append(text)
        return encode(text, bos=bos, eos=eos)

    monkeypatch.setattr(llama.tokenizer, "encode", noting)
    return texts


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        (COMPLETIONS, {"prompt": [""] * 300_000}, "300000 prompts with n=1 are 300000 answers"),
        (COMPLETIONS, {"prompt": ["a"] * 5, "n": 4}, "5 prompts with n=4 are 20 answers"),
        (COMPLETIONS, {"prompt": [1] * 300_000}, "maximum context length is 256 tokens. However"),
        (COMPLETIONS, {"prompt": [[1] * 300] * 2}, "you requested 301 tokens"),
        (COMPLETIONS, {"prompt": "a" * 1_000_000}, "maximum context length is 256 tokens. How"),
        (COMPLETIONS, {"prompt": "a", "metadata": {str(n): 0 for n in range(60_000)}}, "values"),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "a" * 500_000}]},
            "you requested at least",
        ),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * 25_000}]},
            f"expected {MOST_VALUES} or less",
        ),
        ("/v1/chat/completions", {"messages": QUESTION, "n": 17}, "1 prompts with n=17"),
        ("/detokenize", {"tokens": [1] * 200_000}, "tokens has 200000 entries"),
        ("/v1/moderations", {"input": [""] * 300_000}, "input has 300000 texts"),
    ],
)
def test_what_is_too_much_is_counted_and_not_encoded(
    running: Running, encoded: list[str], path: str, body: Any, words: str
) -> None:
    response = running.post(path, body)

    assert response.status_code == 400
    assert words in response.json()["error"]["message"]
    assert encoded == []


def test_a_small_chat_is_answered_before_hostile_requests_that_came_earlier(
    llama: Llama, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr("llamakit.serve.middleware.write", lambda it: lines.append(json.loads(it)))
    with thread(llama, json_log=True) as running:
        hostile = [begin(running, {"prompt": [""] * 250_000}) for _ in range(10)]

        running.post("/v1/chat/completions", {"messages": QUESTION, "max_tokens": 1})

        wait_until(lambda: "/v1/chat/completions" in [line["path"] for line in lines])
        for connection in hostile:
            connection.close()
    paths = [line["path"] for line in lines]
    assert paths.index("/v1/chat/completions") <= 1  # one of the hostile ones may be under way


@pytest.mark.parametrize("size", [0, 100_000])
@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "identity"])
def test_a_compressed_body_is_read(running: Running, encoding: str, size: int) -> None:
    plain = json.dumps(SHORT).encode() + b" " * size
    compress = {"deflate": zlib.compress, "identity": bytes}.get(encoding, gzip.compress)

    response = post_encoded(running, compress(plain), encoding)

    assert response.status_code == 200


def test_a_bomb_is_not_decompressed_further_than_the_limit(running: Running) -> None:
    bomb = gzip.compress(b'{"prompt": "' + b"a" * (200 << 20) + b'"}', 1)

    assert post_encoded(running, bomb, "gzip").status_code == 413
    assert post_encoded(running, gzip.compress(b"{}")[:-5], "gzip").status_code == 400
    assert post_encoded(running, gzip.compress(b"{}") * 2, "gzip").status_code == 400
    assert post_encoded(running, b"{}", "gzip").status_code == 400


def test_no_request_fails_when_the_process_for_bodies_was_ended() -> None:
    data = json.dumps(SHORT).encode()
    reader = BodyProcess(LIMITS)

    async def read_around_an_end() -> list[Any]:
        bodies = [await reader.read(data, "", COMPLETIONS)]
        assert reader._process is not None
        reader._process.kill()
        bodies.append(await reader.read(data, "", COMPLETIONS))
        await reader.close()
        return bodies

    assert asyncio.run(read_around_an_end()) == [SHORT, SHORT]


@pytest.mark.skipif(not hasattr(os, "setpgid"), reason="processes have no groups here")
def test_the_process_for_large_bodies_comes_after_the_server() -> None:
    """In a session of its own its priority would count among itself only (Linux's autogroups)."""
    reader = BodyProcess(LIMITS)

    async def look() -> tuple[int, int, bool]:
        await reader.read(json.dumps(SHORT).encode(), "", COMPLETIONS)
        assert reader._process is not None
        pid = reader._process.pid
        state = os.getpriority(os.PRIO_PROCESS, pid), os.getsid(pid), os.getpgid(pid) == pid
        await reader.close()
        return state

    assert asyncio.run(look()) == (19, os.getsid(0), True)


def test_an_encoding_that_is_not_read_is_named(running: Running) -> None:
    response = post_encoded(running, b"{}", "br")

    assert response.status_code == 415
    assert "'br'; expected gzip or deflate" in response.json()["error"]["message"]
    assert response.headers["accept-encoding"] == "gzip, deflate"


def post_encoded(running: Running, data: bytes, encoding: str) -> Any:
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    return HTTP.post(f"{running.url}{COMPLETIONS}", content=data, headers=headers)


def test_large_and_small_bodies_are_refused_with_the_same_words(running: Running) -> None:
    for body in ({"prompt": 5}, {"prompt": "a", "temperature": 1000}, {"promt": "a"}, []):
        small = running.post(COMPLETIONS, body).json()
        large = HTTP.post(
            f"{running.url}{COMPLETIONS}",
            content=json.dumps(body).encode() + b" " * 9000,
            headers={"Content-Type": "application/json"},
        ).json()
        assert large == small


def test_a_body_that_is_whole_arrives_whole(llama: Llama) -> None:
    text = '\u20ac"\\\n\U0001f600' * 2000
    body = {"prompt": "a", "metadata": {"a": text, "b": [2.0, 1.5, None, True]}}

    checked = checked_body(json.dumps(body).encode(), "", COMPLETIONS, LIMITS)

    assert checked == body
    assert type(checked["metadata"]["b"][0]) is int
    assert set(BODIES) == {"/v1/chat/completions", "/v1/responses", "/v1/moderations"} | {
        COMPLETIONS,
        "/v1/embeddings",
        "/tokenize",
        "/detokenize",
    }
    with pytest.raises(ApiError, match="the body"):
        checked_body(b"[]", "", COMPLETIONS, LIMITS)
    with thread(llama) as running:
        assert running.post("/detokenize", {"tokens": [300] * 5000}).status_code == 200
        count = running.post("/tokenize", {"text": text}).json()
        assert count["count"] == len(count["pieces"]) == len(count["tokens"]) > 6000


def test_lengths_that_contradict_each_other_end_the_connection(running: Running) -> None:
    body = json.dumps(SHORT).encode()
    chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    smuggled = head("/nothing", Content_Length="0")
    both = head(COMPLETIONS, Content_Length=str(len(chunk)), Transfer_Encoding="chunked")
    old = both.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Content-Length", b"X-Length")
    two = head(COMPLETIONS, Content_Length="5").replace(
        b"\r\n\r\n", b"\r\nContent-Length: 6\r\n\r\n"
    )
    list_of = head(COMPLETIONS, Content_Length="5, 6")
    coded = head(COMPLETIONS, Transfer_Encoding="gzip, chunked")

    for begun in (both, old, two, list_of, coded):
        answer = say(running.address, begun + chunk + smuggled)
        assert answer.startswith(b"HTTP/1.1 400 "), begun
        assert answer.count(b"HTTP/1.1 ") == 1


def test_a_body_that_turns_out_invalid_after_the_answer_ends_the_connection(
    running: Running, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_connection(running.address, timeout=20) as connection:
        connection.sendall(head("/nothing", Transfer_Encoding="chunked") + b"1\r\n{\r\n")
        answered = connection.recv(65536)
        connection.sendall(b"not a length\r\n")
        after = read_all(connection)

    assert answered.startswith(b"HTTP/1.1 404 ")
    assert b"HTTP/1.1 " not in after
    assert "Traceback" not in capfd.readouterr().err
