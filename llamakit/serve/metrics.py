"""The metrics of the server, in Prometheus' text format."""

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
        self.gone = self._counter("gone", "Requests whose client disconnected before the end.")
        self.prompt_tokens = self._counter("prompt_tokens", "Prompt tokens processed.")
        self.new_tokens = self._counter("new_tokens", "Tokens generated.")
        self.drafted = self._counter("drafted_tokens", "Tokens drafted for speculative decoding.")
        self.accepted = self._counter("accepted_tokens", "Drafted tokens that were accepted.")
        self.running = self._gauge("running", "Answers being generated.")
        self.waiting = self._gauge("waiting", "Answers that wait for a slot.")
        self.slots = self._gauge("slots", "Answers that can be generated at the same time.")
        self.first = self._histogram("first_token_seconds", "From arrival to the first token.")
        self.whole = self._histogram("request_seconds", "From arrival to the last token.")

    def text(self) -> tuple[bytes, str]:
        """Return all numbers, and their content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    def _counter(self, name: str, description: str) -> Counter:
        return Counter(f"llamakit_{name}", description, registry=self.registry)

    def _gauge(self, name: str, description: str) -> Gauge:
        return Gauge(f"llamakit_{name}", description, registry=self.registry)

    def _histogram(self, name: str, description: str) -> Histogram:
        return Histogram(f"llamakit_{name}", description, buckets=SECONDS, registry=self.registry)
