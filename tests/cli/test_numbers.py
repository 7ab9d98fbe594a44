"""Every option that takes a number takes the same numbers, and refuses the rest in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import numpy as np
import pytest

from llamakit.cli.chat.answer_settings import AnswerSettings
from llamakit.cli.main import build_cli, run
from llamakit.cli.number_types import MOST, Number, Seed, WholeNumber
from llamakit.download.rate_limit import read_rate
from llamakit.errors import FileFormatError, OptionError, UsageError
from llamakit.llama.prompts import read_jsonl
from llamakit.llama.seeds import Seeds, check_seed
from llamakit.plugin_manager.toolkit import load_toolkit
from llamakit.runtime.rank_environment import JOIN_TIMEOUT_VARIABLE, join_timeout

ODD = [
    "nan",
    "inf",
    "-inf",
    "1e400",
    "9" * 30,
    "9" * 5000,
    "",
    "5_000",
    "\u0663",
    "0x10",
    "²",
    "\0",
]
"""What no option takes."""
FRACTIONS = ["1.5", "1e3", ".5"]


def parameters() -> Iterator[tuple[str, click.Parameter]]:
    cli = build_cli(load_toolkit(disabled="all"))
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        for parameter in command.params:
            yield name, parameter


NUMBERS = [
    (name, it) for name, it in parameters() if isinstance(it.type, (WholeNumber, Number, Seed))
]


def test_no_option_takes_numbers_in_another_way() -> None:
    others = [
        (name, it.opts)
        for name, it in parameters()
        if isinstance(
            it.type, (type(click.INT), type(click.FLOAT), click.IntRange, click.FloatRange)
        )
        and not isinstance(it.type, (WholeNumber, Number, Seed))
        and not getattr(it, "count", False)
        and not getattr(it, "is_flag", False)
    ]

    assert others == []
    assert len(NUMBERS) > 40


@pytest.mark.parametrize(("name", "option"), NUMBERS, ids=lambda it: getattr(it, "name", it))
def test_odd_numbers_are_refused_in_a_sentence(name: str, option: click.Parameter) -> None:
    odd = ODD if isinstance(option.type, Number) else ODD + FRACTIONS

    for text in odd:
        with pytest.raises(click.BadParameter) as caught:
            option.type.convert(text, option, None)

        assert len(caught.value.format_message()) < 200
    for text in ("1", " 1 ", "+1"):
        assert option.type.convert(text, option, None) == 1


def test_a_zero_has_no_sign() -> None:
    assert str(Number(min=0).convert("-0", None, None)) == "0.0"
    assert WholeNumber(min=0).convert("-0", None, None) == 0


def test_a_number_that_overflows_elsewhere_is_named(capsys: Any) -> None:
    status = run(["generate", "--max-seq-len", str(MOST + 1), "x"])

    assert status == 2
    assert f"{MOST + 1} is too large a number: {MOST} at most." in capsys.readouterr().err


@pytest.mark.parametrize("seed", [-(2**63), -1, 0, 2**64 - 1, np.int64(7)])
def test_a_seed_is_any_whole_number_of_64_bits(seed: int) -> None:
    assert check_seed(seed) == seed
    assert Seeds(seed).of([[1]], seed) == [seed]


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1, 1.0, "1", True, float("nan"), None])
def test_another_seed_is_refused(seed: Any) -> None:
    with pytest.raises(UsageError, match="is no seed: expected a whole number of 64 bits"):
        check_seed(seed)


@pytest.mark.parametrize("seed", ["18446744073709551616", "1.5", "true", '"1"'])
def test_a_seed_in_a_file_of_prompts_is_refused_with_its_line(seed: str) -> None:
    lines = iter([b'{"prompt": "a", "seed": %s}\n' % seed.encode()])

    class Lines:
        def readline(self, _: int) -> bytes:
            return next(lines, b"")

    with pytest.raises(FileFormatError, match=r"^prompts, line 1: .* is no seed"):
        list(read_jsonl(Lines(), "prompts"))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["temperature", "top-p", "max-new-tokens", "seed"])
@pytest.mark.parametrize("text", [it for it in ODD if it])
def test_a_setting_of_a_chat_is_refused(name: str, text: str) -> None:
    with pytest.raises(OptionError):
        AnswerSettings().changed(name, [text])


@pytest.mark.parametrize("text", ["nan", "inf", "1_0", "\u0663", "9" * 30, "-1"])
def test_numbers_of_the_environment_and_rates_are_read_the_same_way(text: str, monkeypatch: Any):
    monkeypatch.setenv(JOIN_TIMEOUT_VARIABLE, text)

    with pytest.raises(Exception, match="expected seconds"):
        join_timeout(None)
    if text != "9" * 30:
        with pytest.raises(OptionError, match="is not a rate"):
            read_rate(text)
