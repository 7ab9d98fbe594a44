"""One engine for several threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_kit import answers, counting, ids, request

from llamakit.api import Llama
from llamakit.errors import LlamakitError, PromptTooLongError
from llamakit.runtime.generator import Generator
from llamakit.runtime.service import Service


@pytest.fixture(scope="module")
def llama(reference_cases: Path) -> Llama:
    return Llama.build(str(reference_cases / "gqa-mp1"), max_seq_len=512, dtype="float32")


@pytest.fixture
def service(llama: Llama) -> Iterator[Service]:
    executor = counting(llama)
    service = Service(lambda: Generator(executor, 4, 256, chunk=32))
    yield service
    service.close()
    assert executor._caches == {}


def test_requests_of_many_threads_are_answered_as_alone(llama: Llama, service: Service) -> None:
    asked = [
        request(ids(5 + 9 * number, seed=number), 12, temperature=0.8, seed=number)
        for number in range(12)
    ]
    alone = [answers(counting(llama), [it]) for it in asked]
    found: dict[int, list[tuple[int | None, float | None]]] = {}

    def ask(number: int) -> None:
        events = list(service.submit(asked[number]))
        found[number] = [(event.token, event.logprob) for event in events]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for number, (tokens, logprobs) in enumerate(alone):
        assert [token for token, _ in found[number]] == tokens[0]
        assert [logprob for _, logprob in found[number]] == pytest.approx(logprobs[0], abs=1e-4)


def test_a_request_that_is_cancelled_ends_and_the_others_go_on(service: Service) -> None:
    long, short = service.submit(request(ids(5), 200)), service.submit(request(ids(9), 20))
    events = iter(long)
    next(events)

    long.cancel()

    assert list(events)[-1].finish == "cancelled"
    assert [event.finish for event in short][-1] == "length"


def test_a_refused_request_says_so_and_harms_nobody(service: Service) -> None:
    good = service.submit(request(ids(5), 20))

    with pytest.raises(PromptTooLongError):
        list(service.submit(request(ids(300), 5)))

    assert len(list(good)) == 20


def test_after_a_failure_everybody_hears_of_it_and_the_next_is_answered(service: Service) -> None:
    def fail(_logits: object, _rows: object) -> None:
        raise OverflowError("on purpose")

    class Failing:
        sampler = staticmethod(fail)
        processors = ()
        __call__ = staticmethod(fail)

    good = service.submit(request(ids(5), 150))
    bad = service.submit(request(ids(6), 5, sampling=Failing()))

    with pytest.raises(OverflowError, match="on purpose"):
        list(bad)
    with pytest.raises(OverflowError, match="on purpose"):
        list(good)

    assert len(list(service.submit(request(ids(7), 5)))) == 5


def test_closing_ends_what_is_under_way(llama: Llama) -> None:
    executor = counting(llama)
    service = Service(lambda: Generator(executor, 2, 256))
    ticket = service.submit(request(ids(5), 200))
    events = iter(ticket)
    next(events)

    service.close()

    assert list(events)[-1].finish == "cancelled"
    with pytest.raises(LlamakitError, match="the engine is closed"):
        list(service.submit(request(ids(5), 5)))
