"""What ``/metrics`` tells, in Prometheus' text form."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """The numbers of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "llamakit_requests",
            "HTTP requests, by route and status.",
            ("route", "status"),
            registry=self.registry,
        )
        self.refused = self._counter("refused", "Requests answered 429: the queue was full.")
        self.gone = self._counter("gone", "Requests whose client went away before the end.")
        self.prompt_tokens = self._counter("prompt_tokens", "Ids of prompts taken in.")
        self.new_tokens = self._counter("new_tokens", "Ids of answers written.")
        self.drafted = self._counter("drafted_tokens", "Ids that a drafter has proposed.")
        self.accepted = self._counter("accepted_tokens", "Drafted ids that were right.")
        self.running = self._gauge("running", "Answers being written.")
        self.waiting = self._gauge("waiting", "Answers that wait for a slot.")
        self.slots = self._gauge("slots", "Answers that can be written at the same time.")
        self.first = self._histogram("first_token_seconds", "From arrival to the first id.")
        self.whole = self._histogram("request_seconds", "From arrival to the last id.")

    def text(self) -> tuple[bytes, str]:
        """Return all numbers, and their content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    def _counter(self, name: str, words: str) -> Counter:
        return Counter(f"llamakit_{name}", words, registry=self.registry)

    def _gauge(self, name: str, words: str) -> Gauge:
        return Gauge(f"llamakit_{name}", words, registry=self.registry)

    def _histogram(self, name: str, words: str) -> Histogram:
        return Histogram(f"llamakit_{name}", words, buckets=SECONDS, registry=self.registry)
