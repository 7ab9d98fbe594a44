"""What ranks send one another: there and back the same, and nothing else is taken."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamakit.errors import LlamakitError, ParallelError, PromptTooLongError
from llamakit.runtime.model import Batch
from llamakit.runtime.rank_messages import decode, encode
from llamakit.runtime.requests import Event, Scores

MESSAGES: list[tuple[Any, ...]] = [
    ("bye", None),
    ("end", None),
    ("load", {"path": "llama-2-7b", "dtype": "auto", "batch": 8, "compile": None}),
    ("item", Event(3, 7, -0.25, "stop", (0.0, -1.5), top=((7, -0.25), (8, -2.0)))),
    ("item", Event(0, None, finish="cancelled", seen=Scores(float("-inf"), ((1, 0.5),)))),
    (0, "forward", (1, Batch(((1, 2), (3, 4)), (0, 5), slot=2, lengths=(2, 1)))),
    (2, "resize_cache", (1, 4, 256, 12)),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda it: str(it[0]))
def test_there_and_back_a_message_is_the_same(message: tuple[Any, ...]) -> None:
    assert decode(encode(message)) == message


@pytest.mark.parametrize(
    ("error", "arrives"),
    [
        (PromptTooLongError("512 tokens"), "PromptTooLongError('512 tokens')"),
        (ValueError("no"), "ValueError('no')"),
        (pickle.PicklingError("odd"), "ParallelError('rank 0: PicklingError: odd')"),
    ],
)
def test_an_error_arrives_as_its_class_and_message(error: Exception, arrives: str) -> None:
    assert repr(decode(encode(("error", error)))[1]) == arrives


class Exploding:
    """What an attacker would send to a rank that unpickles."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a rank ran what it was sent",))


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(("bye", Exploding())),
        b"",
        b"[" * 100_000,
        b'"bye"',
        b'["halt", null]',
        b'[0, "__init__", []]',
        b'[0, "model", []]',
        b'[-1, "forward", []]',
        b'[true, "forward", []]',
        b'[0, {"type": "dict", "items": []}, []]',
        b'[{"type": "dict", "items": []}, null]',
        b'[{"type": "Scores", "logprob": [{"type": "dict", "items": []}], "top": []}, null]',
        b'["0", "forward", []]',
        b'[0, "forward", {}]',
        b'["item", {"type": "os.system"}]',
        b'["item", {"type": "Event", "index": 0}]',
        b'["item", {"type": "Event", "index": 0, "token": 1, "more": 2}]',
        b'["item", {"no": "type"}]',
        b'["error", {"type": "error", "name": "SystemExit"}]',
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(ParallelError):
        decode(data)


@pytest.mark.parametrize("name", ["SystemExit", "eval", "KeyboardInterrupt", "LlamakitError.mro"])
def test_a_name_that_is_no_error_becomes_a_parallel_error(name: str) -> None:
    data = json.dumps(["error", {"type": "error", "name": name, "message": "x"}]).encode()

    assert isinstance(decode(data)[1], ParallelError)


@given(
    st.binary()
    | st.recursive(
        st.none()
        | st.integers()
        | st.text(max_size=8)
        | st.sampled_from(["bye", "forward", "Batch"]),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["type", "items", "name", "index"]), inner, max_size=4
            )
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_whatever_arrives_is_a_message_or_a_parallel_error(data: bytes) -> None:
    try:
        message = decode(data)
    except LlamakitError:
        return
    assert isinstance(message, tuple)
