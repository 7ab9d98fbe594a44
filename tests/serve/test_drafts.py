"""Drafts: several tokens a step, and the same answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from server_kit import STORY, Running, demo_folder, thread, wait_until

from llamakit.api import Llama

LIST = "one two three four five six one two three four five six one two three"


@pytest.fixture(scope="module", params=["prompt-lookup", "a draft model"])
def drafting(request: pytest.FixtureRequest, llama: Llama) -> Iterator[Running]:
    """A server that drafts; the bundled demo model is its own draft model."""
    name = "prompt-lookup:least=1" if request.param == "prompt-lookup" else str(demo_folder())
    with thread(llama, drafter=llama.drafter(name)) as running:
        yield running


def bodies() -> list[dict[str, Any]]:
    return [
        {
            "prompt": (LIST, STORY, "How do I verify a checkpoint?")[number % 3],
            "max_tokens": 20 + number,
            "temperature": (0, 0.7)[number % 2],
            "seed": number,
            "stop": [" sea"] if number % 4 == 0 else None,
            "n": 1 + number % 2,
        }
        for number in range(9)
    ]


def test_answers_are_the_same_with_drafts_alone_and_in_a_crowd(
    server: Running, drafting: Running
) -> None:
    def ask(running: Running, body: dict[str, Any]) -> Any:
        return running.post("/v1/completions", body).json()["choices"]

    expected = [ask(server, body) for body in bodies()]
    alone = [ask(drafting, body) for body in bodies()]
    with ThreadPoolExecutor(9) as threads:
        crowd = list(threads.map(lambda body: ask(drafting, body), bodies()))

    assert alone == expected
    assert crowd == expected


def test_metrics_say_how_many_drafts_were_right(drafting: Running) -> None:
    written = drafting.metric("new_tokens_total")

    drafting.post("/v1/completions", {"prompt": LIST, "max_tokens": 40, "temperature": 0})

    wait_until(lambda: drafting.metric("new_tokens_total") >= written + 40)
    drafted, accepted = map(drafting.metric, ("drafted_tokens_total", "accepted_tokens_total"))
    assert 0 < accepted <= drafted


def test_a_drafter_that_there_is_not_is_refused_before_anything_is_loaded(
    run_llamakit: Callable[..., Any],
) -> None:
    result = run_llamakit("serve", "--draft", "prompt-lokup", "-m", "nowhere")

    assert result.returncode == 2
    assert "no drafter is called 'prompt-lokup'; did you mean 'prompt-lookup'?" in result.stderr
