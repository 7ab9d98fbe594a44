"""Constrained output: what is printed is what the grammar wants, on the bundled demo model too."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from llamakit import Llama, demo
from llamakit._distribution import install_command
from llamakit.api import choose_sampling
from llamakit.errors import LlamakitError, OptionError, PromptError, TokenizerError, UsageError
from llamakit.plugin_manager.factories import Choice
from llamakit.plugins.processors.grammar.time_limit import may_be_slow
from llamakit.plugins.processors.grammar.token_vocabulary import TokenVocabulary
from llamakit.tokenizer.sentencepiece import SentencePieceTokenizer, load

Run = Callable[..., "subprocess.CompletedProcess[str]"]

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["shard", "rank", "你好"]}, "maxItems": 2},
        "is_whole": {"type": "boolean"},
    },
    "required": ["name", "age", "tags", "is_whole"],
    "additionalProperties": False,
}
NESTED = {
    "type": "array",
    "items": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/pair"}]},
    "minItems": 1,
    "maxItems": 3,
    "$defs": {
        "pair": {
            "type": "array",
            "prefixItems": [{"type": "string", "pattern": "[a-z]{1,4}"}, {"type": "boolean"}],
            "items": False,
            "minItems": 2,
        }
    },
}
LARK = 'start: greeting " " NAME "!"\ngreeting: "hello" | "good" " " ("day" | "night")\n'
LARK += "NAME: /[A-Z][a-z]{1,8}/\n"
GBNF = 'root ::= digit ("+" digit){0,3} "=" digit\ndigit ::= [0-9]{1,2}\n'


def is_person(value: Any) -> bool:
    return (
        list(value) == ["name", "age", "tags", "is_whole"]
        and isinstance(value["name"], str)
        and len(value["name"]) <= 6
        and type(value["age"]) is int
        and 0 <= value["age"] <= 150
        and len(value["tags"]) <= 2
        and set(value["tags"]) <= {"shard", "rank", "你好"}
        and type(value["is_whole"]) is bool
    )


def is_nested(value: Any) -> bool:
    return 1 <= len(value) <= 3 and all(
        item is None
        or (
            len(item) == 2
            and re.fullmatch("[a-z]{1,4}", item[0]) is not None
            and type(item[1]) is bool
        )
        for item in value
    )


CHECKS: dict[str, tuple[Choice, Callable[[str], object]]] = {
    "person": (
        Choice("json-schema", {"schema": json.dumps(PERSON)}),
        lambda text: is_person(json.loads(text)),
    ),
    "nested": (
        Choice("json-schema", {"schema": json.dumps(NESTED)}),
        lambda text: is_nested(json.loads(text)),
    ),
    "words": (
        Choice("regex", {"pattern": "(yes|no), [a-z]{3,5} [a-z]{1,5}[.!]"}),
        lambda text: re.fullmatch("(yes|no), [a-z]{3,5} [a-z]{1,5}[.!]", text),
    ),
    "spaces first": (
        Choice("regex", {"pattern": " {2,4}x {1,3}y"}),
        lambda text: re.fullmatch(" {2,4}x {1,3}y", text),
    ),
    "other scripts": (
        Choice("regex", {"pattern": "[一-龥]{2,4}🙂é[\\n]"}),
        lambda text: re.fullmatch("[一-龥]{2,4}🙂é\n", text),
    ),
    "lark": (
        Choice("grammar", {"text": LARK}),
        lambda text: re.fullmatch("(hello|good (day|night)) [A-Z][a-z]{1,8}!", text),
    ),
    "gbnf": (
        Choice("grammar", {"text": GBNF}),
        lambda text: re.fullmatch(r"\d{1,2}(\+\d{1,2}){0,3}=\d{1,2}", text),
    ),
}


@pytest.fixture(scope="module")
def llama() -> Iterator[Llama]:
    with Llama.open(demo.path(), max_batch_size=2, dtype="float32") as opened:
        yield opened


@pytest.fixture(scope="module")
def tokenizer() -> SentencePieceTokenizer:
    return load(demo.path().parent / "tokenizer.model")


def answers(
    llama: Llama, sampling: Any, *, prompts: int = 3, limit: int = 120
) -> list[tuple[str, str | None, list[int]]]:
    """Answer prompts of several lengths, more than fit at once; rows join and leave."""
    asked = [llama.tokenizer.encode("Once " * n, bos=True) for n in range(1, prompts + 1)]
    found: list[tuple[str, str | None, list[int]]] = [("", None, [])] * prompts
    for chunk in llama.stream(asked, sampling=sampling, seeds=range(prompts), max_new_tokens=limit):
        text, _, tokens = found[chunk.index]
        more = [] if chunk.token is None else [chunk.token]
        found[chunk.index] = (text + chunk.text, chunk.finish, tokens + more)
    return found


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", CHECKS)
def test_every_answer_of_the_demo_model_parses(name: str, temperature: float, llama: Llama):
    choice, check = CHECKS[name]
    sampling = choose_sampling(
        processors=[choice], temperature=temperature, top_p=1.0, tokenizer=llama.tokenizer
    )

    found = answers(llama, sampling)

    ended = [text for text, finish, _ in found if finish == "stop"]
    assert [text for text in ended if not check(text)] == []
    assert len(ended) == len(found)
    if temperature and name in ("person", "words"):
        assert len(set(ended)) > 1


def test_an_answer_does_not_depend_on_the_rows_around_it(llama: Llama):
    sampling = choose_sampling(
        processors=[CHECKS["person"][0]], temperature=1.0, tokenizer=llama.tokenizer
    )

    together = answers(llama, sampling)
    llama.max_batch_size, before = 1, llama.max_batch_size
    alone = answers(llama, sampling)
    llama.max_batch_size = before

    assert alone == together


def test_the_first_space_is_the_tokenizers_and_not_the_grammars(llama: Llama):
    tokenizer: Any = llama.tokenizer
    spaced = tokenizer._model.piece_to_id("▁the")
    allowed = first_ids(tokenizer, "the")
    forced = first_ids(tokenizer, " the")

    assert spaced in allowed  # it is printed without its space
    assert spaced not in forced
    assert tokenizer.decode([spaced]) == "the"


@dataclass(eq=False)
class FakeRow:
    """What a processor sees of a sequence."""

    generator: torch.Generator
    tokens: list[int]
    prompt_length: int = 3
    stop_tokens: tuple[int, ...] = (2,)
    state: dict[Any, Any] = field(default_factory=dict)


def row(*answer: int, **settings: Any) -> FakeRow:
    return FakeRow(torch.Generator(), [1, 5, 6, *answer], **settings)


def allowed_by(process: Any, of: FakeRow, width: int = 1600) -> set[int]:
    logits = process(torch.zeros(1, width), [of])
    return set(torch.isfinite(logits[0]).nonzero()[:, 0].tolist())


def processor(tokenizer: Any, name: str, **options: str) -> Any:
    (made,) = choose_sampling(processors=[Choice(name, options)], tokenizer=tokenizer).processors
    return made


def first_ids(tokenizer: Any, pattern: str) -> set[int]:
    return allowed_by(processor(tokenizer, "regex", pattern=pattern), row())


PATTERNS = ["[a-z ]{0,9}", " {0,5}[a-z]*", "( ?(the|a|shard)){1,4}", "[^a]{1,6}", "(你|好| )+!"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_whatever_is_left_prints_what_the_pattern_wants(pattern: str, tokenizer: Any):
    process = processor(tokenizer, "regex", pattern=pattern)
    generator = torch.Generator().manual_seed(1)
    ended = 0

    for _ in range(60):
        one = row()
        for _ in range(30):
            allowed = sorted(allowed_by(process, one))
            pick = allowed[int(torch.randint(len(allowed), (), generator=generator))]
            if 2 in allowed and torch.rand((), generator=generator) < 0.3:
                pick = 2
            if pick == 2:
                break
            one.tokens.append(pick)
        if pick == 2:
            ended += 1
            text = tokenizer.decode(one.tokens[3:])
            assert re.fullmatch(pattern, text, re.DOTALL), repr(text)

    assert ended > 5


def test_white_space_in_json_may_be_any_or_as_little_as_can_be(tokenizer: Any):
    schema = json.dumps({"type": "array", "items": {"const": 1}, "minItems": 2, "maxItems": 2})
    text = "[\n 1 ,1 ]"
    ids = tokenizer.encode(text)

    loose = processor(tokenizer, "json-schema", schema=schema, compact="no")
    tight = processor(tokenizer, "json-schema", schema=schema)

    assert all(ids[at] in allowed_by(loose, row(*ids[:at])) for at in range(len(ids)))
    assert allowed_by(loose, row(*ids)) >= {2}
    assert allowed_by(tight, row(*tokenizer.encode("[1,1]"))) == {2}
    with pytest.raises(PromptError, match="does not fit the grammar"):
        allowed_by(tight, row(*ids))


def test_when_nothing_may_follow_only_the_rows_stop_tokens_are_left(tokenizer: Any):
    process = processor(tokenizer, "regex", pattern="the")
    the = tokenizer._model.piece_to_id("▁the")

    assert allowed_by(process, row(the)) == {2}
    assert allowed_by(process, row(the, stop_tokens=(7, 9))) == {7, 9}
    assert allowed_by(process, row(the, stop_tokens=())) == {tokenizer.eos_id}
    assert not {2, the} & allowed_by(process, row(stop_tokens=(2, the)))  # would end too early


def test_tokens_beyond_the_tokenizer_are_taken_away_and_logits_kept(tokenizer: Any):
    process = processor(tokenizer, "regex", pattern="(the|a)+")
    logits = torch.randn(2, 1700)

    edited = process(logits, [row(), row()])

    assert torch.isinf(edited[:, 1600:]).all()
    kept = torch.isfinite(edited)
    assert kept.any(dim=1).all()
    assert (edited[kept] == logits[kept]).all()
    assert edited.dtype == torch.float32


def test_a_row_that_goes_back_is_followed(tokenizer: Any):
    process = processor(tokenizer, "regex", pattern="the shard")
    the, other = (tokenizer._model.piece_to_id(piece) for piece in ("▁the", "▁s"))
    one = row(the, other)
    before = allowed_by(process, one)

    one.tokens = one.tokens[:-1]
    back = allowed_by(process, one)

    assert back == allowed_by(process, row(the))
    assert back != before
    one.tokens = [1, 5, 6, other]
    with pytest.raises(PromptError, match="does not fit the grammar"):
        allowed_by(process, one)


def test_what_is_more_than_the_engine_bears_is_distinguished_from_what_does_not_fit(tokenizer: Any):
    ways = [{"properties": {"a": {"const": it}}} for it in range(1850)]
    schema = json.dumps({"anyOf": ways}, separators=(",", ":"))
    process = processor(tokenizer, "json-schema", schema=schema)

    with pytest.raises(PromptError) as caught:
        allowed_by(process, row(*tokenizer.encode("{")))

    assert str(caught.value).startswith(
        "the grammar cannot continue: Parser Error: Current row has"
    )
    assert "\n" not in str(caught.value)
    assert "<state>" not in str(caught.value)


def test_the_engines_vocabulary_is_kept_with_the_tokenizer(tokenizer: Any):
    first = processor(tokenizer, "regex", pattern="a")
    second = processor(tokenizer, "regex", pattern="b")
    another = processor(load(tokenizer.path), "regex", pattern="b")

    assert first._vocabulary is second._vocabulary
    assert isinstance(another._vocabulary, TokenVocabulary)
    assert another._vocabulary is not first._vocabulary


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("regex", {"pattern": "(a"}, OptionError, "expression '\\(a' cannot be used: .*unclosed"),
        ("regex", {"pattern": "a(?=b)"}, OptionError, "look-around"),
        ("json-schema", {"schema": "{"}, OptionError, "the JSON schema is not JSON"),
        ("json-schema", {"schema": "3"}, OptionError, "expected an object"),
        ("json-schema", {"schema": '{"type": "objec"}'}, OptionError, "Invalid type: objec"),
        (
            "json-schema",
            {"schema": '{"not": {}}'},
            OptionError,
            "#/not: the engine does not support 'not'",
        ),
        ("json-schema", {}, UsageError, "needs either a file or a string"),
        ("json-schema", {"file": "no.json"}, UsageError, "no.json: no such file"),
        ("grammar", {"text": "start: nowhere"}, OptionError, 'unknown name: "nowhere"'),
        ("grammar", {"text": 'root ::= "a" ::'}, OptionError, "the grammar cannot be used"),
        ("grammar", {"text": "root ::= " + "(" * 9999}, OptionError, "more than 100 brackets"),
        ("grammar", {"file": "no.lark"}, UsageError, "no.lark: no such file; expected a grammar"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(
    name: str, options: dict[str, str], error: type[LlamakitError], message: str, tokenizer: Any
):
    with pytest.raises(error, match=message) as caught:
        processor(tokenizer, name, **options)

    assert "\n" not in str(caught.value)


def test_a_long_grammar_is_tried_before_it_can_fill_the_stack(tokenizer: Any):
    rules = "\n".join(f"a{number}: a{number + 1}" for number in range(10_000))

    with pytest.raises(OptionError, match="characters take too much time or memory; make it"):
        processor(tokenizer, "grammar", text=f'start: a0\n{rules}\na10000: "x"')


def test_patterns_that_would_take_the_engine_hours_are_refused(tokenizer: Any):
    joined = {"type": "string", "allOf": [{"pattern": f"x{number}.*y"} for number in range(30)]}

    with pytest.raises(OptionError, match=r"takes too long .* allOf and \$ref"):
        processor(tokenizer, "json-schema", schema=json.dumps(joined))


@pytest.mark.parametrize(
    ("part", "is_tried"),
    [
        ('"pattern": "a", "allOf": []', True),
        ('"format": "date", "$ref": "#"', True),
        (r'"\u0070attern": "a", "\u0061llOf": []', True),
        ('"pattern": "a"', False),
        ('"allOf": []', False),
    ],
)
def test_only_where_many_patterns_may_meet_a_process_tries_first(part: str, is_tried: bool):
    assert may_be_slow("start: %json {" + ", ".join([part] * 9) + "}") == is_tried


def test_a_tokenizer_that_tells_no_bytes_is_refused(tokenizer: Any):
    class Silent:
        path, vocab_size, bos_id, eos_id = tokenizer.path, 1600, 1, 2
        encode, decode = tokenizer.encode, tokenizer.decode

    with pytest.raises(TokenizerError, match=r"does not provide the bytes of its tokens"):
        processor(Silent(), "regex", pattern="a")


# As a user types it ---------------------------------------------------------------------------


def test_the_options_of_generate(run_llamakit: Run, tmp_path: Path):
    (tmp_path / "person, one.json").write_text(json.dumps(PERSON), encoding="utf-8")
    (tmp_path / "sum.gbnf").write_text(GBNF, encoding="utf-8")
    common = ("generate", "--seed", "1", "--temperature", "1")

    schema = run_llamakit(*common, "--json-schema", "person, one.json", "--json", "A", "B", "C")
    regex = run_llamakit(*common, "--regex", "a,b=c[0-9]{2}", "Once")
    grammar = run_llamakit(*common, "--grammar", "sum.gbnf", "Once", "--max-new-tokens", "2")

    assert schema.returncode == 0, schema.stderr
    found = [json.loads(line) for line in schema.stdout.splitlines()]
    assert len(found) == 3
    assert all(is_person(json.loads(answer["text"])) for answer in found)
    assert {answer["finish_reason"] for answer in found} == {"stop"}
    assert re.fullmatch(r"a,b=c\d{2}\n", regex.stdout)
    assert re.fullmatch(r"[\d+=]+\n", grammar.stdout)
    assert "the answer stopped after 2 tokens and is incomplete" in grammar.stderr


def test_a_chat_is_constrained_and_set_changes_it(run_llamakit: Run):
    done = run_llamakit(
        *("chat", "--regex", "(yes|no)", "--seed", "1"),
        stdin="Is it?\n/set\n/set processors regex:pattern=[0-9]{3}\nIs it?\n",
    )

    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"(yes|no)\n[0-9]{3}\n", done.stdout)
    assert "processors regex:pattern=(yes|no)" in done.stderr


def test_two_constraints_at_once_are_a_usage_error(run_llamakit: Run):
    done = run_llamakit("generate", "--regex", "a", "--grammar", "x.lark", "Once")

    assert done.returncode == 2
    assert "--regex and --grammar: choose one of the two" in done.stderr


def test_without_the_engine_one_sentence_says_what_to_install(run_llamakit: Run, tmp_path: Path):
    absent = tmp_path / "absent"
    absent.mkdir()
    (absent / "llguidance.py").write_text("raise ModuleNotFoundError('no llguidance')")
    env = {"PYTHONPATH": str(absent)}

    done = run_llamakit("generate", "--regex", "a", "Once", env=env)
    listed = run_llamakit("plugins", "--json", env=env)

    assert done.returncode == 2
    assert install_command("grammar") in done.stderr
    assert "Traceback" not in done.stderr
    plugins = {plugin["name"]: plugin for plugin in json.loads(listed.stdout)}
    assert plugins["grammar"]["status"] == "ok"
