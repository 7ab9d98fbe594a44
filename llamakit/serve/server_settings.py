"""What the server is told at its start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llamakit.protocols import Drafter


@dataclass(frozen=True)
class Limits:
    """How much one request, one client and all of them may ask for.

    Args:
        body: bytes of a request.
        choices: answers that one request may ask for: prompts times ``n``.
        new_tokens: ids of one answer.
        seconds: from a request's arrival to its end.
        waiting: answers that may wait for a slot.
        connections: that are open at the same time.
        arrival: seconds in which a request has to have arrived.
    """

    body: int = 1 << 20
    choices: int = 16
    new_tokens: int | None = None
    seconds: float = 600.0
    waiting: int = 64
    connections: int = 256
    arrival: float = 20.0


@dataclass(frozen=True)
class ServeSettings:
    """How the server listens, and what it answers with when a request does not say.

    Args:
        host: the address to bind to.
        port: 0 lets the system choose.
        model_name: what clients call the model.
        keys: any of them opens the door; none means that no key is asked for.
        origins: of web pages elsewhere that may ask.
        hosts: names that a request may give the server; none means any.
        grace: seconds that a SIGTERM leaves to what runs.
        sampling: as ``choose_sampling``, for requests that name none of it.
        prompt_format: of chats.
        new_tokens: of answers that name no limit; None is the context, or 16 for a completion.
        seed: of requests that name none; None takes another each time.
        drafter: proposes ids of all answers for the model to check.
        json_log: one JSON object a request, instead of words.
        log_prompts: prompts and answers stand in the log.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    model_name: str = "llama"
    keys: tuple[str, ...] = field(default=(), repr=False)
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    grace: float = 30.0
    sampling: Mapping[str, Any] = field(default_factory=dict)
    prompt_format: str = "llama2"
    new_tokens: int | None = None
    seed: int | None = None
    drafter: Drafter | None = None
    json_log: bool = False
    log_prompts: bool = False
    limits: Limits = field(default_factory=Limits)
