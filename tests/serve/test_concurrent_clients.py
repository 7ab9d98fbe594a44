"""Many clients at once that come, cancel and disconnect as they like."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from server_kit import STORY, Running, wait_until

from llamakit.api import Llama, choose_sampling

CLIENTS = 64
BEGINNINGS = (STORY, "How do I verify a checkpoint", "The", "llamakit reshard", "Zebra " * 20)


@dataclass(frozen=True)
class Known:
    """A request, and what its answer is."""

    body: dict[str, Any]
    text: str


@pytest.fixture(scope="module")
def known(llama: Llama) -> list[Known]:
    """Requests with the answers that they get alone, in an engine of their own."""
    found = []
    for number in range(15):
        beginning, new = BEGINNINGS[number % 5], 4 + 5 * number % 40
        temperature = (0.0, 0.8, 1.2)[number // 5]
        prompt = llama.tokenizer.encode(beginning, bos=True)
        chunks = llama.stream(
            [prompt],
            sampling=choose_sampling(temperature=temperature),
            max_new_tokens=new,
            seeds=[number],
            echo=True,
        )
        text = "".join(chunk.text for chunk in chunks).removeprefix(llama.tokenizer.decode(prompt))
        body = {
            "prompt": beginning,
            "max_tokens": new,
            "temperature": temperature,
            "seed": number,
        }
        found.append(Known(body, text))
    return found


class Storm:
    """Clients that ask for what is known, and count what became of it."""

    def __init__(self, running: Running, known: list[Known], seconds: float) -> None:
        self.url = f"{running.url}/v1/completions"
        self.known = known
        self.seconds = seconds
        self.counts: Counter[str] = Counter()
        self.wrong: list[tuple[dict[str, Any], str, str]] = []

    async def run(self) -> None:
        """Have all clients ask until the time is over, and each thing has happened a few times."""
        self.end = time.monotonic() + self.seconds
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=180, limits=limits, trust_env=False) as http:
            await asyncio.gather(*(self.client(http, number) for number in range(CLIENTS)))

    async def client(self, http: httpx.AsyncClient, number: int) -> None:
        chance = random.Random(number)
        while time.monotonic() < self.end or not self.has_seen_all():
            await asyncio.sleep(chance.expovariate(3))
            wanted = chance.choice(self.known)
            way = chance.choice((self.whole, self.whole, self.stream, self.stream, self.leave))
            await way(http, wanted, chance)

    def has_seen_all(self) -> bool:
        """Tell whether there is something to judge by; a busy machine needs longer for it."""
        return min(self.counts[it] for it in ("whole", "broken off", "left")) > 5

    async def whole(self, http: httpx.AsyncClient, wanted: Known, _chance: random.Random) -> None:
        response = await http.post(self.url, json=wanted.body)
        self.check(wanted, response.json()["choices"][0]["text"], whole=True)

    async def stream(self, http: httpx.AsyncClient, wanted: Known, chance: random.Random) -> None:
        """Read a stream, to its end or until it is enough."""
        enough = chance.choice((3, 10, 10_000, 10_000))
        text, ended = "", False
        async with http.stream("POST", self.url, json={**wanted.body, "stream": True}) as response:
            async for line in response.aiter_lines():
                ended = line == "data: [DONE]"
                if ended or enough == 0:
                    break
                if line:
                    text += json.loads(line.removeprefix("data: "))["choices"][0]["text"]
                    enough -= 1
        if not ended and enough:
            self.wrong.append((wanted.body, wanted.text, f"{text} and no end"))
        self.check(wanted, text, whole=ended)

    async def leave(self, http: httpx.AsyncClient, wanted: Known, chance: random.Random) -> None:
        """Ask, and go away at any time, before the answer or within it."""
        task = asyncio.ensure_future(http.post(self.url, json=wanted.body))
        await asyncio.wait({task}, timeout=chance.random() / 5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self.counts["left"] += 1

    def check(self, wanted: Known, text: str, *, whole: bool) -> None:
        self.counts["whole" if whole else "broken off"] += 1
        if text != wanted.text if whole else not wanted.text.startswith(text):
            self.wrong.append((wanted.body, wanted.text, text))


def resident_mib(running: Running) -> float:
    """Return how much memory a server has, in MiB."""
    assert running.process is not None
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def weather(running: Running, known: list[Known], seconds: float) -> Counter[str]:
    """Have a storm; return what became of the requests."""
    storm = Storm(running, known, seconds)
    asyncio.run(storm.run())
    assert storm.wrong == []
    wait_until(lambda: not running.metric("running") and not running.metric("waiting"))
    return storm.counts


def test_no_answer_is_lost_or_mixed_in_five_seconds(server: Running, known: list[Known]) -> None:
    weather(server, known, 1)
    growths: list[float] = []
    while len(growths) < 4 and min(growths, default=10.0) >= 10:  # a leak grows every time
        before = resident_mib(server)
        weather(server, known, 2)
        growths.append(resident_mib(server) - before)

    assert min(growths) < 10


@pytest.mark.soak
def test_no_answer_is_lost_or_mixed_in_two_minutes(server: Running, known: list[Known]) -> None:
    weather(server, known, 20)
    before = resident_mib(server)

    counts = weather(server, known, 120)

    print(dict(counts), f"{before:.0f} MiB before, {resident_mib(server):.0f} MiB after")
    assert sum(counts.values()) > 500
    assert resident_mib(server) < before + 20
