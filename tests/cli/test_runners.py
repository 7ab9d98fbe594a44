"""``generate --on``: the runner of a small third-party package, held to its contract."""

from __future__ import annotations

import json
import sys
import types
from dataclasses import replace
from itertools import chain, zip_longest

import pytest

from llamakit import demo, hookimpl
from llamakit.api import open_replica
from llamakit.cli.generate import complete
from llamakit.cli.generate_options import GenerateOptions
from llamakit.errors import DestinationError, FileFormatError, PluginError, UsageError
from llamakit.llama.options import LoadOptions, SamplingOptions
from llamakit.plugin_manager.contracts.runners import checked_pieces
from llamakit.plugin_manager.entry_points import EntryPoint, find_entry_points
from llamakit.plugin_manager.toolkit import load_toolkit
from llamakit.protocols import AnswerPiece
from llamakit.testing import check_runner

PLUGIN = "the runner pair of the plugin 'pair' (llamakit-pair 1.0)"
LINES = [
    {"prompt": "Once upon a time", "id": "a", "mine": 1},
    {"prompt": "Once upon a time", "id": "b"},
    {"messages": [{"role": "user", "content": "Hello"}], "id": "c"},
    {
        "custom_id": "d",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 3,
            "logit_bias": {"9": 1},
            "stop": "z",
        },
    },
]


def broken(address, piece):
    """Return a piece as a runner yields it that does what its address says."""
    answers = {"words": {"tokens": ["a"]}, "no-text": {"text": None}, "seed": {"seed": "4"}}
    if address in answers:
        return replace(piece, answer={**piece.answer, **answers[address]})
    fields = {"list": {"index": [0]}, "true": {"index": False}, "half": {"tokens": 0.5}}
    return replace(piece, **fields.get(address, {}))


class Pair:
    """Answers on two replicas, which are sent JSON; or does what its address says wrong."""

    def __call__(self, job):
        if job.address == "raises":
            raise ZeroDivisionError("it fails")
        if job.address == "strange":
            yield "text"
        if job.address == "short":
            return
        job.check()
        requests = json.loads(json.dumps([*job.requests]))
        options = json.loads(json.dumps(job.options))
        with open_replica(options) as one, open_replica(options) as two:
            answers = zip_longest(one.answer(requests[::2]), two.answer(requests[1::2]))
            for piece in filter(None, chain.from_iterable(answers)):
                yield broken(job.address, piece) if piece.answer else piece
                if job.address == "twice" and piece.answer is not None:
                    yield AnswerPiece(piece.index, 0, "", piece.answer)

    def read_prompts(self, file, address):
        return [{"prompt": f"{file} at {address}"}] if file == "elsewhere" else LINES


@pytest.fixture(scope="module")
def toolkit():
    module = types.ModuleType("llamakit_pair")

    @hookimpl
    def register_runners(runners):
        runners.register("pair", Pair(), help="two replicas")

    module.register_runners = register_runners
    sys.modules[module.__name__] = module
    point = EntryPoint("pair", module.__name__, "", "llamakit-pair", "1.0")
    yield load_toolkit([*find_entry_points("llamakit"), point], disabled="")
    del sys.modules[module.__name__]


@pytest.fixture
def options(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(map(json.dumps, LINES)), "utf-8")
    return GenerateOptions(
        loading=LoadOptions(dtype="float32"),
        sampling=SamplingOptions(),
        max_new_tokens=5,
        prompt=(),
        prompts=str(file),
        seed=3,
        observations=None,
        output=None,
        mixed=False,
        part=None,
        on="local",
        replicas=None,
    )


def essence(lines):
    """Return answers without what is drawn anew each time, such as the IDs of responses."""
    return [line.get("response", {}).get("body", {}).get("choices") or line for line in lines]


def run(toolkit, options, **changes):
    return list(complete(toolkit, replace(options, **changes), as_json=True))


def test_two_replicas_give_the_answers_of_one_process(toolkit, options):
    expected = essence(run(toolkit, options))

    assert essence(run(toolkit, options, on="pair", logprobs=False)) == expected
    assert len({line["seed"] for line in expected[:2]}) == 2  # a repeated prompt has its own


def test_the_runner_reads_the_file_and_resumes_in_a_folder(toolkit, options, tmp_path):
    output = f"{tmp_path}/answers/"
    run(toolkit, options, output=output, replicas=None)
    file = tmp_path / "answers" / "answers.jsonl"
    whole = file.read_text("utf-8")
    lines = whole.splitlines(keepends=True)
    file.write_text("".join(lines[:1]) + lines[1][:20], "utf-8")

    run(toolkit, options, output=output, on="pair")
    (line,) = run(toolkit, options, prompts="elsewhere", on="pair:a:1")

    again = [json.loads(it) for it in file.read_text("utf-8").splitlines()]
    before = [json.loads(it) for it in lines]
    name = lambda it: it.get("custom_id", it["id"])  # noqa: E731
    assert essence(sorted(again, key=name)) == essence(sorted(before, key=name))
    assert line["prompt"] == "elsewhere at a:1"


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("raises", f"{PLUGIN} failed: ZeroDivisionError: it fails"),
        ("strange", f"{PLUGIN} yielded 'text'; expected the AnswerPieces of its replicas"),
        ("short", f"{PLUGIN} ended without the answers to 4 requests, the first of them 0"),
        ("twice", f"{PLUGIN} yielded a piece of the request "),
        ("words", f"{PLUGIN} yielded {{'prompt_tokens': "),
        ("no-text", f"{PLUGIN} yielded {{'prompt_tokens': "),
        ("seed", f"{PLUGIN} yielded {{'prompt_tokens': "),
        ("list", f"{PLUGIN} yielded a piece of the request [0], which is answered or unknown"),
        ("true", f"{PLUGIN} yielded a piece of the request False, which is answered or unknown"),
        ("half", f"{PLUGIN} yielded 0.5 new tokens"),
    ],
)
def test_a_runner_that_breaks_its_contract_is_named(toolkit, options, address, sentence):
    with pytest.raises(PluginError) as caught:
        run(toolkit, options, on=f"pair:{address}")

    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"on": "ray"}, "no runner is called 'ray' here: install llamakit-ray"),
        ({"on": "loca"}, "no runner is called 'loca'; did you mean 'local'?"),
        ({"on": "local:1"}, "--on local is one replica in this process"),
        ({"replicas": 2}, "--on local is one replica in this process"),
    ],
)
def test_what_no_runner_can_do_is_refused_in_one_sentence(toolkit, options, changes, sentence):
    with pytest.raises(UsageError) as caught:
        run(toolkit, options, **changes)

    assert caught.value.for_commands.startswith(sentence)


def test_a_folder_in_whose_place_a_file_is_is_refused(toolkit, options, tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(DestinationError, match="is no folder: pass another --output"):
        run(toolkit, options, output=f"{tmp_path}/file/")


def test_an_output_that_is_empty_is_refused(toolkit, options):
    with pytest.raises(DestinationError, match="--output is empty"):
        run(toolkit, options, output="")


def test_prompts_that_are_refused_leave_no_file_of_answers(toolkit, options, tmp_path):
    prompts = tmp_path / "two.jsonl"
    prompts.write_text('{"id": "a", "prompt": "x"}\n{"id": "a", "prompt": "y"}\n')

    with pytest.raises(FileFormatError, match="two prompts have the id 'a'"):
        run(toolkit, options, prompts=str(prompts), output=f"{tmp_path}/new/")

    assert not (tmp_path / "new").exists()


def test_a_folder_in_the_place_of_the_answers_is_called_one(toolkit, options, tmp_path):
    (tmp_path / "answers.jsonl").mkdir()

    with pytest.raises(DestinationError, match=r"answers\.jsonl is a folder: pass another"):
        run(toolkit, options, output=f"{tmp_path}/")


def test_a_runner_that_returns_no_iterator_is_named(toolkit):
    entry = toolkit.runners.entry("pair")

    for returned in (None, [], 5):
        with pytest.raises(PluginError, match="expected an iterator of AnswerPieces"):
            list(checked_pieces(returned, [0], entry.breach))


def test_the_kit_checks_runners(toolkit):
    check_runner(Pair(), replicas=2)
    check_runner(toolkit.runners.get("local"))

    with pytest.raises(AssertionError, match="the runner yielded 'text'"):
        check_runner(Pair(), address="strange")


def test_the_demo_answers_where_no_model_is_named():
    with open_replica({"max_new_tokens": 2}) as replica:
        pieces = list(replica.answer([{"index": 7, "prompt": "Once", "seed": 1}]))

    assert [piece.index for piece in pieces] == [7] * len(pieces)
    assert pieces[-1].answer["tokens"]
    assert replica.llama.checkpoint.path == demo.path()
