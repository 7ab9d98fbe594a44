"""Options of factories: listed, read from texts, checked, built."""

from __future__ import annotations

import functools
import types
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamakit.errors import DialogError, OptionError, PluginError
from llamakit.plugin_manager.docstrings import summary_of
from llamakit.plugin_manager.factories import Option, build, options_of, parse_choice, parse_options
from llamakit.plugin_manager.registry import Entry, Source

if TYPE_CHECKING:
    from nowhere import Tokenizer

BUILTIN = Source("top-p", "llamakit", "0.1.0", builtin=True)
THIRD_PARTY = Source("second", "llamakit-second", "0.1", builtin=False)


def keep(
    tokenizer: Tokenizer = None,
    count: int = 2,
    temperature: float = 0.6,
    is_strict: bool = False,
    mode: Literal["fast", "exact"] = "fast",
    limit: Optional[int] = None,  # noqa: UP045 - third-party plugins write it so
    label: str | None = None,
    mass: Annotated[float, "a probability"] = 0.9,
    untyped=3,
):
    """Keep what it is given.

    Args:
        count: how many; at least
            one.
        temperature (float): divides the logits.
        is_strict: refuse: everything.

    Returns:
        A dict.
    """
    return locals()


def entry(factory, source=BUILTIN, name="keep"):
    return Entry("sampler", name, factory, "", source)


def test_every_annotated_parameter_with_a_default_is_an_option():
    options = options_of(keep)

    assert [(option.name, option.type_name, option.default) for option in options[1:]] == [
        ("count", "int", 2),
        ("temperature", "float", 0.6),
        ("is-strict", "bool", False),
        ("mode", "fast | exact", "fast"),
        ("limit", "int | none", None),
        ("label", "none | str", None),
        ("mass", "float", 0.9),
    ]


def test_help_of_options_comes_from_the_docstring():
    helps = {option.name: option.help for option in options_of(keep)}

    assert helps["count"] == "how many; at least one."
    assert helps["temperature"] == "divides the logits."
    assert helps["is-strict"] == "refuse: everything."
    assert helps["mode"] == ""


def test_required_parameters_and_docstrings_are_not_needed():
    assert options_of(lambda tokenizer: tokenizer) == []


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("count=7", "count", 7),
        ("temperature=1", "temperature", 1.0),
        ("temperature=1e-3", "temperature", 1e-3),
        ("is-strict=yes", "is_strict", True),
        ("is_strict=off", "is_strict", False),
        ("mode=exact", "mode", "exact"),
        ("limit=none", "limit", None),
        ("limit=4", "limit", 4),
        ("label=a=b, c", "label", "a=b, c"),
        ("label=none", "label", None),
        ("mass = 0.5", "mass", 0.5),
    ],
)
def test_strings_are_read_as_the_type_of_the_option(text, name, value):
    made = build(entry(keep), [text])

    assert made[name] == value
    assert type(made[name]) is type(value)


def test_values_from_python_are_passed_on():
    made = build(entry(keep), {"count": 3, "temperature": 1, "limit": None, "is-strict": True})

    assert (made["count"], made["temperature"], made["limit"]) == (3, 1.0, None)
    assert made["is_strict"] is True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["temperature=hot"], "temperature of sampler keep: 'hot' is not a number"),
        (["temperature=nan"], "temperature of sampler keep: 'nan' is not a number"),
        (["count=1.5"], "count of sampler keep: '1.5' is not a whole number"),
        ({"count": True}, "count of sampler keep: True is not a whole number"),
        ({"count": 2.5}, "count of sampler keep: 2.5 is not a whole number"),
        (["is-strict=maybe"], "is-strict of sampler keep: 'maybe' is not yes or no"),
        (["mode=slow"], "mode of sampler keep: 'slow' is not fast or exact"),
        (["limit=x"], "limit of sampler keep: 'x' is not a whole number or none"),
        (["tempertaure=1"], "sampler keep has no option 'tempertaure'; did you mean 'temperature'"),
        (["count"], "an option is written NAME=VALUE, such as p=0.9, not 'count'"),
        (["count=1", "count=2"], "the option count is given twice: '1' and '2'"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence(options, message):
    with pytest.raises(OptionError) as caught:
        build(entry(keep), options)

    assert str(caught.value).startswith(message)
    assert caught.value.exit_status == 2


def test_an_option_that_no_string_becomes_can_be_given_from_python():
    def factory(sizes: list[int] = (1, 2)):
        return sizes

    assert build(entry(factory), {"sizes": [3]}) == [3]
    with pytest.raises(OptionError, match=r"'3' is not list\[int\]"):
        build(entry(factory), ["sizes=3"])


def test_a_string_becomes_a_path_where_the_annotation_says_so():
    def read(
        file: Path = Path(),
        other: Path | None = None,
        third: str | Path = "",
        fourth: Path | None = Path(),
    ):
        return file, other, third, fourth

    made = build(entry(read), ["file=a/b", "other=c", "third=d", "fourth=none"])

    assert made == (Path("a/b"), Path("c"), Path("d"), None)


def test_the_docstring_of_init_explains_the_options_of_a_class():
    class Cycle:
        def __init__(self, period: int = 2, start: int = 0):
            """Cycle through the likeliest ids.

            Args:
                period: how many.
            """

    class Spin(Cycle):
        """Spin.

        Args:
            start: the first.
        """

    assert [option.help for option in options_of(Cycle)] == ["how many.", ""]
    assert [option.help for option in options_of(Spin)] == ["how many.", "the first."]
    assert summary_of(Cycle) == "Cycle through the likeliest ids."
    assert summary_of(Spin) == "Spin."


def test_a_partial_function_is_explained_by_the_function():
    partly = functools.partial(keep, label="mine")

    assert summary_of(partly) == summary_of(keep)
    assert [(it.name, it.type_name, it.help) for it in options_of(partly)] == [
        (it.name, it.type_name, it.help) for it in options_of(keep)
    ]


def test_a_parameter_that_is_no_option_is_said_to_be_none():
    def factory(n: int):
        return n

    with pytest.raises(OptionError, match="has no option 'n': it is a parameter of the factory"):
        build(entry(factory), ["n=3"])


@pytest.mark.parametrize("kind", [int, float | None, bool, Path, Literal["a", "b"], str | None])
def test_an_option_of_a_type_that_a_string_becomes_can_be_typed(kind):
    assert Option("it", kind, None, "").can_be_typed


@pytest.mark.parametrize("kind", [list[str], dict, None, list[str] | None, "Unknown"])
def test_an_option_of_another_type_cannot(kind):
    assert not Option("it", kind, None, "").can_be_typed


def test_a_value_that_the_factory_refuses_is_a_usage_error():
    def factory(p: float = 0.9):
        raise ValueError(f"p is {p}; it has to be between 0 and 1")

    with pytest.raises(OptionError) as caught:
        build(entry(factory, name="top-p"), ["p=3"])

    assert str(caught.value) == "sampler top-p: p is 3.0; it has to be between 0 and 1"


def test_what_comes_before_the_options_is_passed_on():
    def factory(tokenizer, greeting: str = "hello"):
        return tokenizer, greeting

    assert build(entry(factory), ["greeting=ciao"], "the tokenizer") == ("the tokenizer", "ciao")


def test_what_a_factory_takes_by_name_is_passed_on():
    def factory(greeting: str = "hello", *, tokenizer):
        return tokenizer, greeting

    assert build(entry(factory), ["greeting=ciao"], tokenizer="it") == ("it", "ciao")


def test_another_failure_of_a_third_party_plugins_factory_names_the_plugin():
    def factory():
        return {}["absent"]

    with pytest.raises(PluginError, match=r"plugin 'second' \(llamakit-second 0\.1\) failed: Key"):
        build(entry(factory, THIRD_PARTY))


def test_a_failure_of_a_builtin_is_not_hidden():
    def factory():
        return {}["absent"]

    with pytest.raises(KeyError):
        build(entry(factory, BUILTIN))


def test_what_a_third_party_plugins_factory_makes_names_the_plugin_when_it_fails():
    def sample(logits, rows):
        raise RuntimeError("sizes do not match")

    sampler = build(entry(lambda: sample, THIRD_PARTY))

    with pytest.raises(PluginError, match=r"sampler keep of the plugin 'second' .* sizes do not"):
        sampler(None, [])


def test_methods_of_what_a_third_party_plugin_made_are_guarded_and_its_values_are_not():
    def encode(dialog):
        if not dialog:
            raise DialogError("an empty dialog")
        return dialog[0]

    made = types.SimpleNamespace(stop_tokens=(2,), encode=encode)
    prompt_format = build(Entry("prompt format", "keep", lambda: made, "", THIRD_PARTY))

    assert prompt_format.stop_tokens == (2,)
    assert prompt_format.encode(["hi"]) == "hi"
    with pytest.raises(DialogError):
        prompt_format.encode([])
    with pytest.raises(PluginError):
        prompt_format.encode(3)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory: 8 bytes")])
def test_running_out_of_memory_is_nobodys_fault(error):
    def sample():
        raise error

    with pytest.raises(type(error)) as caught:
        build(entry(lambda: sample, THIRD_PARTY))()

    assert caught.value is error


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("typical", "typical", {}),
        ("typical:mass=0.9", "typical", {"mass": "0.9"}),
        ("xtc:threshold=0.1,min_keep=2", "xtc", {"threshold": "0.1", "min-keep": "2"}),
        ("regex:pattern=a{1,2}:,b", "regex", {"pattern": "a{1,2}:,b"}),
    ],
)
def test_a_processor_is_a_name_and_its_options(text, name, options):
    assert parse_choice(text) == (name, options)


def test_a_processor_with_a_word_that_is_no_option_is_refused():
    with pytest.raises(OptionError, match="not 'fast'"):
        parse_choice("typical:fast")


@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True),
        st.text(st.characters(exclude_categories=["Cs"])).map(str.strip),
    )
)
def test_options_written_out_are_read_back(options):
    assert parse_options(f"{name}={value}" for name, value in options.items()) == options
