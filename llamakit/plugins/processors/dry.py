"""DRY, don't repeat yourself: the longer a repetition gets, the less likely it continues."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamakit import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from llamakit.hookspecs import Registrar
    from llamakit.protocols import LogitsProcessor, LogitsProcessorFactory, Row, Tokenizer


LONGEST = 50
"""How many tokens of a repetition count: more would not be distinguished, and powers overflow."""


class Repetitions:
    """Where each token has stood in one row, so that only the repetitions at hand are looked at."""

    def __init__(self, start: int) -> None:
        self._start = self._known = start
        self._places: dict[int, list[int]] = {}

    def lengths(self, tokens: Sequence[int], last: int, breakers: frozenset[int]) -> dict[int, int]:
        """Add the new tokens; return how long a repetition each next token would continue.

        Args:
            last: how many of the latest tokens count; 0 is all.
            breakers: tokens that no repetition reaches across.
        """
        start = max(self._start, len(tokens) - last) if last else self._start
        end = len(tokens) - 1  # the place of the newest token
        for place in range(self._known, end):
            self._places.setdefault(tokens[place], []).append(place)
        self._known = max(self._known, end)
        lengths: dict[int, int] = {}
        if end < start or tokens[end] in breakers:
            return lengths
        for place in reversed(self._places.get(tokens[end], ())):
            if place < start:
                break
            follower = tokens[place + 1]
            if follower not in breakers:
                length = _length(tokens, place, start, breakers)
                lengths[follower] = max(length, lengths.get(follower, 0))
        return lengths


def _length(tokens: Sequence[int], place: int, start: int, breakers: frozenset[int]) -> int:
    """Return how many tokens up to ``place`` are the same as the newest ones."""
    length = 1  # the newest token: that is why this place is looked at
    while length < LONGEST and place - length >= start:
        earlier = tokens[place - length]
        if earlier != tokens[-1 - length] or earlier in breakers:
            break
        length += 1
    return length


def dry(
    tokenizer: Tokenizer,
    multiplier: float = 0.8,
    base: float = 1.75,
    allowed_length: int = 2,
    breakers: str = r'\n|:|"|*',
    prompt: bool = True,
    last: int = 0,
) -> LogitsProcessor:
    """Subtract from the logit of a token that would make a repetition longer.

    When the newest ``n`` tokens occur somewhere before, the token that followed them there loses
    ``multiplier * base ** (n - allowed_length)``, from ``n = allowed_length`` on. As in the
    original, a repetition counts up to 50 tokens. A token with one in its text is a breaker, as in
    llama.cpp; one that is spread over several tokens breaks nothing.

    Args:
        multiplier: of every penalty; 0 to 100, and 0 changes nothing.
        base: how fast the penalty grows with each token; 1 to 4.
        allowed_length: the shortest repetition that costs anything, in tokens; at least 1.
        breakers: strings that no repetition reaches across, with | between them and a line end
            written \\n; empty for none.
        prompt: whether repeating the prompt counts; no leaves a chat's earlier turns out.
        last: how many of the latest tokens count; 0 is all.
    Source: p-e-w, https://github.com/oobabooga/text-generation-webui/pull/5677
    """
    if not 0 <= multiplier <= 100:
        raise ValueError(f"multiplier is {multiplier}; it has to be between 0 and 100")
    if not 1 <= base <= 4:
        raise ValueError(f"base is {base}; it has to be between 1 and 4")
    if allowed_length < 1:
        raise ValueError(f"allowed-length is {allowed_length}; it has to be at least 1")
    if last < 0:
        raise ValueError(f"last is {last}; it has to be 0 (all tokens) or more")
    import torch

    stops = breaker_ids(breakers, tokenizer)
    key = object()

    def process(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:  # (B, V) -> (B, V)
        places: list[tuple[int, int]] = []
        penalties: list[float] = []
        for index, row in enumerate(rows):
            if key not in row.state:
                row.state[key] = Repetitions(0 if prompt else row.prompt_length)
            for token, length in row.state[key].lengths(row.tokens, last, stops).items():
                if length >= allowed_length:
                    places.append((index, token))
                    penalties.append(multiplier * base ** (length - allowed_length))
        if not places:
            return logits
        where = torch.tensor(places, device=logits.device).unbind(dim=-1)
        return logits.index_put(where, -logits.new_tensor(penalties), accumulate=True)

    return process


def breaker_ids(breakers: str, tokenizer: Tokenizer) -> frozenset[int]:
    """Return the tokens whose text has one of the breakers in it."""
    texts = [text.replace(r"\n", "\n").replace(r"\t", "\t") for text in breakers.split("|")]
    wanted = [text for text in texts if text]
    if not wanted:
        return frozenset()
    pieces = enumerate(tokenizer.decode([token]) for token in range(tokenizer.vocab_size))
    return frozenset(token for token, piece in pieces if any(text in piece for text in wanted))


@hookimpl
def register_logits_processors(processors: Registrar[LogitsProcessorFactory]) -> None:
    """Offer ``dry``."""
    processors.register("dry", dry, help="penalize tokens that would make a repetition longer")
