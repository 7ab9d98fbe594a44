"""The tokens that a Hugging Face folder adds behind those of a tokenizer file, or renames there.

They are read from the first of these files that lists any, next to the tokenizer file:
``tokenizer_config.json`` (``added_tokens_decoder``), ``added_tokens.json`` of older fine-tunes, and
``tokenizer.json`` (``added_tokens``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamakit.errors import LlamakitError, TokenizerError
from llamakit.files.json_reader import read_json_file
from llamakit.printable import printable

MAX_TOKENS = 1 << 21
MAX_NBYTES = 40 << 20
"""Of a tokenizer.json: the largest known, Llama 4's, has under 30 MB."""
MAX_LENGTH = 1 << 18
"""Characters of all added tokens together: Llama 4's have 40,000, and the engine makes one
pattern of those that text may become."""
_EXPECTED = {
    "tokenizer_config.json": '{"added_tokens_decoder": {"32000": {"content": "<|im_start|>"}}}',
    "added_tokens.json": '{"<|im_start|>": 32000}',
    "tokenizer.json": '{"added_tokens": [{"id": 32000, "content": "<|im_start|>"}]}',
}


@dataclass(frozen=True, order=True)
class AddedToken:
    """A token that is in no vocabulary.

    Args:
        special: a string never becomes it; only a prompt format writes it.
    """

    id: int
    content: str
    special: bool = True


def read_added_tokens(folder: Path, first: int) -> list[AddedToken]:
    """Return the added tokens of a folder by ID; none where no file lists any.

    Args:
        first: the first ID that the tokenizer file leaves to others.
    Raises:
        TokenizerError: a file that lists them cannot be read, or two tokens have one ID or name.
    """
    for name in _EXPECTED:
        if (folder / name).exists() and (listed := _read(folder / name)):
            return sorted(token for token in listed if token.id >= first)
    return []


def listed_tokens(tokenizer_json: Any) -> list[AddedToken]:
    """Return the added tokens of a tokenizer.json.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: they are not what they should be.
    """
    listed = tokenizer_json.get("added_tokens") or ()
    return _checked(
        [_token(entry["id"], entry["content"], entry.get("special", False)) for entry in listed]
    )


def _read(path: Path) -> list[AddedToken]:
    try:
        return _READERS[path.name](read_json_file(path, max_nbytes=MAX_NBYTES))
    except (LlamakitError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise TokenizerError(
            f"{path}: its added tokens cannot be read ({printable(error)}); expected "
            f"{_EXPECTED[path.name]}: copy the file again or remove it"
        ) from error


def _of_config(value: Any) -> list[AddedToken]:
    listed = (value.get("added_tokens_decoder") or {}).items()
    return _checked(
        [_token(int(id_), token["content"], token.get("special", True)) for id_, token in listed]
    )


def _of_added_tokens(value: Any) -> list[AddedToken]:
    return _checked([_token(id_, content, True) for content, id_ in value.items()])


_READERS = {
    "tokenizer_config.json": _of_config,
    "added_tokens.json": _of_added_tokens,
    "tokenizer.json": listed_tokens,
}


def _token(token: Any, content: Any, special: Any) -> AddedToken:
    if type(token) is not int or not 0 <= token < MAX_TOKENS:
        raise ValueError(f"the added token {content!r:.40} has the ID {token!r:.40}")
    if not isinstance(content, str) or not content:
        raise ValueError(f"the content of an added token is no string: {content!r:.40}")
    return AddedToken(token, content, bool(special))


def _checked(listed: list[AddedToken]) -> list[AddedToken]:
    if (length := sum(len(token.content) for token in listed)) > MAX_LENGTH:
        raise ValueError(f"its added tokens have {length} characters in all")
    ids, names = {token.id for token in listed}, {token.content for token in listed}
    if len(ids) < len(listed) or len(names) < len(listed):
        raise ValueError("two added tokens have one ID or one name")
    return listed
