"""Options that make no sense are refused, each with a sentence of its own."""

from __future__ import annotations

import math

import pytest
from rows_kit import TOKENIZER, TOOLKIT

from llamakit.errors import OptionError
from llamakit.llama.sampler_choice import choose_sampling

LAST = TOKENIZER.vocab_size - 1

PROCESSORS = [
    ("temperature:value=0", "value is 0.0; it has to be above 0"),
    ("temperature:value=1e300", "value is 1e+300; it has to be above 0 (0.00001 to 100000)"),
    ("temperature:value=inf", "value is inf; it has to be above 0"),
    ("dynamic-temperature:low=-1", "low is -1.0 and high is 1.5; low has to be 0 or more"),
    ("dynamic-temperature:low=2,high=1", "low is 2.0 and high is 1.0"),
    ("dynamic-temperature:high=inf", "high between it and 100000"),
    ("dynamic-temperature:exponent=0", "exponent is 0.0; it has to be between 0.01 and 100"),
    ("top-k:k=0", "k is 0; it has to be at least 1"),
    ("top-k:k=2.5", "k of processor top-k: '2.5' is not a whole number"),
    ("top-p:p=1.1", "p is 1.1; it has to be between 0 and 1"),
    ("min-p:p=-0.1", "p is -0.1; it has to be between 0 and 1"),
    ("typical:mass=1", "mass is 1.0; it has to be above 0 and below 1"),
    ("top-n-sigma:n=0", "n is 0.0; it has to be above 0 and at most 1000"),
    ("top-n-sigma:n=inf", "n is inf; it has to be above 0"),
    ("xtc:threshold=0.6", "threshold is 0.6; it has to be above 0 and at most 0.5"),
    ("xtc:threshold=0", "threshold is 0.0; it has to be above 0"),
    ("xtc:probability=2", "probability is 2.0; it has to be between 0 and 1"),
    ("repetition-penalty:penalty=0", "penalty is 0.0; it has to be between 0.01 and 100"),
    ("repetition-penalty:last=-1", "last is -1; it has to be 0 (all tokens) or more"),
    ("frequency-penalty:penalty=2.5", "penalty is 2.5; it has to be between -2 and 2"),
    ("frequency-penalty:last=-1", "last is -1; it has to be 0 (all tokens) or more"),
    ("presence-penalty:penalty=-3", "penalty is -3.0; it has to be between -2 and 2"),
    ("presence-penalty:prompt=maybe", "'maybe' is not yes or no"),
    ("presence-penalty:last=-1", "last is -1; it has to be 0 (all tokens) or more"),
    ("dry:multiplier=-1", "multiplier is -1.0; it has to be between 0 and 100"),
    ("dry:base=0.5", "base is 0.5; it has to be between 1 and 4"),
    ("dry:allowed-length=0", "allowed-length is 0; it has to be at least 1"),
    ("dry:last=-5", "last is -5; it has to be 0 (all tokens) or more"),
    ("no-repeat-ngram:n=0", "n is 0; it has to be at least 1"),
    ("min-length:length=-1", "length is -1; it has to be 0 or more"),
    ("logit-bias:bias=13", "bias is written ID:VALUE,ID:VALUE, such as 13:-inf, not '13'"),
    ("logit-bias:bias=13:1,,", "not ''"),
    ("logit-bias:bias=:1", "not ':1'"),
    ("logit-bias:bias=13:much", "'much' in '13:much' is not a number, nor -inf"),
    ("logit-bias:bias=13:inf", "'inf' in '13:inf' has to be between -10000 and 10000"),
    ("logit-bias:bias=13:nan", "'nan' in '13:nan' has to be between"),
    ("logit-bias:bias=13:1,40:2,13:3", "bias names the token 13 twice, the second time in '13:3'"),
    (f"logit-bias:bias={LAST + 1}:1", f"there is no token {LAST + 1}: the last is {LAST}"),
    ("logit-bias:bias=hello:1", "'hello' is not one token but"),
    ("logit-bias:bias=٤٤:1", "'٤٤' is not one token but"),
    ("logit-bias:bias=-4:1", "'-4' is not one token but"),
]

SAMPLERS = [
    ("mirostat", "tau=0", "tau is 0.0; it has to be above 0 and at most 100"),
    ("mirostat", "tau=inf", "tau is inf"),
    ("mirostat", "eta=0", "eta is 0.0; it has to be above 0 and at most 1"),
    ("mirostat", "eta=2", "eta is 2.0"),
    ("top-p", "temperature=0", "temperature is 0.0; it has to be above 0"),
    ("top-p", "temperature=1e-30", "temperature is 1e-30; it has to be above 0 (0.00001"),
    ("top-p", "p=-1", "p is -1.0; it has to be between 0 and 1"),
]


@pytest.mark.parametrize(("choice", "sentence"), PROCESSORS)
def test_a_processor_says_what_is_wrong_with_its_options(choice: str, sentence: str) -> None:
    with pytest.raises(OptionError) as caught:
        choose_sampling(processors=[choice], toolkit=TOOLKIT, tokenizer=TOKENIZER)

    assert f"processor {choice.partition(':')[0]}" in str(caught.value)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "option", "sentence"), SAMPLERS)
def test_a_sampler_says_what_is_wrong_with_its_options(
    name: str, option: str, sentence: str
) -> None:
    with pytest.raises(OptionError) as caught:
        choose_sampling(sampler=name, sampler_options=[option], toolkit=TOOLKIT)

    assert str(caught.value).startswith(f"sampler {name}: {sentence}")


def test_infinity_is_no_value_for_a_float_of_a_built_in() -> None:
    from llamakit.plugin_manager.factories import build, options_of, takes_tokenizer

    for registry in (TOOLKIT.samplers, TOOLKIT.processors):
        for entry in registry:
            handed = {"tokenizer": TOKENIZER} if takes_tokenizer(entry.value) else {}
            for option in options_of(entry.value):
                if option.type is float:
                    for value in (math.inf, -math.inf, 1e300, -1e300):
                        with pytest.raises(OptionError):
                            build(entry, {option.name: value}, **handed)
