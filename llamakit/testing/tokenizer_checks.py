"""The contract of tokenizers: what a plugin's ``load_tokenizer`` loads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from llamakit import demo
from llamakit.errors import LlamakitError
from llamakit.protocols import Tokenizer
from llamakit.testing.checkpoint_checks import call_hook, check_first_line
from llamakit.testing.exporter_checks import contents
from llamakit.testing.factory_checks import said
from llamakit.testing.process_state import ContractError, left_alone
from llamakit.testing.registration_checks import check_registration_of

Load = Callable[[Path], Tokenizer | None]
TEXTS = (
    *("", " ", "Once upon a time", "Once upon a time, ", "two\nlines\n", "tab\tand  spaces "),
    *("naïve café", "早上好", "🙂👩‍👩‍👧", "\x00\x07\ufeff", "e\u0301", "[INST] <<SYS>>", "a" * 500),
    *("<s>", "</s>", "<unk>", "<0x41>", "<|im_start|>user", "<|endoftext|>", "▁▁"),
)
"""What users type, the names of control tokens of other tokenizers among it."""


def check_tokenizer(load_tokenizer: Load, path: Path) -> None:
    """Check that a plugin loads its format of tokenizer as llamakit expects, and nothing else.

    Args:
        load_tokenizer: the plugin's hook.
        path: a file of the format.

    Raises:
        AssertionError: a rule is broken; the sentence says which, and what to do.
    """
    __tracebackhide__ = True
    path, before = Path(path), contents(path)
    check_registration_of(load_tokenizer)
    check_first_line(load_tokenizer, "a tokenizer.txt that lists the characters")
    with left_alone("load_tokenizer"):
        tokenizer = _load(load_tokenizer, path)
        _check_hints(tokenizer)
        special = _special_ids(tokenizer)
        encoded = [_encode(tokenizer, text, special) for text in [*TEXTS, *special]]
        _check_decode(tokenizer, special)
        _check_bytes(tokenizer)
    again = _load(load_tokenizer, path)
    if [_encode(again, text, special) for text in [*TEXTS, *special]] != encoded:
        raise ContractError("the tokenizer gives other tokens for the same text when loaded again")
    if contents(path) != before:
        raise ContractError("the file changes while it is loaded: open it to read")
    with TemporaryDirectory() as root:
        for other in _others(Path(root), path):
            _check_passed_over(load_tokenizer, other)


def _load(load_tokenizer: Load, path: Path) -> Tokenizer:
    __tracebackhide__ = True
    loaded: Tokenizer = call_hook(load_tokenizer, "load_tokenizer", path, "file")
    if not isinstance(loaded.path, Path) or loaded.path.resolve() != path.resolve():
        raise ContractError(f"path is {loaded.path!r}: keep the Path that is loaded, {path}")
    return loaded


def _check_hints(tokenizer: Tokenizer) -> None:
    """Check what a tokenizer may say of its models besides."""
    __tracebackhide__ = True
    stops: Any = getattr(tokenizer, "stop_ids", ())
    if not isinstance(stops, Collection) or not all(_is_id(token, tokenizer) for token in stops):
        raise ContractError(f"stop_ids is {stops!r:.60}: list the tokens that end an answer")
    name: Any = getattr(tokenizer, "prompt_format", "llama2")
    if not isinstance(name, str) or not name:
        raise ContractError(f"prompt_format is {name!r:.60}: name a registered prompt format")


def _special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Return what no string may become, by name; check it where the tokenizer lists it."""
    __tracebackhide__ = True
    values: Any = getattr(tokenizer, "special_ids", dict)()
    if not isinstance(values, Mapping) or not all(
        isinstance(name, str) and _is_id(token, tokenizer) for name, token in values.items()
    ):
        raise ContractError(
            f"special_ids() returns {values!r:.60}: return token IDs by their names"
        )
    return {**values, "BOS": tokenizer.bos_id, "EOS": tokenizer.eos_id}


def _encode(tokenizer: Tokenizer, text: str, special: Mapping[str, int]) -> list[int]:
    """Check what a string becomes."""
    __tracebackhide__ = True
    try:
        tokens: Any = tokenizer.encode(text)
        framed: Any = tokenizer.encode(text, bos=True, eos=True)
    except Exception as error:
        raise ContractError(f"encode fails on {text!r:.40}: {said(error)}") from error
    if not isinstance(tokens, list) or not all(_is_id(token, tokenizer) for token in tokens):
        raise ContractError(
            f"encode({text!r:.40}) returns {tokens!r:.60}: return a list of ints below vocab_size"
        )
    if set(tokens) & set(special.values()):
        raise ContractError(
            f"encode({text!r:.40}) returns {tokens!r:.60}, with a control token: what users type "
            "is text"
        )
    if framed != [tokenizer.bos_id, *tokens, tokenizer.eos_id]:
        raise ContractError(
            f"encode({text!r:.40}, bos=True, eos=True) returns {framed!r:.60}: put bos_id before "
            "the tokens and eos_id behind them"
        )
    return tokens


def _check_decode(tokenizer: Tokenizer, special: Mapping[str, int]) -> None:
    __tracebackhide__ = True
    try:
        texts: list[Any] = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
        both: Any = tokenizer.decode([*range(min(tokenizer.vocab_size, 1000))])
        nothing: Any = tokenizer.decode([])
    except Exception as error:
        raise ContractError(f"decode fails on tokens of its vocabulary: {said(error)}") from error
    if nothing != "" or not all(isinstance(text, str) for text in [*texts, both]):
        raise ContractError("decode returns something else than a str, or text for no tokens")
    for name in ("BOS", "EOS"):
        if text := texts[special[name]]:
            raise ContractError(f"decode gives {name} the text {text!r}: it has none")


def _check_bytes(tokenizer: Tokenizer) -> None:
    __tracebackhide__ = True
    tell = getattr(tokenizer, "token_bytes", None)
    if tell is None:
        return
    values: Any = tell()
    is_good = isinstance(values, Sequence) and all(isinstance(piece, bytes) for piece in values)
    if not is_good or len(values) != tokenizer.vocab_size:
        raise ContractError(
            f"token_bytes() returns {values!r:.60}: return the bytes of each of the "
            f"{tokenizer.vocab_size} tokens, b'' where it adds no text"
        )


def _is_id(token: object, tokenizer: Tokenizer) -> bool:
    return type(token) is int and 0 <= token < tokenizer.vocab_size


def _others(root: Path, path: Path) -> Iterator[Path]:
    """Make files that are of no format, and name SentencePiece's."""
    bundled = demo.path().parent / "tokenizer.model"
    if path.read_bytes() != bundled.read_bytes():
        yield bundled
    for name, text in (("tokenizer.json", '{"model": {}}'), ("params.json", "{}")):
        (root / name).write_text(text, "utf-8")
        yield root / name


def _check_passed_over(load_tokenizer: Load, path: Path) -> None:
    __tracebackhide__ = True
    is_known = path.suffix == ".model"
    what = "Llama 2's tokenizer" if is_known else f"a {path.name}"
    try:
        is_taken = load_tokenizer(path) is not None
    except LlamakitError:
        if not is_known:
            return  # SentencePiece's files have no other mark than that they can be read
        is_taken = True
    except Exception as error:
        raise ContractError(
            f"load_tokenizer fails on {what}: {said(error)}; return None for what is not of the "
            "format, so that the next plugin is asked"
        ) from error
    if is_taken:
        raise ContractError(
            f"load_tokenizer takes {what}: return None for what is not of the format, so that the "
            "next plugin is asked"
        )
