"""``score``: the numbers of transformers on the export, in windows and on several ranks."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before the import below, which reads it

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis.strategies import integers

from llamakit.api import Llama, ScoreItem, export, score
from llamakit.errors import PromptError, UsageError
from llamakit.llama.score_summary import as_dict, summary
from llamakit.llama.score_windows import Window, windows
from llamakit.llama.scoring import score_windows

TEXT = "The shard of a checkpoint is one file. " * 6
CHOICES = ScoreItem.choices("A rank holds", [" one slice", " nothing", " all of the others"], 1)
CONTEXT = 32
LM_EVAL = Path(__file__).parents[1] / "data" / "lm-eval"


@pytest.fixture(scope="module")
def llama(reference_cases: Path) -> Iterator[Llama]:
    case = reference_cases / "gqa-mp1"
    with Llama.open(case, dtype="float32", max_seq_len=CONTEXT) as llama:
        yield llama


@pytest.fixture(scope="module")
def hf(reference_cases: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Transformers' model and tokenizer of the export."""
    folder = tmp_path_factory.mktemp("hf") / "export"
    export(reference_cases / "gqa-mp1", folder, tokenizer=reference_cases / "tokenizer.model")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model, transformers.AutoTokenizer.from_pretrained(folder)


def logprobs_of(hf: tuple[Any, Any], tokens: list[int]) -> torch.Tensor:
    """Return the log-probability of each token but the first."""
    with torch.no_grad():
        logits = hf[0](torch.tensor([tokens[:-1]])).logits[0].log_softmax(-1)
    return logits.gather(-1, torch.tensor(tokens[1:])[:, None])[:, 0]


def test_a_continuation_has_the_logprob_of_transformers(llama: Llama, hf: tuple[Any, Any]) -> None:
    context, string = "A rank holds", " one slice"

    (scored,) = score(llama, [ScoreItem.continuation(context, string)])

    head, tokens = hf[1].encode(context), hf[1].encode(context + string)
    expected = logprobs_of(hf, tokens)[len(head) - 1 :]
    assert scored.scores[0].tokens == len(expected) == len(tokens) - len(head)
    assert scored.scores[0].logprob == pytest.approx(float(expected.sum()), rel=1e-4)


@pytest.mark.parametrize("stride", [CONTEXT, 20])
def test_a_text_past_the_context_is_scored_with_a_stride(
    llama: Llama, hf: tuple[Any, Any], stride: int
) -> None:
    tokens = hf[1].encode(TEXT)
    assert len(tokens) > 3 * CONTEXT

    (scored,) = score(llama, [ScoreItem.text(TEXT)], stride=stride)

    expected, done = 0.0, 1
    while done < len(tokens):  # as transformers' page on perplexity has it
        end = min(len(tokens), done + (CONTEXT if done == 1 else stride))
        window = tokens[max(0, end - CONTEXT - 1) : end]
        expected += float(logprobs_of(hf, window)[-(end - done) :].sum())
        done = end
    assert scored.scores[0].tokens == len(tokens) - 1
    assert scored.scores[0].logprob == pytest.approx(expected, rel=1e-4)


@given(count=integers(2, 120), first=integers(1, 60), stride=integers(1, 32))
def test_windows_score_each_token_once_and_fit_the_context(
    count: int, first: int, stride: int
) -> None:
    tokens = list(range(count))

    parts = list(windows(tokens, first, 32, stride))

    assert [token for part in parts for token in part.tokens[part.first_scored :]] == tokens[first:]
    assert all(part.first_scored >= 1 and len(part.tokens) <= 33 for part in parts)
    assert all(len(part.tokens) == 33 for part in parts[1:])


def test_choices_share_the_context_and_keep_their_scores(llama: Llama) -> None:
    context = "A checkpoint of two shards is read by two ranks, each of which reads one."
    strings = [" The first rank", " A", " Nobody reads it twice"]
    llama.forget()
    alone = [
        next(score(llama, [ScoreItem.continuation(context, string)])).scores[0].logprob
        for string in strings
    ]

    (together,) = score(llama, [ScoreItem.choices(context, strings)])

    assert [it.logprob for it in together.scores] == pytest.approx(alone, abs=1e-3)
    assert together.best == alone.index(max(alone))


def test_two_ranks_score_as_one(llama: Llama, reference_cases: Path) -> None:
    items = [ScoreItem.text(TEXT), CHOICES]
    alone = [it.logprob for scored in score(llama, items) for it in scored.scores]

    case = reference_cases / "gqa-mp1"
    with Llama.open(case, dtype="float32", max_seq_len=CONTEXT, model_parallel_size=2) as two:
        ranks = [it.logprob for scored in score(two, items) for it in scored.scores]

    assert ranks == pytest.approx(alone, abs=1e-3)


def test_a_greedy_answer_is_greedy_and_its_logprobs_add_up(llama: Llama) -> None:
    (tokens,), scores = llama.generate(
        [llama.tokenizer.encode("A", bos=True)], 5, temperature=0, logprobs=True
    )
    prompt = llama.tokenizer.encode("A", bos=True)

    ((_, scored),) = score_windows(llama, [Window([*prompt, *tokens], len(prompt))])

    assert scored.greedy
    assert scored.logprob == pytest.approx(sum(scores[0]), abs=1e-3)


def test_spaces_at_the_end_of_a_context_belong_to_the_string(llama: Llama) -> None:
    spaced, plain = score(
        llama,
        [ScoreItem.continuation("A rank ", "holds"), ScoreItem.continuation("A rank", " holds")],
    )

    assert spaced.scores == plain.scores


@pytest.mark.parametrize("item", [ScoreItem.text(""), ScoreItem.continuation("A", "")])
def test_a_string_without_tokens_is_refused(llama: Llama, item: ScoreItem) -> None:
    with pytest.raises(PromptError, match="item 1: '' adds no token"):
        list(score(llama, [item]))


@pytest.mark.parametrize("stride", [0, -1, CONTEXT + 1])
def test_a_stride_outside_of_the_context_is_refused(llama: Llama, stride: int) -> None:
    with pytest.raises(UsageError, match=f"the stride is {stride}; it has to be 1 to 32"):
        list(score(llama, [CHOICES], stride=stride))


def test_the_summary_adds_up(llama: Llama) -> None:
    items = [ScoreItem.text(TEXT), ScoreItem.text("One  file."), CHOICES]

    lines = [as_dict(scored) for scored in score(llama, items)]
    total = summary(lines)

    logprob = lines[0]["logprob"] + lines[1]["logprob"]
    nbytes = len(TEXT) + 10
    assert total["text"]["perplexity"] == pytest.approx(
        math.exp(-logprob / (lines[0]["tokens"] + lines[1]["tokens"]))
    )
    assert total["text"]["bits_per_byte"] == pytest.approx(-logprob / nbytes / math.log(2))
    assert total["choices"]["accuracy"] == float(lines[2]["best"] == 1)


def test_the_numbers_are_those_of_lm_eval_with_transformers_on_the_export(llama: Llama) -> None:
    lines_of_file = (LM_EVAL / "documents.jsonl").read_text("utf-8").splitlines()
    documents = [json.loads(line) for line in lines_of_file]
    expected = json.loads((LM_EVAL / "expected.json").read_text())
    texts = [ScoreItem.text(document["text"]) for document in documents]
    questions = [  # lm-eval writes a space between the context and each choice
        ScoreItem.choices(it["context"], [f" {choice}" for choice in it["choices"]], it["answer"])
        for it in documents
    ]

    lines = [as_dict(scored) for scored in score(llama, texts)]
    judged = list(score(llama, questions))

    assert [line["logprob"] for line in lines] == pytest.approx(expected["texts"], rel=1e-5)
    total = summary(lines)["text"]
    for name in ("word_perplexity", "byte_perplexity", "bits_per_byte"):
        assert total[name] == pytest.approx(expected[name], rel=1e-4)
    for scored, logprobs, greedy in zip(
        judged, expected["choices"], expected["greedy"], strict=True
    ):
        assert [it.logprob for it in scored.scores] == pytest.approx(logprobs, rel=1e-5)
        assert [it.greedy for it in scored.scores] == greedy
    answers = [as_dict(scored)["correct"] for scored in judged]
    assert answers == expected["correct"]


# The command ------------------------------------------------------------------------------------

LINES = [
    {"id": "a", "text": "A rank holds one slice."},
    {"context": "A rank", "continuation": " holds"},
    {"id": 3, "context": "A rank", "choices": [" holds", " is"], "answer": 0},
]


@pytest.fixture
def command(reference_cases: Path, tmp_path: Path) -> list[str | Path]:
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, LINES)))
    model = ("-m", reference_cases / "gqa-mp1", "--dtype", "float32")
    return ["score", *model, "--items", "items.jsonl"]


def test_a_run_that_was_stopped_resumes_with_the_same_summary(
    run_llamakit: Callable[..., Any], tmp_path: Path, command: list[str | Path]
) -> None:
    whole = run_llamakit(*command, "--output", "scores.jsonl", "--json")
    lines = (tmp_path / "scores.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "scores.jsonl").write_bytes(lines[0] + lines[1][:40])
    resumed = run_llamakit(*command, "--output", "scores.jsonl", "--json")

    assert whole.returncode == resumed.returncode == 0, whole.stderr + resumed.stderr
    again = (tmp_path / "scores.jsonl").read_bytes().splitlines(keepends=True)
    assert again[0] == lines[0]
    assert [json.loads(line)["id"] for line in again] == [json.loads(it)["id"] for it in lines]
    total, total_again = (json.loads(done.stdout)["summary"] for done in (whole, resumed))
    assert list(total) == ["text", "continuation", "choices"]
    assert [total_again[kind]["items"] for kind in total] == [1, 1, 1]
    for kind in ("text", "continuation"):
        assert total_again[kind] == pytest.approx(total[kind], rel=1e-4)


def test_a_run_that_is_resumed_names_an_item_by_its_number_among_all(
    run_llamakit: Callable[..., Any], tmp_path: Path, command: list[str | Path]
) -> None:
    run_llamakit(*command, "--output", "scores.jsonl")
    lines = [*LINES, {"context": "A", "continuation": ""}]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, lines)))

    resumed = run_llamakit(*command, "--output", "scores.jsonl")

    assert resumed.returncode == 1
    assert "item 4: '' adds no token" in resumed.stderr


@pytest.mark.parametrize("other", [("--quantize", "int8"), ("--stride", "8")])
def test_scores_with_other_settings_are_not_mixed(
    run_llamakit: Callable[..., Any], command: list[str | Path], other: tuple[str, ...]
) -> None:
    run_llamakit(*command, "--output", "scores.jsonl")

    mixed = run_llamakit(*command, "--output", "scores.jsonl", *other)

    assert mixed.returncode == 2
    assert "scores.jsonl has answers that were made otherwise" in mixed.stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{}", "expected {"),
        ('{"text": 1}', "each … is a string"),
        ('{"text": "a", "context": "b"}', "its keys are"),
        ('{"context": "a", "choices": "bc"}', "each … is a string"),
        ('{"context": "a", "choices": ["b"]}', "two or more"),
        ('{"context": "a", "choices": ["b", "c"], "answer": 2}', "the choices are 0 to 1"),
        ('{"context": "a", "choices": ["b", "c"], "answer": "c"}', "the index of a choice"),
        ('{"text": "a", "id": [1]}', "id has to be"),
        ("[", "not JSON"),
    ],
)
def test_a_line_that_cannot_be_scored_is_named(
    run_llamakit: Callable[..., Any], tmp_path: Path, line: str, message: str
) -> None:
    (tmp_path / "items.jsonl").write_text(f'"A text."\n{line}\n')

    done = run_llamakit("score", "--items", "items.jsonl")

    assert done.returncode == 1
    assert "items.jsonl, line 2: " in done.stderr
    assert message in done.stderr
