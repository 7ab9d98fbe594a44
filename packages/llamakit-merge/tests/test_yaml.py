"""YAML and adapter_config.json of others: bounded, and refused in one sentence."""

import json
import random

import pytest
import yaml
from adapters import ADAPTERS
from llamakit_merge.adapter_config import read_adapter_config
from llamakit_merge.api import merge
from llamakit_merge.config import parse_config
from llamakit_merge.yaml_file import MAX_NBYTES, parse_yaml
from merges import MERGES, written

from llamakit import LlamakitError

LAUGHS = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
)
MERGED_LAUGHS = "\n".join(
    ["a0: &a0 {k: v}"] + [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 40)]
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "with its aliases it has over 30000 values"),
        (MERGED_LAUGHS, "with its aliases it has over 30000 values"),
        ("a: &a [*a]", "nested more than 20 deep"),
        ("[" * 50_000, "nested more than 20 deep"),
        ("a: " + "9" * 9000, "a number has 9000 digits"),
        ("a: " + "59:" * 9000 + "59", "a number has 27002 digits"),
        ("a: 2020-13-45", "is not a merge in YAML: month must be in"),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("a: 1\na: 2", "the key 'a' is there twice"),
        ("a: 1\n---\nb: 2", "expected a single document"),
        ("a: [", "is not a merge in YAML"),
        ("? [1, 2]\n: 3\n? {a: 1}\n: 4", "unhashable key"),
        ("[" + "a," * 60_001 + "]", "it has over 30000 values"),
        ("a: !!bool b", "no such thing as its tag says"),
        ("a: !!int ''", "no such thing as its tag says"),
        ("a: !!timestamp b", "no such thing as its tag says"),
        ("", "it is empty"),
        ("#" * (MAX_NBYTES + 1), f"it has over {MAX_NBYTES} bytes"),
    ],
)
def test_yaml_that_is_no_merge_is_refused_in_bounds(text, message):
    with pytest.raises(LlamakitError, match=message):
        parse_yaml(text.encode(), "a.yml")


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(LlamakitError, match="is not a merge in YAML"):
        parse_yaml(b"a: \xff\xfe", "a.yml")


def test_anchors_and_merge_keys_are_read():
    text = "one: &one {weight: 1}\ntwo: {<<: *one, density: 0.5}"

    assert parse_yaml(text.encode(), "a.yml")["two"] == {"weight": 1, "density": 0.5}


def test_a_file_is_the_merge_that_its_values_are(models, tmp_path):
    values, _ = written(MERGES["ties-slices"], models())
    (tmp_path / "merge.yml").write_text(yaml.safe_dump(values), "utf-8")

    merged = merge(tmp_path / "merge.yml")

    assert merged.plans.keys() == merge(values).plans.keys()
    assert [plan.inputs for plan in merged.plans.values()] == [
        plan.inputs for plan in merge(values).plans.values()
    ]


def mutated(data, rng):
    """Return bytes with some of them changed, left out or repeated."""
    for _ in range(rng.randint(1, 6)):
        at, to = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        part = rng.choice((bytes([rng.randrange(256)]), b"", data[at : at + 9], b"[{", b"*&!"))
        data = data[:at] + part + data[min(to, at + 3) :]
    return data


def test_mutated_merges_are_read_or_refused(models):
    values, _ = written(MERGES["ties-filters"], models())
    data = yaml.safe_dump(values).encode()
    rng = random.Random(16)
    refused = 0

    for _ in range(150):
        try:
            parse_config(parse_yaml(mutated(data, rng), "a.yml"), "a.yml")
        except LlamakitError as error:
            refused += "\n" not in str(error)

    assert refused > 50


def test_mutated_adapter_configs_are_read_or_refused(tmp_path):
    data = json.dumps({"peft_type": "LORA"} | ADAPTERS["patterns"]).encode()
    rng = random.Random(16)
    refused = 0

    for _ in range(300):
        (tmp_path / "adapter_config.json").write_bytes(mutated(data, rng))
        try:
            read_adapter_config(tmp_path / "adapter_config.json").scale("model.q_proj", 2)
        except LlamakitError as error:
            refused += "\n" not in str(error)

    assert refused > 50


@pytest.mark.parametrize(
    "pattern", ["(a+)+b", "(a|a)*b", ".*.*.*x", "(?P<a>x)", "a{9}{9}{9}", "0?" * 30, "(.|.)" * 30]
)
def test_patterns_that_may_take_forever_are_refused(tmp_path, pattern):
    values = {"peft_type": "LORA", "lora_alpha": 1, "alpha_pattern": {pattern: 2}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(values), "utf-8")

    with pytest.raises(LlamakitError, match="which is not read here"):
        read_adapter_config(tmp_path / "adapter_config.json")
