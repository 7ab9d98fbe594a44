"""The Python API, with the reference's shapes."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch

from llamakit import Llama, LlamakitError, open_checkpoint
from llamakit.api import choose_sampling
from llamakit.errors import (
    DialogError,
    OptionError,
    ParallelError,
    PromptError,
    UnevenSplitError,
    UsageError,
)


@pytest.fixture(scope="module")
def llama(reference_cases: Path) -> Llama:
    return Llama.build(
        ckpt_dir=str(reference_cases / "gqa-mp1"),
        tokenizer_path=str(reference_cases / "tokenizer.model"),
        max_seq_len=128,
        max_batch_size=4,
        model_parallel_size=None,
        seed=1,
        dtype="float32",
    )


def test_text_completion_has_the_reference_shape(llama: Llama) -> None:
    plain = llama.text_completion(["a", "b"], temperature=0, max_gen_len=3)
    scored = llama.text_completion(["a", "b"], temperature=0, max_gen_len=3, logprobs=True)

    assert [sorted(result) for result in plain] == [["generation"]] * 2
    assert [sorted(result) for result in scored] == [["generation", "logprobs", "tokens"]] * 2
    assert scored[0]["generation"] == plain[0]["generation"]
    assert len(scored[0]["tokens"]) == len(scored[0]["logprobs"]) == 3
    assert all(isinstance(piece, str) for piece in scored[0]["tokens"])


def test_chat_completion_has_the_reference_shape(llama: Llama) -> None:
    dialog = [{"role": "user", "content": "hello"}]

    (answer,) = llama.chat_completion([dialog], temperature=0, max_gen_len=3, logprobs=True)

    assert answer["generation"]["role"] == "assistant"
    assert len(answer["tokens"]) == len(answer["logprobs"]) == 3


def test_echo_begins_with_the_prompt_even_if_it_holds_an_eos(llama: Llama) -> None:
    prompt = [1, 262, llama.tokenizer.eos_id, 262]

    (tokens,), _ = llama.generate([prompt], max_gen_len=3, temperature=0, echo=True)

    assert tokens[:4] == prompt
    assert len(tokens) == 7


def test_echoed_logprobs_are_aligned_with_their_tokens(llama: Llama) -> None:
    prompt = llama.tokenizer.encode("I believe", bos=True)

    (tokens,), scores = llama.generate([prompt], 4, temperature=0, logprobs=True, echo=True)
    _, again = llama.generate([tokens], 1, temperature=0, logprobs=True, echo=True)

    assert scores is not None
    assert again is not None
    assert scores[0] == pytest.approx(again[0][:-1], abs=1e-4)


def test_no_prompts_give_no_answers(llama: Llama) -> None:
    assert llama.generate([], 5) == ([], None)
    assert llama.text_completion([], logprobs=True) == []
    assert llama.chat_completion([]) == []


def test_streamed_pieces_join_to_the_answer(llama: Llama) -> None:
    (answer,) = llama.text_completion(["上下"], temperature=0, max_gen_len=12)

    pieces = list(llama.stream_text("上下", temperature=0, max_new_tokens=12))

    assert "".join(pieces) == answer["generation"]


def test_a_chat_is_streamed(llama: Llama) -> None:
    dialog = [{"role": "user", "content": "hello"}]
    (answer,) = llama.chat_completion([dialog], temperature=0, max_gen_len=6)

    pieces = list(llama.stream_chat(dialog, temperature=0, max_new_tokens=6))

    assert "".join(pieces) == answer["generation"]["content"]


@pytest.mark.parametrize(
    "roles",
    [["assistant"], ["user", "user"], ["user", "assistant"], ["system"], ["user", "system"], []],
)
def test_a_dialog_out_of_turn_is_an_error(llama: Llama, roles: list[str]) -> None:
    dialog = [{"role": role, "content": "x"} for role in roles]

    with pytest.raises(DialogError):
        llama.chat_completion([dialog])


HELLO = {"role": "user", "content": "hello"}


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda it: it.text_completion("text"), PromptError, "the prompts are a list of strings"),
        (
            lambda it: it.text_completion([["text"]]),
            PromptError,
            "a prompt is a string, not a list",
        ),
        (lambda it: it.chat_completion([HELLO]), DialogError, r"one is \[dialog\]"),
        (lambda it: it.chat_completion([["hello"]]), DialogError, "message 1 is a str: expected"),
        (lambda it: it.chat_completion([[{"role": "user"}]]), DialogError, "1 has no content that"),
        (lambda it: list(it.stream_chat("hello")), DialogError, "a dialog is no str"),
        (lambda it: list(it.stream_text(["text"])), PromptError, "a string, not a list"),
        (lambda it: it.text_completion(["a"], max_gen_len=0), UsageError, "is 0; it has to be 1"),
    ],
)
def test_arguments_of_a_wrong_type_are_refused_in_a_sentence(llama, call, error, sentence):
    with pytest.raises(error, match=sentence):
        call(llama)


@pytest.mark.parametrize("name", ["max_batch_size", "max_seq_len", "model_parallel_size"])
def test_a_size_of_nothing_is_refused(reference_cases: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is 0; it has to be 1 or more"):
        Llama.build(str(reference_cases / "gqa-mp1"), **{name: 0})


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1.5, "8", True])
@pytest.mark.parametrize("name", ["max_seq_len", "max_batch_size", "model_parallel_size"])
def test_a_size_that_is_no_whole_number_is_refused(
    reference_cases: Path, name: str, number: object
) -> None:
    with pytest.raises(UsageError, match=f"{name} is .*; it has to be a whole number"):
        Llama.open(reference_cases / "gqa-mp1", **{name: number})


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 0, "8", True])
@pytest.mark.parametrize("name", ["join_timeout", "rope_factor"])
def test_a_number_out_of_bounds_is_refused(
    reference_cases: Path, name: str, number: object
) -> None:
    with pytest.raises(UsageError, match=f"{name} is .*; it has to be"):
        Llama.open(reference_cases / "gqa-mp1", **{name: number})


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"max_gen_len": float("nan")}, UsageError),
        ({"max_gen_len": "3"}, UsageError),
        ({"temperature": 10**400}, OptionError),
    ],
)
def test_an_odd_number_for_an_answer_is_refused(
    llama: Llama, arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        llama.text_completion(["Once"], **arguments)


@pytest.mark.parametrize(
    "given", [{"processors": "dry"}, {"sampler": "top-p", "sampler_options": "p=0.5"}]
)
def test_a_string_instead_of_a_list_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"is a list, not a string: \w+=\['"):
        choose_sampling(**given)


def test_nothing_global_is_set_and_nothing_printed(reference_cases: Path) -> None:
    before = (torch.get_default_dtype(), torch.get_default_device(), torch.random.initial_seed())
    state = torch.random.get_rng_state()

    with redirect_stdout(io.StringIO()) as printed:
        llama = Llama.build(str(reference_cases / "mha-mp8"), max_seq_len=64, seed=99)
        llama.text_completion(["a"], max_gen_len=2)

    after = (torch.get_default_dtype(), torch.get_default_device(), torch.random.initial_seed())
    assert after == before
    assert torch.equal(torch.random.get_rng_state(), state)
    assert printed.getvalue() == ""


def test_a_second_build_in_one_process_works(llama: Llama, reference_cases: Path) -> None:
    other = Llama.build(str(reference_cases / "mha-mp8"), max_seq_len=64, dtype="float32")

    first = llama.text_completion(["a"], temperature=0, max_gen_len=4)
    second = other.text_completion(["a"], temperature=0, max_gen_len=4)

    assert first != second


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_dtype_computes(reference_cases: Path, dtype: str) -> None:
    llama = Llama.build(str(reference_cases / "gqa-mp1"), max_seq_len=64, dtype=dtype)

    (answer,), _ = llama.generate([[1, 262]], max_gen_len=4, temperature=0)

    assert llama.dtype == dtype
    assert len(answer) == 4


def test_a_size_that_does_not_divide_is_refused_with_those_that_do(reference_cases: Path) -> None:
    with pytest.raises(UnevenSplitError, match="Sizes that fit: 1, 2, 4, 8"):
        Llama.build(str(reference_cases / "mha-mp8"), model_parallel_size=3)


def test_one_process_leads_one_number_of_ranks_at_a_time(reference_cases: Path) -> None:
    path = str(reference_cases / "mha-mp8")

    with Llama.build(path, max_seq_len=64, model_parallel_size=2, dtype="float32") as llama:
        with pytest.raises(ParallelError, match="leads 2 ranks already"):
            Llama.build(path, max_seq_len=64, model_parallel_size=4)
        two = llama.text_completion(["a"], temperature=0, max_gen_len=4)
    with Llama.build(path, max_seq_len=64, model_parallel_size=4, dtype="float32") as llama:
        four = llama.text_completion(["a"], temperature=0, max_gen_len=4)

    assert two == four


def test_a_bad_path_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(LlamakitError, match="no such folder"):
        open_checkpoint(tmp_path / "nowhere")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_load_that_fails_on_every_rank_leaves_the_process_usable(reference_cases: Path) -> None:
    path = str(reference_cases / "mha-mp8")

    with pytest.raises(UsageError, match="no CUDA device"):
        Llama.build(path, max_seq_len=64, model_parallel_size=2, device="cuda")
    with Llama.build(path, max_seq_len=64, model_parallel_size=2) as llama:
        (answer,) = llama.text_completion(["a"], temperature=0, max_gen_len=4)

    assert answer["generation"]
