"""Each rule for forms of checkpoints and for tokenizers can fail."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

import llamakit
from llamakit.errors import DamagedFileError
from llamakit.testing import check_checkpoint_form, check_tokenizer

INDEX = "kit.index"


class Wrapped:
    """A good checkpoint of a format of its own, with one thing to spoil."""

    form = "kit"

    def __init__(self, path, spoilt):
        inner = llamakit.open_checkpoint(path / "inner")
        self.path, self.params, self.parameters = path, inner.params, inner.parameters
        self.nbytes_read = 0
        self.inner = inner
        for name, change in spoilt.items():
            setattr(self, name, change(self) if callable(change) else change)

    def read(self, name, *, axis=0, start=0, stop=None):
        array = self.inner.read(name, axis=axis, start=start, stop=stop)
        self.nbytes_read += array.nbytes
        return array


@pytest.fixture
def folder(llamakit_tiny, tmp_path):
    """A folder of the format."""
    place = tmp_path / "kit"
    place.mkdir()
    llamakit_tiny(1).rename(place / "inner")
    (place / INDEX).write_text("kit 1")
    return place


def form(**spoilt):
    """Make a hook that opens checkpoints of which one thing is not right."""

    def open_checkpoint(path):
        """Open a folder with kit.index."""
        if not (path / INDEX).is_file():
            return None
        if (path / INDEX).read_text() != "kit 1":
            raise DamagedFileError(f"{path / INDEX} is damaged")
        return Wrapped(path, spoilt)

    return open_checkpoint


def renamed(self):
    return {f"my.{name}": parameter for name, parameter in self.parameters.items()}


def with_first(**changes):
    """Change the first entry of the index."""

    def change(self):
        name, first = next(iter(self.parameters.items()))
        return {**self.parameters, name: dataclasses.replace(first, **changes)}

    return change


def without_last(self):
    return dict(list(self.parameters.items())[:-1])


def always_whole(self):
    return lambda name, **_: Wrapped.read(self, name)


def always_the_start(self):
    def read(name, *, axis=0, start=0, stop=None):
        length = len(range(*slice(start, stop).indices(self.parameters[name].shape[axis])))
        return Wrapped.read(self, name, axis=axis, start=0, stop=length)

    return read


def wide(self):
    return lambda name, **bounds: Wrapped.read(self, name, **bounds).astype(np.float64)


def lenient(self):
    def read(name, **bounds):
        return Wrapped.read(self, name, **bounds) if name in self.parameters else None

    return read


def gets(self):
    def read(name, **bounds):
        if name not in self.parameters:
            raise AttributeError(name)
        return Wrapped.read(self, name, **bounds)

    return read


def count_nothing(self):
    return self.inner.read


@pytest.mark.parametrize(
    ("spoilt", "sentence"),
    [
        ({"params": None}, "is no good: it returned Wrapped, without params.dim, params.context"),
        ({"path": "kit"}, "path is 'kit': keep the Path that is opened"),
        ({"form": ""}, "form is '': name the format"),
        ({"nbytes_read": 3}, "3 bytes of weights are read while opening"),
        ({"parameters": with_first(name="other")}, "is called 'other': give both the same name"),
        ({"parameters": with_first(shape=[4, 4])}, "has the shape [4, 4]: write a tuple of ints"),
        ({"parameters": with_first(dtype="f32")}, "has the dtype 'f32': one of float"),
        ({"parameters": with_first(axis=2)}, "has the axis 2, and 2 axes"),
        ({"parameters": renamed}, "is called 'tok_embeddings.weight': give both the same name"),
        ({"parameters": without_last}, "the parameters do not fit the params: "),
        ({"read": always_whole}, "is no good: "),
        ({"read": always_the_start}, "is no slice of what read("),
        ({"read": wide}, "float64"),
        ({"read": lenient}, "read returns something for a parameter that there is not"),
        ({"read": gets}, "AttributeError: layers.0.nonsense.weight: raise a KeyError"),
        ({"read": count_nothing}, "nbytes_read stays 0: add array.nbytes of what read returns"),
    ],
)
def test_a_format_that_breaks_a_rule_is_named(spoilt, sentence, folder):
    with pytest.raises(AssertionError, match=re.escape(sentence)):
        check_checkpoint_form(form(**spoilt), folder)


def test_a_format_whose_values_change_is_reported(folder):
    opened = iter(range(100))

    def open_checkpoint(path):
        """Open a folder with kit.index."""
        found = form()(path)
        number = next(opened)
        read = found and found.read
        if found:
            found.read = lambda name, **bounds: read(name, **bounds) + number
        return found

    with pytest.raises(AssertionError, match="has other values when it is read again"):
        check_checkpoint_form(open_checkpoint, folder)


def test_a_format_that_takes_everything_is_reported(folder):
    def open_checkpoint(path):
        """Open anything."""
        return Wrapped(folder, {"path": path})

    with pytest.raises(AssertionError, match="opens a checkpoint in Meta's format: look for what"):
        check_checkpoint_form(open_checkpoint, folder)


def test_a_format_that_fails_where_it_should_pass_is_reported(folder):
    def open_checkpoint(path):
        """Open a folder with kit.index."""
        (path / INDEX).read_text()
        return form()(path)

    with pytest.raises(
        AssertionError, match="fails on a checkpoint in Meta's format: FileNotFound"
    ):
        check_checkpoint_form(open_checkpoint, folder)


def test_a_format_that_does_not_say_what_is_damaged_is_reported(folder):
    def open_checkpoint(path):
        """Open a folder with kit.index."""
        if (path / INDEX).is_file():
            int((path / INDEX).read_text().split()[1])
        return form()(path)

    with pytest.raises(AssertionError, match=r"fails where kit\.index is cut short: IndexError"):
        check_checkpoint_form(open_checkpoint, folder)


def test_a_format_that_says_nothing_is_reported(folder):
    def open_checkpoint(path):
        return form()(path)

    with pytest.raises(AssertionError, match="open_checkpoint has no docstring: where no plugin"):
        check_checkpoint_form(open_checkpoint, folder)


def test_a_format_that_does_not_know_itself_is_reported(folder):
    def open_checkpoint(path):
        """Open nothing."""

    with pytest.raises(AssertionError, match=r"returns None for .*, which is of its format"):
        check_checkpoint_form(open_checkpoint, folder)


def test_a_format_that_keeps_the_rules_is_good(folder):
    check_checkpoint_form(form(), folder)


class Letters:
    """A good tokenizer, with one thing to spoil."""

    bos_id, eos_id = 1, 2
    vocab_size = 29

    def __init__(self, path, spoilt):
        self.path = path
        for name, change in spoilt.items():
            setattr(self, name, change)

    def encode(self, text, *, bos=False, eos=False):
        tokens = [ord(it) - ord("a") + 3 if "a" <= it <= "z" else 0 for it in text]
        return [1] * bos + tokens + [2] * eos

    def decode(self, tokens):
        return "".join(chr(token - 3 + ord("a")) for token in tokens if token >= 3)


def loader(**spoilt):
    """Make a hook that loads tokenizers of which one thing is not right."""

    def load_tokenizer(path):
        """Load a .letters file."""
        return Letters(path, spoilt) if path.suffix == ".letters" else None

    return load_tokenizer


def marks_up(text, *, bos=False, eos=False):
    tokens = [2 if part == "</s>" else 3 for part in re.findall("</s>|.", text, re.DOTALL)]
    return [1] * bos + tokens + [2] * eos


@pytest.mark.parametrize(
    ("spoilt", "sentence"),
    [
        ({"path": "x"}, "path is 'x': keep the Path that is loaded"),
        ({"vocab_size": 0}, "has the vocab_size 0; expected how many tokens there are"),
        ({"bos_id": -1}, "has the bos_id -1; expected an int from 0 to 28"),
        ({"eos_id": 29}, "has the eos_id 29; expected an int from 0 to 28"),
        ({"encode": lambda text, **_: text}, "encode('') returns '': return a list of ints"),
        ({"encode": lambda _, **__: [29]}, "returns [29]: return a list of ints below"),
        ({"encode": lambda _: [3]}, "encode fails on '': TypeError"),
        ({"encode": lambda _, **__: [3]}, "returns [3]: put bos_id before the tokens"),
        ({"encode": marks_up}, "encode('</s>') returns [2], with a control token"),
        ({"stop_ids": [2, 29]}, "stop_ids is [2, 29]: list the tokens that end an answer"),
        ({"stop_ids": 2}, "stop_ids is 2: list the tokens that end an answer"),
        ({"prompt_format": 3}, "prompt_format is 3: name a registered prompt format"),
        (
            {"special_ids": lambda: {"<x>": 29}},
            "special_ids() returns {'<x>': 29}: return token IDs",
        ),
        ({"special_ids": lambda: {"<x>": 3}}, "with a control token: what users type is text"),
        ({"token_bytes": lambda: [b""]}, "token_bytes() returns [b'']: return the bytes of each"),
        ({"token_bytes": lambda: [""] * 29}, "return the bytes of each of the 29 tokens"),
        ({"decode": lambda tokens: "x" * len(tokens)}, "decode gives BOS the text 'x'"),
        ({"decode": lambda _: "x"}, "text for no tokens"),
        (
            {"decode": lambda tokens: "ab"[tokens[0]]},
            "decode fails on tokens of its vocabulary: Index",
        ),
    ],
)
def test_a_tokenizer_that_breaks_a_rule_is_named(spoilt, sentence, tmp_path):
    path = tmp_path / "tokenizer.letters"
    path.write_text("letters")

    with pytest.raises(AssertionError, match=re.escape(sentence)):
        check_tokenizer(loader(**spoilt), path)


@pytest.mark.parametrize("error", [False, True])
def test_a_tokenizer_that_takes_every_file_is_reported(error, tmp_path):
    path = tmp_path / "tokenizer.letters"
    path.write_text("letters")

    def load_tokenizer(file):
        """Load anything."""
        if error and file.suffix != ".letters":
            raise llamakit.LlamakitError("no letters")
        return Letters(file, {})

    with pytest.raises(AssertionError, match="takes Llama 2's tokenizer: return None for"):
        check_tokenizer(load_tokenizer, path)


def test_a_tokenizer_that_keeps_the_rules_is_good(tmp_path):
    path = tmp_path / "tokenizer.letters"
    path.write_text("letters")

    check_tokenizer(loader(), path)
