"""Threads in which bodies become requests of the engine: encoding and building take time."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from llamakit.serve.body_check import CheckedBody
from llamakit.serve.fair_gate import FairGate
from llamakit.serve.structured_output import STRUCTURED_FIELDS
from llamakit.serve.turns import Turns

T = TypeVar("T")

BUILDERS = 2
"""Threads that build grammars and processors; the grammar engine releases the GIL."""
LONG_TEXT = 20_000
"""Characters of a body, from which on it does not keep short ones waiting."""
NICE = 10
"""The priority with which long texts are encoded; the lowest is 19."""
_BUILT = (
    *("processors", "prompt_format", "tools", "functions", "logit_bias", "text"),
    *STRUCTURED_FIELDS,
)
"""Fields whose values have to be built, which may take time."""


class RequestThreads:
    """Runs the parser in threads: one for each kind of body, and clients in turn.

    A short body waits for short ones only; one with a grammar, for one other grammar of its client
    at most. What a client computes is charged to its turns.
    """

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._threads = ThreadPoolExecutor(2 + BUILDERS, "llamakit reading")
        self._short, self._long = FairGate(1), FairGate(1)
        self._builders = FairGate(BUILDERS, 1)

    async def run(self, client: Hashable, work: Callable[[CheckedBody], T], body: CheckedBody) -> T:
        """Run something in a thread when it is the client's turn, and return what it returns."""
        gate = self._gate(body)
        await self._turns.wait(client)
        async with gate.place(client):
            if gate is self._long:
                value, seconds = await _in_own_thread(work, body)
            else:
                loop = asyncio.get_running_loop()
                value, seconds = await loop.run_in_executor(self._threads, _timed, work, body)
        self._turns.charge(client, seconds)
        if isinstance(value, Exception):
            raise value
        return value

    def close(self) -> None:
        """Wait for the threads to end."""
        self._threads.shutdown()

    def _gate(self, body: CheckedBody) -> FairGate:
        if any(body.get(name) for name in _BUILT):
            return self._builders
        return self._long if _characters(body) > LONG_TEXT else self._short


async def _in_own_thread(
    work: Callable[[CheckedBody], T], body: CheckedBody
) -> tuple[T | Exception, float]:
    """Run something in a thread that ends with it.

    SentencePiece keeps the buffers of a long text, tens of megabytes, as long as its thread. The
    model's threads come first: a step would wait for one of them that has no core.
    """
    thread = ThreadPoolExecutor(1, "llamakit reading at length", _lower_priority)
    try:
        return await asyncio.get_running_loop().run_in_executor(thread, _timed, work, body)
    finally:
        thread.shutdown(wait=False)


def _lower_priority() -> None:
    """Let all other threads come first, where a thread has a priority of its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


def _timed(work: Callable[[CheckedBody], T], body: CheckedBody) -> tuple[T | Exception, float]:
    """Return what a call returns or raises, and the seconds that it computed."""
    began = time.thread_time()
    try:
        value: T | Exception = work(body)
    except Exception as error:  # noqa: BLE001 - raised again where it is awaited
        value = error
    return value, time.thread_time() - began


def _characters(values: object) -> int:
    """Return about how many characters a body has."""
    if isinstance(values, str):
        return len(values)
    if isinstance(values, dict):
        return sum(map(_characters, values.values()))
    return sum(map(_characters, values)) if isinstance(values, list) else 1
