"""``llamakit generate`` as a user types it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from llamakit.cli.terminal import whole_lines
from llamakit.errors import NonFiniteError

Run = Callable[..., subprocess.CompletedProcess[str]]
STORY = "Once upon a time"


@pytest.fixture
def model(reference_cases: Path) -> str:
    return str(reference_cases / "gqa-mp1")


def test_the_demo_model_answers_and_only_the_answer_is_on_stdout(run_llamakit: Run) -> None:
    done = run_llamakit("generate", STORY, "--temperature", "0", "--max-new-tokens", "40")

    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n")
    assert len(done.stdout.split()) > 10
    assert "using the bundled demo model" in done.stderr
    assert done.stdout.isascii()


def test_the_demo_model_is_noticed_once_and_in_one_line(run_llamakit: Run) -> None:
    done = run_llamakit("generate", STORY, "--max-new-tokens", "1")

    assert done.stderr == (
        "llamakit: no model named (-m FOLDER or LLAMAKIT_MODEL): using the bundled demo model\n"
    )


def test_a_prompt_that_was_typed_without_quotes_is_noticed(run_llamakit: Run, model: str) -> None:
    few = ("--max-new-tokens", "1", "-m", model)

    unquoted = run_llamakit("generate", *few, "Once", "upon", "a", "time")
    quoted = run_llamakit("generate", *few, "Once upon", "a time")

    assert len(unquoted.stdout.splitlines()) >= 4
    assert 'one prompt of several words needs quotes: "Once upon a time"' in unquoted.stderr
    assert quoted.stderr == ""


@pytest.mark.parametrize(
    ("error", "raised"),
    [(KeyboardInterrupt(), click.Abort), (NonFiniteError("NaN"), NonFiniteError)],
)
def test_a_line_that_an_error_or_ctrl_c_cuts_off_is_ended(
    capsys: pytest.CaptureFixture[str], error: BaseException, raised: type[BaseException]
) -> None:
    def write(text: str) -> None:
        with whole_lines() as piece:
            piece(text)
            piece("")
            raise error

    with pytest.raises(raised):
        write("Once upon")
    with pytest.raises(type(error)):
        write("a time\n")

    assert capsys.readouterr().out == "Once upon\na time\n"


def test_the_same_seed_gives_the_same_answer_whatever_is_next_to_it(
    run_llamakit: Run, model: str
) -> None:
    common = ("generate", "-m", model, "--json", "--seed", "3", "--max-new-tokens", "8")

    alone = run_llamakit(*common, "two")
    together = run_llamakit(*common, "one", "two", "three")

    answers = [json.loads(line) for line in together.stdout.splitlines()]
    assert [answer["prompt"] for answer in answers] == ["one", "two", "three"]
    assert answers[1]["text"] == json.loads(alone.stdout)["text"]
    assert answers[1]["seed"] == 3


def test_the_tutorials_spellings_are_accepted(
    run_llamakit: Run, model: str, reference_cases: Path
) -> None:
    done = run_llamakit(
        *("generate", "--ckpt_dir", model),
        *("--tokenizer_path", str(reference_cases / "tokenizer.model")),
        *("--max_seq_len", "64", "--max_gen_len", "4", "--max_batch_size", "4"),
        *("--temperature", "0", "--json", "hello"),
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["new_tokens"] == 4


def test_prompts_come_from_standard_input_and_from_a_file(
    run_llamakit: Run, model: str, tmp_path: Path
) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(
        '{"prompt": "one", "id": "first"}\n\n"two"\n'
        '{"messages": [{"role": "user", "content": "three"}], "seed": 9}\n',
        encoding="utf-8",
    )

    done = run_llamakit(
        *("generate", "-m", model, "-", "--prompts", str(file)),
        *("--json", "--max-new-tokens", "3"),
        stdin="zero\n",
    )

    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer.get("prompt") for answer in answers] == ["zero", "one", "two", None]
    assert answers[1]["id"] == "first"
    assert answers[3]["seed"] == 9


def test_echo_and_logprobs(run_llamakit: Run, model: str) -> None:
    done = run_llamakit(
        *("generate", "-m", model, "hello", "--echo", "--logprobs", "--json"),
        *("--temperature", "0", "--max-new-tokens", "4"),
    )

    answer = json.loads(done.stdout)
    assert answer["text"].startswith("hello")
    assert len(answer["logprobs"]) == 4
    assert len(answer["prompt_logprobs"]) == answer["prompt_tokens"]
    assert answer["prompt_logprobs"][0] == 0.0


def test_a_stop_string_is_left_out_of_the_answer(run_llamakit: Run) -> None:
    common = ("generate", STORY, "--temperature", "0", "--max-new-tokens", "40", "--json")
    full = json.loads(run_llamakit(*common).stdout)["text"]

    done = run_llamakit(*common, "--stop", full[10:14])

    answer = json.loads(done.stdout)
    assert answer["text"] == full[: full.index(full[10:14])]
    assert answer["finish_reason"] == "stop"


def test_two_ranks_answer_as_one_does(run_llamakit: Run) -> None:
    common = ("generate", STORY, "--temperature", "0", "--max-new-tokens", "20")

    one, two = run_llamakit(*common), run_llamakit(*common, "--model-parallel-size", "2")

    assert two.returncode == 0, two.stderr
    assert two.stdout == one.stdout


def test_under_torchrun_rank_0_alone_prints(run_llamakit: Run, torchrun: Run) -> None:
    words = ["generate", STORY, "--temperature", "0", "--max-new-tokens", "20"]

    done = torchrun(2, "-m", "llamakit", *words)

    assert done.returncode == 0, done.stderr
    assert done.stdout == run_llamakit(*words).stdout


def test_on_a_terminal_the_answer_is_streamed(model: str) -> None:
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "llamakit",
            "generate",
            "-m",
            model,
            "hi",
            "--max-new-tokens",
            "9",
            "--seed",
            "1",
        ],
        stdout=follower,
        stderr=subprocess.DEVNULL,
    )
    os.close(follower)

    reads = []
    try:
        while data := os.read(leader, 4096):
            reads.append(data)
    except OSError:  # the terminal's other end is closed
        pass
    os.close(leader)

    assert process.wait() == 0
    assert len(reads) > 2


def test_processors_apply_in_the_order_typed(run_llamakit: Run, model: str) -> None:
    done = run_llamakit(
        *("generate", "-m", model, "hi", "--max-new-tokens", "6", "--seed", "1", "--json"),
        *("--sampler", "draw", "--processor", "temperature:value=0.01"),
    )
    greedy = run_llamakit(
        *("generate", "-m", model, "hi", "--max-new-tokens", "6", "--json", "--temperature", "0")
    )

    assert json.loads(done.stdout)["tokens"] == json.loads(greedy.stdout)["tokens"]
