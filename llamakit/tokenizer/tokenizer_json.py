"""Reads the tokenizer.json of Hugging Face's Llama 3 and 4 folders as ranks.

Such a file lists merges; where they are all the splits of the tokens, in the order of the ranks,
ranks say the same. What a fine-tune has added or renamed is kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from llamakit.errors import InvalidJSONError, TokenizerError
from llamakit.files.json_reader import parse_json
from llamakit.files.regular_file import open_regular
from llamakit.printable import printable
from llamakit.tokenizer.added_tokens import MAX_NBYTES, AddedToken, listed_tokens
from llamakit.tokenizer.byte_level import from_text
from llamakit.tokenizer.rank_file import MAX_TOKEN_NBYTES, check_ranks
from llamakit.tokenizer.rank_tokenizer import RankTokenizer
from llamakit.tokenizer.special_tokens import LLAMA_3_1_HF, LLAMA_4, SpecialTokens

MAX_VOCAB_NBYTES = 4 << 20
"""Of all tokens together: Llama 4's have 2 MB. Each is split at each of its bytes."""


class _DifferentError(Exception):
    """The file is of another kind than Llama 3's."""


def load(path: Path) -> RankTokenizer:
    """Load a tokenizer.json.

    Raises:
        TokenizerError: it is damaged, or of another kind than those of Llama 3 and later.
    """
    with _explained(path, "a tokenizer.json as Hugging Face's tokenizers writes it"):
        return _tokenizer(_read(path), path)


def from_vocabulary(
    path: Path,
    vocab: Mapping[str, int],
    merges: Sequence[str],
    added: Sequence[AddedToken],
    *,
    stops: Collection[int] = (),
    chat_template: str | None = None,
) -> RankTokenizer:
    """Make Llama 3's tokenizer of what another kind of file lists as a tokenizer.json does.

    Args:
        path: the file.
        vocab: each token as byte-level BPE writes it, and its ID; those of ``added`` are skipped.
        merges: two tokens with a space between, in the order in which they are merged.
        added: the tokens that follow, by ID.
        stops, chat_template: as ``RankTokenizer``.

    Raises:
        TokenizerError: it is damaged, or of another kind than that of Llama 3.
    """
    with _explained(path, "a vocabulary and merges in the order of token IDs"):
        ranks = _checked(vocab, merges, added, LLAMA_3_1_HF, path)
        return RankTokenizer(
            path, ranks, LLAMA_3_1_HF, added=added, stops=stops, chat_template=chat_template
        )


@contextlib.contextmanager
def _explained(path: Path, expected: str) -> Iterator[None]:
    """Have what goes wrong with the content of a file say so."""
    try:
        yield
    except _DifferentError as error:
        raise TokenizerError(
            f"{path}: {error}; expected the byte-level BPE of Llama 3 or later. The tokenizer of "
            "other models is their tokenizer.model: pass it with --tokenizer"
        ) from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        said = printable(error, 80)
        raise TokenizerError(
            f"{path} is damaged ({type(error).__name__}: {said}); expected {expected}: copy the "
            "file again"
        ) from error


def _read(path: Path) -> dict[str, Any]:
    with open_regular(path) as file:
        data = file.read(MAX_NBYTES + 1)
    try:
        value = parse_json(data, str(path), max_nbytes=MAX_NBYTES)
    except InvalidJSONError as error:
        raise TokenizerError(f"{error}: copy the file again") from error
    if not isinstance(value, dict):
        raise _DifferentError("it is no JSON object")
    return value


def _tokenizer(value: dict[str, Any], path: Path) -> RankTokenizer:
    model = value.get("model") or {}
    special = _special(value, model)
    added = sorted(listed_tokens(value))
    ranks = _checked(model["vocab"], model["merges"], added, special, path)
    return RankTokenizer(path, ranks, special, added=added)


def _checked(
    vocab: Mapping[str, int],
    merges: Sequence[Any],
    added: Sequence[AddedToken],
    special: SpecialTokens,
    path: Path,
) -> list[bytes]:
    """Return the ranks that a vocabulary and its merges say."""
    ranks = _ranks(vocab, {token.id for token in added}, path)
    _check_added(added, len(ranks), special, path)
    _check_merges(merges, ranks)
    return ranks


def _special(value: Mapping[str, Any], model: Mapping[str, Any]) -> SpecialTokens:
    """Find the family by the pattern that splits strings."""
    kind = model.get("type")
    if kind != "BPE" or model.get("byte_fallback") or value.get("normalizer") is not None:
        raise _DifferentError(f"it is a {kind} model with other settings")
    split = value.get("pre_tokenizer") or {}
    steps = split.get("pretokenizers") or [split]
    pattern = (steps[0].get("pattern") or {}).get("Regex")
    for special in (LLAMA_3_1_HF, LLAMA_4):
        if pattern == special.pattern:
            return special
    raise _DifferentError(f"it splits strings with the pattern {pattern!r:.60}")


def _ranks(vocab: Mapping[str, int], added: set[int], path: Path) -> list[bytes]:
    by_rank: dict[int, bytes] = {}
    if (length := sum(map(len, vocab))) > MAX_VOCAB_NBYTES:
        raise ValueError(f"its tokens have {length} bytes in all")
    for text, token in vocab.items():
        if len(text) > MAX_TOKEN_NBYTES:
            raise ValueError(f"a token of {len(text)} bytes")
        if token in added:
            continue
        if type(token) is not int or token in by_rank:
            raise ValueError(f"the token ID {token!r} of {text!r:.40}")
        by_rank[token] = from_text(text)
    return check_ranks(by_rank, path)


def _check_added(
    added: Sequence[AddedToken], first: int, special: SpecialTokens, path: Path
) -> None:
    if added and added[0].id < first:
        raise ValueError(f"the added token {added[0].content!r:.40} has the ID {added[0].id}")
    names = {token.content for token in added}
    for offset in (0, special.eos):
        if special.names[offset] not in names:
            raise TokenizerError(
                f"{path} has no token {special.names[offset]}, with which strings of its family "
                f"{'end' if offset else 'begin'}: it is another model's, or damaged"
            )


def _check_merges(merges: Sequence[Any], ranks: list[bytes]) -> None:
    """Check that the merges say what the ranks say.

    Raises:
        _DifferentError: strings would become other tokens.
    """
    known = {token: rank for rank, token in enumerate(ranks)}
    joined = []
    for merge in merges:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        joined.append(known[from_text(left) + from_text(right)])
    if any(before > after for before, after in pairwise(joined)):
        raise _DifferentError("its merges are not in the order of its token IDs")
    if len(joined) != sum(1 for _ in _splits(known)):
        raise _DifferentError("its merges are not all the ways to split its tokens")


def _splits(known: Mapping[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    for token in known:
        for at in range(1, len(token)):
            if token[:at] in known and token[at:] in known:
                yield token[:at], token[at:]
