"""Lines of OpenAI's batch files: what of them is read, refused, carried through and answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion

from llamakit.cli.main import main
from llamakit.errors import FileFormatError
from llamakit.llama.prompts import Prompt, read_prompts

DIALOG = [{"role": "user", "content": "hello"}]
CHAT = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions"}


def read(tmp_path: Path, *lines: dict[str, Any]) -> list[Prompt]:
    file = tmp_path / "batch.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_prompts((), file)


def test_the_fields_of_a_request_are_read(tmp_path: Path) -> None:
    body = {
        **{"model": "gpt-4o", "messages": DIALOG, "seed": 4, "temperature": 0.2, "top_p": 0.5},
        **{"max_completion_tokens": 7, "max_tokens": 9, "stop": "END", "n": 1, "stream": False},
        **{"frequency_penalty": 0.5, "presence_penalty": 0, "logit_bias": {"13": -5}, "user": None},
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
    }

    (prompt,) = read(tmp_path, {**CHAT, "body": body, "team": {"name": "x"}})

    own = prompt.own
    assert (prompt.id, prompt.dialog, prompt.seed) == ("a", DIALOG, 4)
    assert prompt.more == {"team": {"name": "x"}}
    assert own is not None
    assert (own.temperature, own.top_p, own.max_new_tokens, own.stop) == (0.2, 0.5, 7, ("END",))
    assert [tuple(it) for it in own.processors] == [
        ("json-schema", {"schema": "{}"}),
        ("logit-bias", {"bias": "13:-5"}),
        ("frequency-penalty", {"penalty": 0.5}),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"body": {"messages": DIALOG, "n": 2}}, "n is 2; expected 1"),
        ({"body": {"messages": DIALOG, "n": True}}, "n is True; expected 1"),
        (
            {"body": {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}},
            "messages have to be",
        ),
        ({"body": {"messages": DIALOG, "stream": True}}, "stream is True; expected False"),
        ({"body": {"messages": DIALOG, "audio": {}}}, "the body has 'audio', which is not read"),
        ({"body": {"messages": DIALOG, "temperature": "hot"}}, "temperature is hot"),
        ({"body": {"messages": DIALOG, "max_tokens": 0}}, "max_tokens is 0"),
        ({"body": {"messages": DIALOG, "max_tokens": True}}, "max_tokens is True"),
        ({"body": {"messages": DIALOG, "stop": [1]}}, "stop has to be"),
        ({"body": {"messages": DIALOG, "logit_bias": 1}}, "logit_bias has to be"),
        ({"body": {"messages": DIALOG, "response_format": {"type": "x"}}}, "response_format is"),
        ({"body": {"messages": "hello"}}, "messages have to be a list"),
        ({"body": {"prompt": "x"}}, "the body has no messages"),
        ({"body": {"prompt": ["x"]}, "url": "/v1/completions"}, "prompt has to be a string"),
        ({"body": {"input": "x"}, "url": "/v1/embeddings"}, "url is '/v1/embeddings'"),
        ({"body": "x"}, "a body that is an object"),
        ({"body": {"messages": DIALOG}, "method": "GET"}, '"method": "POST"'),
        ({"body": {"messages": DIALOG}, "error": 1}, "the key 'error' is one of the answer's"),
    ],
)
def test_what_is_not_done_is_refused_by_line_and_name(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(FileFormatError, match="line 1: ") as refused:
        read(tmp_path, {**CHAT, **change})

    assert message in str(refused.value)


def test_messages_are_read_as_openais_clients_write_them(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "Good"}, {"type": "text", "text": "morning"}]
    dialog = [{"role": "developer", "content": "Be brief"}, {"role": "user", "content": parts}]

    batch, plain = read(
        tmp_path, {**CHAT, "body": {"messages": dialog, "max_tokens": -1}}, {"messages": dialog}
    )

    expected = [
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": "Good\nmorning"},
    ]
    assert batch.dialog == plain.dialog == expected
    assert batch.own is not None
    assert batch.own.max_new_tokens is None


def test_other_keys_of_a_plain_line_are_carried_through(tmp_path: Path) -> None:
    (prompt,) = read(tmp_path, {"prompt": "x", "custom_id": "a", "label": 3})

    assert (prompt.id, prompt.more) == ("a", {"custom_id": "a", "label": 3})


@pytest.fixture
def answered(tmp_path: Path, reference_cases: Path) -> Path:
    """Return a file with the answers to three requests of different settings."""
    bodies = [
        {"messages": DIALOG, "temperature": 0, "max_tokens": 3},
        {"messages": DIALOG, "temperature": 0, "max_tokens": 5},
        {"messages": DIALOG, "temperature": 0, "max_tokens": 3},
    ]
    lines = [{**CHAT, "custom_id": f"r{at}", "body": it} for at, it in enumerate(bodies)]
    text = {"custom_id": "r3", "url": "/v1/completions", "body": {"prompt": "one", "max_tokens": 2}}
    read(tmp_path, *lines, {**text, "team": "x"})
    assert answer(tmp_path, reference_cases) == 0
    return tmp_path / "out.jsonl"


def answer(folder: Path, reference_cases: Path) -> int:
    return main(
        ["generate", "-m", str(reference_cases / "gqa-mp1"), "--dtype", "float32"]
        + ["--prompts", str(folder / "batch.jsonl"), "--output", str(folder / "out.jsonl")]
    )


def test_the_answers_are_lines_of_openais_output_file(answered: Path) -> None:
    lines = {it["custom_id"]: it for it in map(json.loads, answered.read_text().splitlines())}

    bodies = {name: line["response"]["body"] for name, line in lines.items()}
    chats = [ChatCompletion.model_validate(bodies[f"r{at}"]) for at in range(3)]
    text = Completion.model_validate(bodies["r3"])
    assert [it.usage.completion_tokens for it in chats if it.usage] == [3, 5, 3]
    assert chats[0].choices[0].message.content == chats[2].choices[0].message.content
    assert chats[0].choices[0].finish_reason == text.choices[0].finish_reason == "length"
    assert {line["response"]["status_code"] for line in lines.values()} == {200}
    assert {line["error"] for line in lines.values()} == {None}
    assert lines["r3"]["team"] == "x"


def test_a_batch_is_resumed_and_a_changed_request_is_refused(
    answered: Path, reference_cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = answered.read_bytes()
    answered.write_bytes(whole[:-30])  # as a kill leaves it
    folder = answered.parent

    assert answer(folder, reference_cases) == 0
    assert len(answered.read_text().splitlines()) == 4
    requests = (folder / "batch.jsonl").read_text()
    (folder / "batch.jsonl").write_text(requests.replace('"max_tokens": 5', '"max_tokens": 6'))
    assert answer(folder, reference_cases) == 1
    assert "the answer to another prompt whose id is 'r1'" in capsys.readouterr().err
