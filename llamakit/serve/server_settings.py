"""Settings of the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llamakit.protocols import Drafter
from llamakit.serve.schema_validation import Unknown


@dataclass(frozen=True)
class Limits:
    """Limits for one request and for all of them.

    Args:
        body: bytes of a request.
        choices: answers that one request may ask for: prompts times ``n``.
        new_tokens: tokens of one answer.
        seconds: from a request's arrival to its end.
        waiting: answers that may wait for a slot.
        connections: that are open at the same time.
        arrival: seconds for a request to arrive completely.
        prefix_cache: bytes of keys and values kept of prompts that have lost their slot.
        unread: tokens of one request's answers, each with its alternatives, that are computed ahead
            of a client that does not read; with 20 alternatives they take about 13 MB.
    """

    body: int = 1 << 20
    choices: int = 128
    new_tokens: int | None = None
    seconds: float = 600.0
    waiting: int = 256
    connections: int = 256
    arrival: float = 20.0
    prefix_cache: int = 0
    unread: int = 1 << 15


@dataclass(frozen=True)
class ServeSettings:
    """How the server listens, and its defaults for requests.

    Args:
        host: the address to bind to.
        port: 0 lets the system choose.
        model_name: what clients call the model.
        keys: the valid API keys; empty means that none is required.
        origins: of other web pages that may send requests (CORS).
        hosts: names that the Host header may have; empty means any.
        grace: seconds after a SIGTERM for running answers.
        sampling: arguments of ``choose_sampling`` for requests that do not set them.
        prompt_format: of chats; None is the tokenizer's.
        new_tokens: of answers that name no limit; None is the context, or 16 for a completion.
        seed: of requests without one; None takes a random one each time.
        drafter: drafts tokens for all answers (speculative decoding).
        json_log: log one JSON object a request, instead of ``key=value``.
        log_prompts: log prompts and answers.
        unknown_fields: what happens to fields of a request that are unknown or not offered.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    model_name: str = "llama"
    keys: tuple[str, ...] = field(default=(), repr=False)
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    grace: float = 30.0
    sampling: Mapping[str, Any] = field(default_factory=dict)
    prompt_format: str | None = None
    new_tokens: int | None = None
    seed: int | None = None
    drafter: Drafter | None = None
    json_log: bool = False
    log_prompts: bool = False
    unknown_fields: Unknown = Unknown.REFUSE
    limits: Limits = field(default_factory=Limits)
