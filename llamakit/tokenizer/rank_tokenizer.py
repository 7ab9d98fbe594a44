"""The tokenizer of Llama 3 and later: byte-level BPE by ranks, on tiktoken."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llamakit.errors import TokenizerError
from llamakit.files.tokenizer_kind import tokenizer_kind
from llamakit.printable import printable
from llamakit.tokenizer.added_tokens import AddedToken, read_added_tokens
from llamakit.tokenizer.rank_file import read_ranks
from llamakit.tokenizer.special_tokens import SpecialTokens, special_tokens

if TYPE_CHECKING:
    import tiktoken

    from llamakit.checkpoint.params import ModelParams

LONGEST_PART = 400_000
"""Characters; a string is split here whatever there is, as in the reference."""
LONGEST_RUN = 25_000
"""Characters of space, or of none, in a row: a longer run is split, which changes the tokens."""

_RUNS = re.compile(r"\s+|\S+")
"""Python's ``\\s`` is ``str.isspace()``, which the reference asks."""


class RankTokenizer:
    """Ranks, and the special tokens that follow them.

    Source: ``models/llama3/tokenizer.py`` of https://github.com/meta-llama/llama-models
    """

    def __init__(
        self,
        path: Path,
        ranks: Sequence[bytes],
        special: SpecialTokens,
        *,
        added: Sequence[AddedToken] = (),
        stops: Collection[int] = (),
        chat_template: str | None = None,
    ) -> None:
        """Make a tokenizer.

        Args:
            ranks: the bytes of each token.
            special: the version's special tokens.
            added: what the files of a fine-tune name otherwise or add. Text may become those that
                are not special.
            stops: tokens that end an answer besides the version's.
            chat_template: of Hugging Face's, where the tokenizer's own file has one.
        """
        first = len(ranks)
        self.chat_template, self._stops = chat_template, stops
        self.path = path
        self.ranks = ranks
        self.prompt_format = special.prompt_format
        self.special, self.added = special, added
        named = {first + offset: name for offset, name in enumerate(special.names)}
        named |= {entry.id: entry.content for entry in added}
        text_tokens = {entry.id for entry in added if not entry.special}
        self._names = {name: token for token, name in named.items() if token not in text_tokens}
        self._names |= {entry.content: entry.id for entry in added if entry.special}
        self._words = {named[token]: token for token in text_tokens}
        self.bos_id = self._names.get(special.names[0], first)
        self.eos_id = self._names.get(special.names[special.eos], first + special.eos)
        self.stop_ids = frozenset([*(first + offset for offset in special.stops), *stops])
        self.vocab_size = 1 + max(
            *self._names.values(), *self._words.values(), *self.stop_ids, self.bos_id
        )

    def for_model(self, params: ModelParams) -> RankTokenizer:
        """Return the tokenizer as a model uses it: the file does not say which tokens follow."""
        special = special_tokens(len(self.ranks), params.vocab_size, params.use_scaled_rope)
        if special is self.special:
            return self
        return RankTokenizer(
            self.path,
            self.ranks,
            special,
            added=self.added,
            stops=self._stops,
            chat_template=self.chat_template,
        )

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        """Return the tokens of ``text``; text never becomes a control token."""
        tokens = [self.bos_id] * bos
        for part in _parts(text):
            tokens += self._encoding.encode(
                part, allowed_special=set(self._words), disallowed_special=()
            )
        return tokens + [self.eos_id] * eos

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of ``tokens``; control tokens and tokens beyond the last have none.

        Bytes that are not UTF-8, or not yet, become U+FFFD.
        """
        pieces, count = self.token_bytes(), self.vocab_size
        return b"".join(pieces[id_] for id_ in tokens if id_ < count).decode("utf-8", "replace")

    def special_ids(self) -> Mapping[str, int]:
        """Return the special tokens by name: a prompt format may use them, text never does."""
        return self._names

    def token_bytes(self) -> list[bytes]:
        """Return the UTF-8 bytes that each token adds to the text; ``b""`` where it adds none."""
        return self._token_bytes

    @functools.cached_property
    def _token_bytes(self) -> list[bytes]:
        pieces = [*self.ranks, *[b""] * (self.vocab_size - len(self.ranks))]
        for text, token in self._words.items():
            pieces[token] = text.encode()
        return pieces

    @functools.cached_property
    def _encoding(self) -> tiktoken.Encoding:
        """Build the engine, which takes a moment, when a string is first encoded."""
        import tiktoken

        try:
            return tiktoken.Encoding(
                str(self.path),
                pat_str=self.special.pattern,
                mergeable_ranks={token: rank for rank, token in enumerate(self.ranks)},
                special_tokens=self._words,
            )
        except ValueError as error:
            raise TokenizerError(
                f"{self.path}: its added tokens are too long for the engine that looks for them "
                f"({printable(error)}): use the tokenizer that came with the weights"
            ) from error


def load(path: Path) -> RankTokenizer | None:
    """Load a rank file, or return None if it is another kind of file.

    Raises:
        TokenizerError: it is damaged.
    """
    if tokenizer_kind(path) != "ranks":
        return None
    ranks = read_ranks(path)
    added = read_added_tokens(path.parent, len(ranks))
    return RankTokenizer(path, ranks, special_tokens(len(ranks)), added=added)


def _parts(text: str) -> Iterator[str]:
    """Split a string as the reference does before its engine sees it.

    The engine would overflow its stack otherwise, and the splits change tokens.
    """
    for start in range(0, len(text), LONGEST_PART):
        part = text[start : start + LONGEST_PART]
        ends = [0, *_run_ends(part), len(part)]
        yield from (part[begin:end] for begin, end in itertools.pairwise(ends))


def _run_ends(part: str) -> list[int]:
    """Say where runs of space, or of none, are too long."""
    if len(part) <= LONGEST_RUN:
        return []
    return [
        end
        for run in _RUNS.finditer(part)
        for end in range(run.start() + LONGEST_RUN, run.end(), LONGEST_RUN)
    ]
