"""Token selection: samples the tokens of a step and verifies the drafted ones.

A drafted token is accepted if the row's own sampler chooses it at that position with the row's own
generator. So the answer is the same as without drafts, whatever the sampler and the processors.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

import torch

from llamakit.errors import NonFiniteError
from llamakit.runtime.cache_slots import CacheSlots
from llamakit.runtime.model import Batch
from llamakit.runtime.requests import Event, RunningRow, Scores
from llamakit.runtime.sampling_pipeline import sample
from llamakit.runtime.speculation import next_draft_length

LOWEST = -9999.0
"""The log-probability of a token that a sampler chose although it was ruled out."""


@dataclass(frozen=True, eq=False)
class Pass:
    """The result of one forward pass.

    Args:
        logits: ``(B, T, V)``.
        drafts: the drafted tokens of each row, computed after its newest one; empty: no drafts.
    """

    rows: Sequence[RunningRow]
    logits: torch.Tensor
    batch: Batch
    drafts: Sequence[Sequence[int]] = ()


def choose(passes: Sequence[Pass], cache: CacheSlots) -> list[Event]:
    """Choose the next token of every row, and further ones as long as they match the draft.

    Rejected draft tokens are dropped from the cache.

    Raises:
        NonFiniteError: NaN or infinity in the logits.
    """
    origins = [(computed, number) for computed in passes for number in range(len(computed.rows))]
    position = 0
    events: list[Event] = []
    while origins:
        picked = _pick(origins, position, cache)
        events += picked
        origins = [
            origin
            for origin, event in zip(origins, picked, strict=True)
            if _agrees(origin, position, event)
        ]
        position += 1
    for computed in passes:
        for slot, (row, draft) in enumerate(zip(computed.rows, computed.drafts, strict=False)):
            written = len(row.tokens) - 1 - computed.batch.starts[slot]  # slots 0, 1, …
            cache.truncate(slot, len(row.tokens) - 1)
            if draft:
                row.draft_length = next_draft_length(written - 1)
    return events


Origin = tuple[Pass, int]
"""Where a row's logits are: the pass, and the row's number in it."""


def _agrees(origin: Origin, position: int, event: Event) -> bool:
    """Return whether a row continues: the chosen token is the drafted one, and not the last."""
    return event.finish is None and event.token == _drafted(origin, position)


def _drafted(origin: Origin, position: int) -> int | None:
    """Return the token that was drafted for a position, if any."""
    computed, number = origin
    draft = computed.drafts[number] if computed.drafts else ()
    return draft[position] if position < len(draft) else None


def _pick(origins: Sequence[Origin], position: int, cache: CacheSlots) -> list[Event]:
    """Choose one token of each row, with a single transfer from the device."""
    rows = [computed.rows[number] for computed, number in origins]
    logits = _gather(origins, position)  # (B, V)
    failures = {n: row.failure for n, row in enumerate(rows) if row.failure is not None}
    with torch.inference_mode():
        finite, logits = _finite(logits)
        wanted = any(row.request.seen for row in rows)
        seen = torch.empty_like(logits) if wanted else None
        tokens = sample(logits, rows, [row.request.sampling for row in rows], failures, seen)
        logprobs = torch.zeros_like(logits[:, 0])
        if any(row.request.logprobs for row in rows):
            logprobs = logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
        # token IDs are far below 2 ** 24, so float32 holds them; one transfer, not three
        columns = torch.stack((tokens.float(), finite.float(), logprobs)).tolist()
        tops = _likeliest(logits, rows)
        sampler_scores = {} if seen is None else _sampler_scores(seen, rows, tokens, failures)
    if not all(columns[1]):
        number = columns[1].index(0.0)
        raise nonfinite(origins[number][0], rows[number], cache)
    return [
        row.append(
            int(token),
            logprob if row.request.logprobs else None,
            drafted=int(token) == _drafted(origin, position),
            top=tops.get(number, ()),
            seen=sampler_scores.get(number),
        )
        if number not in failures
        else row.fail(failures[number])
        for number, (origin, row, token, logprob) in enumerate(
            zip(origins, rows, columns[0], columns[2], strict=True)
        )
    ]


def _finite(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which rows are finite, ``(B,)``, and the logits with zeros for the other rows.

    A sampler may not survive NaN. A sum that is finite says the same in a tenth of the time; it is
    not looked at on a GPU, for which this would wait.
    """
    if logits.device.type == "cpu" and bool((sums := logits.sum(dim=-1)).isfinite().all()):
        return sums.isfinite(), logits
    finite = logits.isfinite().all(dim=-1)
    return finite, logits.masked_fill(~finite[:, None], 0.0)


def _likeliest(
    logits: torch.Tensor, rows: Sequence[RunningRow]
) -> dict[int, tuple[tuple[int, float], ...]]:
    """Return the likeliest tokens of the rows that ask for them, by the row's number."""
    asking = [number for number, row in enumerate(rows) if row.request.top]
    if not asking:
        return {}
    most = min(max(rows[number].request.top for number in asking), logits.shape[-1])
    scores, tokens = logits[asking].log_softmax(-1).topk(most)  # (rows that ask, most)
    return {
        number: tuple(zip(its_tokens, its_scores, strict=True))[: rows[number].request.top]
        for number, its_tokens, its_scores in zip(
            asking, tokens.tolist(), scores.tolist(), strict=True
        )
    }


def _sampler_scores(
    seen: torch.Tensor, rows: Sequence[RunningRow], tokens: torch.Tensor, failures: Container[int]
) -> dict[int, Scores]:
    """Return the scores that the samplers saw, for the rows that ask for them, by row number.

    Args:
        seen: ``(B, V)``; ``-inf`` where a token was ruled out.
    """
    asking = [
        number for number, row in enumerate(rows) if row.request.seen and number not in failures
    ]
    if not asking:
        return {}
    logprobs = seen[asking].log_softmax(-1)  # (rows that ask, V)
    chosen = logprobs.gather(-1, tokens[asking][:, None])[:, 0].clamp(min=LOWEST)
    most = min(max(rows[number].request.top for number in asking), seen.shape[-1])
    scores, likeliest = logprobs.topk(most)  # (rows that ask, most)
    return {
        number: Scores(
            score,
            tuple(
                (token, its_score)
                for token, its_score in zip(its_tokens, its_scores, strict=True)
                if its_score > LOWEST
            )[: rows[number].request.top],
        )
        for number, score, its_tokens, its_scores in zip(
            asking, chosen.tolist(), likeliest.tolist(), scores.tolist(), strict=True
        )
    }


def _gather(origins: Sequence[Origin], position: int) -> torch.Tensor:
    """Gather the logits of some rows at one position: ``(B, V)``."""
    parts = []
    for computed in dict.fromkeys(computed for computed, _ in origins):
        numbers = [number for origin, number in origins if origin is computed]
        logits = computed.logits[:, position]
        parts.append(logits if len(numbers) == len(computed.rows) else logits[numbers])
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def check(computed: Pass, cache: CacheSlots) -> None:
    """Refuse NaN and infinity in the logits of a pass that no token is chosen from.

    Raises:
        NonFiniteError: there are some.
    """
    if not bool(computed.logits.isfinite().all()):
        raise nonfinite(computed, computed.rows[0], cache)


def nonfinite(computed: Pass, row: RunningRow, cache: CacheSlots) -> NonFiniteError:
    """Return the error for NaN or infinity in a row's logits, with the layer it comes from."""
    where = cache.first_nonfinite(computed.batch)
    step = len(row.tokens) - row.prompt_length + 1
    dtype = str(cache.executor.model.dtype).removeprefix("torch.")
    advice = "try --dtype float32 or bfloat16" if dtype == "float16" else "the weights hold them"
    return NonFiniteError(
        f"NaN or infinity in the logits of step {step}: it first appears in {where}, computed "
        f"in {dtype}; {advice}"
    )
