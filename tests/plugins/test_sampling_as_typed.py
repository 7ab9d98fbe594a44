"""Samplers and processors as users name them: on the command line, in chat and in Python."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamakit import Llama
from llamakit.demo import path as demo_path
from llamakit.errors import UsageError
from llamakit.llama.sampler_choice import choose_sampling

Run = Callable[..., "subprocess.CompletedProcess[str]"]
STORY = "Once upon a time"
PROCESSORS = [
    "logit-bias:bias=35:-inf,the:1.5,40:-2",
    r"dry:allowed_length=3,breakers=\n|.|,",
    "no-repeat-ngram:n=3",
    "xtc:threshold=0.05,probability=0.3",
    "temperature:value=1.1",
]
CHAIN = [word for choice in PROCESSORS for word in ("--processor", choice)]


def answers(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_chain_gives_the_same_answer_typed_and_in_python_alone_and_in_a_batch(
    run_llamakit: Run,
) -> None:
    words = ("generate", "--json", "--seed", "4", "--max-new-tokens", "30")
    chain = ("--sampler", "mirostat", "--sampler-option", "tau=4", *CHAIN)

    alone = answers(run_llamakit(*words, *chain, STORY))[0]
    together = answers(run_llamakit(*words, *chain, "A frog", STORY, "In the sea"))[1]
    other = answers(run_llamakit(*words, "--sampler", "mirostat", STORY))[0]

    with Llama.build(str(demo_path())) as llama:
        sampling = choose_sampling(
            sampler="mirostat",
            sampler_options={"tau": 4},
            processors=PROCESSORS,
            tokenizer=llama.tokenizer,
        )
        prompt = llama.tokenizer.encode(STORY, bos=True)
        chunks = llama.stream([prompt], sampling=sampling, seeds=[alone["seed"]], max_new_tokens=30)
        in_python = [chunk.token for chunk in chunks if chunk.token is not None]
    assert alone["tokens"] == together["tokens"] == in_python
    assert 35 not in alone["tokens"]
    assert other["tokens"] != alone["tokens"]


def test_set_in_a_chat_takes_what_the_command_line_takes(run_llamakit: Run) -> None:
    question = "What is a shard?\n"
    common = ("chat", "--seed", "3", "--max-new-tokens", "30")

    typed = run_llamakit(
        *(*common, "--sampler", "mirostat", "--sampler-option", "tau=4", *CHAIN), stdin=question
    )
    done = run_llamakit(
        *common,
        stdin=f"/set sampler mirostat\n/set sampler-options tau=4\n"
        f"/set processors {' '.join(PROCESSORS)}\n{question}"
        f"/set processors dry:base=9\n/set processors\n/set processors none\n",
    )

    assert typed.stdout.strip()
    assert done.stdout == typed.stdout
    assert f"processors {' '.join(PROCESSORS)}" in done.stderr
    assert "processor dry: base is 9.0; it has to be between 1 and 4" in done.stderr
    assert done.stderr.rstrip().endswith("processors default")


def test_what_a_processor_promises_shows_in_the_answer(run_llamakit: Run, tmp_path: Path) -> None:
    words = ("generate", "--json", "--max-new-tokens", "60", "--sampler", "greedy")

    plain = answers(run_llamakit(*words, "--processor", "top-k:k=1", "Yes"))[0]
    longer = answers(
        run_llamakit(
            *words,
            *("--processor", "min-length:length=60", "--processor", "no-repeat-ngram:n=2"),
            "Yes",
        )
    )[0]

    pairs = list(zip(longer["tokens"], longer["tokens"][1:], strict=False))
    assert len(set(pairs)) == len(pairs)
    assert longer["new_tokens"] == 60
    repeated = list(zip(plain["tokens"], plain["tokens"][1:], strict=False))
    assert len(set(repeated)) < len(repeated)  # which it would do


def test_a_processor_that_needs_the_tokenizer_says_so_in_python() -> None:
    with pytest.raises(UsageError, match=r"processor logit-bias needs .* tokenizer=llama"):
        choose_sampling(processors=["logit-bias:bias=5:1"])


def test_a_wrong_option_ends_with_status_2_and_one_line(run_llamakit: Run) -> None:
    done = run_llamakit("generate", "--processor", "logit-bias:bias=hello there:1", STORY)

    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "processor logit-bias: 'hello there' is not one token but" in done.stderr
