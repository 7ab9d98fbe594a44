"""One engine for several threads."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from engine_kit import answers, counting, random_tokens, request

from llamakit.api import Llama
from llamakit.errors import LlamakitError, PromptTooLongError
from llamakit.runtime import request_stream
from llamakit.runtime.engine import Engine, RequestStream
from llamakit.runtime.request_stream import Delivery, Listener
from llamakit.runtime.sampling_pipeline import Sampling
from llamakit.runtime.scheduler import Event, Request, Scheduler


@pytest.fixture(scope="module")
def llama(reference_cases: Path) -> Llama:
    return Llama.build(str(reference_cases / "gqa-mp1"), max_seq_len=512, dtype="float32")


@pytest.fixture
def engine(llama: Llama) -> Iterator[Engine]:
    executor = counting(llama)
    engine = Engine(lambda: Scheduler(executor, 4, 256, chunk=32))
    yield engine
    engine.close()
    assert executor._caches == {}


def test_requests_of_many_threads_are_answered_as_alone(llama: Llama, engine: Engine) -> None:
    asked = [
        request(random_tokens(5 + 9 * number, seed=number), 12, temperature=0.8, seed=number)
        for number in range(12)
    ]
    alone = [answers(counting(llama), [it]) for it in asked]
    found: dict[int, list[tuple[int | None, float | None]]] = {}

    def ask(number: int) -> None:
        events = list(engine.submit(asked[number]))
        found[number] = [(event.token, event.logprob) for event in events]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for number, (tokens, logprobs) in enumerate(alone):
        assert [token for token, _ in found[number]] == tokens[0]
        assert [logprob for _, logprob in found[number]] == pytest.approx(logprobs[0], abs=1e-4)


def test_a_request_that_is_cancelled_ends_and_the_others_continue(engine: Engine) -> None:
    long, short = (
        engine.submit(request(random_tokens(5), 200)),
        engine.submit(request(random_tokens(9), 20)),
    )
    events = iter(long)
    next(events)

    long.cancel()

    assert list(events)[-1].finish == "cancelled"
    assert [event.finish for event in short][-1] == "length"


def test_a_refused_request_says_so_and_harms_nobody(engine: Engine) -> None:
    good = engine.submit(request(random_tokens(5), 20))

    with pytest.raises(PromptTooLongError):
        list(engine.submit(request(random_tokens(300), 5)))

    assert len(list(good)) == 20


def failing(_logits: object, _rows: object) -> torch.Tensor:
    raise OverflowError("on purpose")


def test_a_sampler_that_fails_ends_its_own_request_only(engine: Engine, llama: Llama) -> None:
    asked = request(random_tokens(5), 60, temperature=0.8)
    alone = answers(counting(llama), [asked])[0][0]

    good = engine.submit(asked)
    bad = engine.submit(request(random_tokens(6), 5, sampling=Sampling(failing)))

    with pytest.raises(OverflowError, match="on purpose"):
        list(bad)
    assert [event.token for event in good] == alone


def test_a_sampler_that_fails_ends_a_run(llama: Llama) -> None:
    with pytest.raises(OverflowError, match="on purpose"):
        answers(counting(llama), [request(random_tokens(6), 5, sampling=Sampling(failing))])


def test_after_a_failed_step_everybody_hears_of_it_and_the_next_is_answered(llama: Llama) -> None:
    executor = counting(llama)
    engine = Engine(lambda: Scheduler(executor, 4, 256))
    good, other = (
        engine.submit(request(random_tokens(5), 200)),
        engine.submit(request(random_tokens(6), 200)),
    )
    next(iter(good))

    whole = executor.forward
    executor.forward = _fail  # type: ignore[method-assign]
    for stream in (good, other):
        with pytest.raises(OverflowError, match="on purpose"):
            list(stream)
    executor.forward = whole  # type: ignore[method-assign]

    assert len(list(engine.submit(request(random_tokens(7), 5)))) == 5
    engine.close()


def _fail(*_arguments: object) -> None:
    raise OverflowError("on purpose")


def test_the_events_of_a_step_are_delivered_together(llama: Llama) -> None:
    batches: list[Sequence[Delivery]] = []
    together = Engine(lambda: Scheduler(counting(llama), 4, 256), batches.append)
    asked = [request(random_tokens(5, seed), 6, temperature=0.8) for seed in range(4)]
    expected = answers(counting(llama), asked)[0]
    heard: list[list[int | None]] = [[] for _ in asked]

    together.call_soon(
        lambda: [together.submit(it, listen=_collector(heard[n])) for n, it in enumerate(asked)]
    )
    list(together.submit(request(random_tokens(5), 20)))  # has the slot that is free last
    together.close()
    for batch in batches:
        for listen, events in batch:
            listen(events)

    assert heard == expected
    assert len(batches) < sum(map(len, expected))


def test_the_events_of_a_request_are_delivered_at_its_end(engine: Engine, llama: Llama) -> None:
    asked = request(random_tokens(9), 7, temperature=0.8)
    heard: list[Sequence[Event] | BaseException] = []
    ended = threading.Event()

    def listen(events: Sequence[Event] | BaseException) -> None:
        heard.append(events)
        ended.set()

    stream = engine.submit(asked, listen=listen, whole=True)
    assert ended.wait(60)

    (events,) = heard
    assert not isinstance(events, BaseException)
    assert [event.token for event in events] == answers(counting(llama), [asked])[0][0]
    assert stream.began is not None


def _collector(tokens: list[int | None]) -> Listener:
    def listen(events: Sequence[Event] | BaseException) -> None:
        assert not isinstance(events, BaseException)
        tokens.extend(event.token for event in events)

    return listen


def test_clients_take_turns_at_the_slots(llama: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_stream, "SLICE_SECONDS", math.inf)
    executor = counting(llama)
    engine = Engine(lambda: Scheduler(executor, 1, 256))
    ended: list[str] = []

    def ask(name: str, new: int) -> RequestStream:
        def listen(events: Sequence[Event] | BaseException) -> None:
            if not isinstance(events, BaseException) and events[-1].finish:
                ended.append(name)

        return engine.submit(request(random_tokens(5), new), client=name, listen=listen)

    first = engine.submit(request(random_tokens(5), 150), client="many")
    streams = [ask("many", 4) for _ in range(4)] + [ask("few", 4) for _ in range(2)]
    last = engine.submit(request(random_tokens(5), 2), client="many")
    list(first)
    list(last)
    engine.close()

    assert len(streams) == 6
    assert ended[:4] in (["many", "few"] * 2, ["few", "many"] * 2)
    assert ended[4:] == ["many", "many"]


class Steps:
    """Collects of which clients' requests each step delivers events."""

    def __init__(self, llama: Llama, slots: int) -> None:
        self.clients: list[list[str]] = []
        self._names: dict[Listener, str] = {}
        executor = counting(llama)
        self.engine = Engine(lambda: Scheduler(executor, slots, 256), self._deliver)

    def submit(self, client: str, tokens: int, listen: Listener) -> RequestStream:
        listener = partial(listen)
        self._names[listener] = client
        return self.engine.submit(request(random_tokens(5), tokens), client=client, listen=listener)

    def _deliver(self, deliveries: Sequence[Delivery]) -> None:
        self.clients.append([self._names[listen] for listen, _ in deliveries])
        for listen, events in deliveries:
            listen(events)


def test_beside_a_client_with_one_request_another_has_an_eighth_of_the_slots(llama: Llama) -> None:
    steps, ended = Steps(llama, 8), threading.Event()

    def begin_another(_events: Sequence[Event] | BaseException) -> None:
        if len(steps.clients) == 3:  # all slots are taken by then
            steps.submit("few", 4, end)

    def end(events: Sequence[Event] | BaseException) -> None:
        if not isinstance(events, BaseException) and events[-1].finish:
            ended.set()

    steps.submit("many", 100, begin_another)
    for _ in range(11):
        steps.submit("many", 100, lambda _: None)
    assert ended.wait(60)
    steps.engine.close()

    assert steps.clients[2].count("many") == 8
    shared = [clients for clients in steps.clients if "few" in clients]
    assert [clients.count("many") for clients in shared] == [1] * 4


def test_two_clients_with_many_requests_have_all_slots(llama: Llama) -> None:
    steps, ended = Steps(llama, 8), threading.Event()

    def end(events: Sequence[Event] | BaseException) -> None:
        if not isinstance(events, BaseException) and events[-1].finish:
            ended.set()

    for client in ["one", "other"] * 6:
        steps.submit(client, 20, end)
    assert ended.wait(60)
    steps.engine.close()

    assert ["one", "one", "one", "one", "other", "other", "other", "other"] in map(
        sorted, steps.clients
    )


def test_clients_that_come_in_turn_share_the_slots_although_they_never_meet(llama: Llama) -> None:
    steps, ended = Steps(llama, 8), threading.Event()

    def flood(events: Sequence[Event] | BaseException) -> None:
        if not isinstance(events, BaseException) and events[-1].finish:
            for _ in range(8):
                steps.submit("many", 2, lambda _: ended.set())

    steps.submit("few", 1, flood)
    assert ended.wait(60)
    answered = list(steps.clients)
    steps.engine.close()

    assert max(clients.count("many") for clients in answered) == 1


def test_a_client_with_all_slots_gives_one_up_and_its_answers_stay_the_same(llama: Llama) -> None:
    asked = [request(random_tokens(5, seed), 40, temperature=0.8) for seed in range(4)]
    alone = Engine(lambda: Scheduler(counting(llama), 1, 256))
    expected = [[event.token for event in alone.submit(it)] for it in asked]
    alone.close()
    engine = Engine(lambda: Scheduler(counting(llama), 3, 256))
    heard: list[list[int | None]] = [[] for _ in range(6)]
    ended: list[int] = []
    few: list[int] = []
    all_ended = threading.Event()

    def ask(number: int, client: str, wanted: Request) -> None:
        def listen(events: Sequence[Event] | BaseException) -> None:
            assert not isinstance(events, BaseException)
            (event,) = events
            heard[number].append(event.token)
            if sum(map(bool, heard)) == 3 and not few:  # here, while those are running
                few.extend((4, 5))
                for another in few:
                    ask(another, "few", request(random_tokens(7), 4))
            if event.finish:
                ended.append(number)
            if len(ended) == 6:
                all_ended.set()

        engine.submit(wanted, client=client, listen=listen)

    for number, wanted in enumerate(asked):
        ask(number, "many", wanted)
    assert all_ended.wait(60)
    engine.close()

    assert set(ended[:2]) == {4, 5}
    assert heard[:4] == expected


def test_a_long_request_waits_for_another_client_even_in_the_only_slot(
    llama: Llama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_stream, "SLICE_SECONDS", 0.0)
    monkeypatch.setattr(request_stream, "REPAID", 0)
    long = request(random_tokens(5), 120, temperature=0.8)
    alone = Engine(lambda: Scheduler(counting(llama), 1, 256))
    expected = [event.token for event in alone.submit(long)]
    alone.close()
    engine = Engine(lambda: Scheduler(counting(llama), 1, 256))
    heard: dict[str, list[int | None]] = {"long": [], "short": []}
    ended: list[str] = []
    runs, all_ended = threading.Event(), threading.Event()

    def ask(name: str, wanted: Request) -> None:
        def listen(events: Sequence[Event] | BaseException) -> None:
            assert not isinstance(events, BaseException)
            (event,) = events
            heard[name].append(event.token)
            runs.set()
            ended.extend([name] if event.finish else [])
            if len(ended) == 2:
                all_ended.set()

        engine.submit(wanted, client=name, listen=listen)

    ask("long", long)
    assert runs.wait(60)
    ask("short", request(random_tokens(7), 4))
    assert all_ended.wait(60)
    engine.close()

    assert ended == ["short", "long"]
    assert heard["long"] == expected


def test_a_request_that_has_the_only_slot_keeps_it_for_a_while(llama: Llama) -> None:
    engine = Engine(lambda: Scheduler(counting(llama), 1, 256))
    stream = engine.submit(request(random_tokens(5), 2))
    list(stream)
    engine.close()

    took = stream.answered - stream.started
    assert not stream.has_had_its_turn(stream.answered + request_stream.SLICE_SECONDS / 2)
    assert not stream.has_had_its_turn(stream.answered + request_stream.REPAID * took / 2)
    assert stream.has_had_its_turn(stream.answered + 1 + request_stream.REPAID * took)


def test_a_request_that_waits_can_be_cancelled(llama: Llama) -> None:
    engine = Engine(lambda: Scheduler(counting(llama), 1, 256))
    running, waiting = (
        engine.submit(request(random_tokens(5), 100)),
        engine.submit(request(random_tokens(6), 100)),
    )
    next(iter(running))

    waiting.cancel()

    assert [event.finish for event in waiting] == ["cancelled"]
    engine.close()


def test_the_likeliest_tokens_are_returned_if_asked_for(llama: Llama) -> None:
    executor = counting(llama)
    plain, asking = request(random_tokens(5), 6), request(random_tokens(9), 6, top=3)
    generator = Scheduler(executor, 2, 256)

    events = list(generator.run([plain, asking]))
    generator.close()

    assert all(event.top == () for event in events if event.index == 0)
    for event in (event for event in events if event.index == 1):
        (token, logprob), *others = event.top
        assert (token, logprob) == (event.token, pytest.approx(event.logprob, abs=1e-6))
        assert len(others) == 2
        assert logprob > others[0][1] > others[1][1]


def test_closing_ends_what_is_under_way(llama: Llama) -> None:
    executor = counting(llama)
    engine = Engine(lambda: Scheduler(executor, 2, 256))
    stream = engine.submit(request(random_tokens(5), 200))
    events = iter(stream)
    next(events)

    engine.close()

    assert list(events)[-1].finish == "cancelled"
    with pytest.raises(LlamakitError, match="the engine is closed"):
        list(engine.submit(request(random_tokens(5), 5)))
