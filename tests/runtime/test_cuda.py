"""The same answers on a GPU; run by ``pytest -m cuda``, as ``benchmarks/gpu.py`` does.

``LLAMAKIT_CUDA_TESTS=cpu`` runs them on a CPU instead, to see that the tests work.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from llamakit import demo
from llamakit.api import Llama, choose_sampling
from llamakit.errors import NonFiniteError
from llamakit.runtime.kernels.choice import Packer
from llamakit.runtime.kernels.rounded import round_weight

DEVICE = os.environ.get("LLAMAKIT_CUDA_TESTS", "cuda")

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        DEVICE == "cuda" and not torch.cuda.is_available(), reason="no CUDA device here"
    ),
]

PROMPT = "Once upon a time"


def answer(llama: Llama, **settings: Any) -> list[int]:
    prompt = llama.tokenizer.encode(PROMPT, bos=True)
    sampling = choose_sampling(temperature=0)
    events = llama.stream([prompt], max_new_tokens=24, sampling=sampling, **settings)
    return [event.token for event in events if event.token is not None]


@pytest.fixture(scope="module")
def expected() -> list[int]:
    """The greedy answer of the demo model on a CPU."""
    with Llama.open(demo.path(), dtype="float32", device="cpu") as llama:
        return answer(llama)


@pytest.mark.parametrize("name", ["gqa-mp1", "mha-mp8"])
@pytest.mark.parametrize("compiled", [False, True])
def test_tokens_and_logprobs_are_those_of_the_reference(
    reference_cases: Path, name: str, compiled: bool
) -> None:
    right = json.loads((reference_cases / f"{name}.expected.json").read_text())
    options: dict[str, Any] = {"device": DEVICE, "dtype": "float32", "compile": compiled}
    llama = Llama.build(str(reference_cases / name), max_seq_len=256, max_batch_size=2, **options)

    tokens, logprobs = llama.generate(
        right["prompt_tokens"], max_gen_len=24, temperature=0, logprobs=True
    )

    assert tokens == right["greedy_solo"]["tokens"]
    assert logprobs is not None
    for ours, theirs in zip(logprobs, right["greedy_solo"]["logprobs"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-3)


@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("rows", [1, 3, 33])
def test_products_of_rounded_weights_are_right(kind: Any, rows: int) -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(256, 1024).bfloat16(), torch.randn(rows, 1024).bfloat16()
    device = torch.device(DEVICE)
    right = x.double() @ round_weight(weight, kind).multiplied_out().double().T

    kernel = Packer(device, torch.bfloat16, kind, traceable=True).pack(weight)
    product = kernel(x.to(device)).cpu().double()

    assert kernel.name == kind
    assert (product - right).norm() < 0.02 * right.norm()


@pytest.mark.parametrize("quantize", [None, "int8", "int4"])
@pytest.mark.parametrize("compiled", [False, True])
def test_bfloat16_answers_compiled_and_rounded(
    expected: list[int], quantize: str | None, compiled: bool
) -> None:
    options: dict[str, Any] = {"device": DEVICE, "quantize": quantize, "compile": compiled}
    with Llama.open(demo.path(), dtype="bfloat16", max_seq_len=300, **options) as llama:
        tokens = answer(llama)

    assert len(tokens) == 24
    assert tokens[:4] == expected[:4]  # later ones may be as likely as others


def test_a_row_does_not_depend_on_its_batch(expected: list[int]) -> None:
    with Llama.open(demo.path(), dtype="float32", device=DEVICE, max_batch_size=3) as llama:
        prompts = [llama.tokenizer.encode(text, bos=True) for text in (PROMPT, "A frog", PROMPT)]
        tokens: dict[int, list[int]] = {0: [], 1: [], 2: []}

        sampling = choose_sampling(temperature=0)
        for event in llama.stream(prompts, max_new_tokens=24, sampling=sampling):
            if event.token is not None:
                tokens[event.index].append(event.token)

    assert tokens[0] == tokens[2] == expected


def test_a_cache_of_8_bits_answers(expected: list[int]) -> None:
    options: dict[str, Any] = {"device": DEVICE, "dtype": "float32"}
    with Llama.open(demo.path(), kv_cache="int8", **options) as llama:
        assert answer(llama)[:8] == expected[:8]


def test_pages_of_the_cache_return_from_the_host() -> None:
    with Llama.open(demo.path(), dtype="float32", device=DEVICE) as llama:
        cache = llama._executor.model.new_cache(2, 128)
    for tensor in cache.tensors:
        tensor.normal_()
    page = cache.page(0, 0, 64)

    cache.restore(1, 64, page)

    for tensor in cache.tensors:
        assert tensor[:, 1, :, 64:].equal(tensor[:, 0, :, :64])


def test_nan_is_named() -> None:
    with Llama.open(demo.path(), dtype="float32", device=DEVICE) as llama:
        llama._executor.model.norm.weight.data[0] = float("nan")

        with pytest.raises(NonFiniteError):
            answer(llama)


def test_ranks_of_torchrun_answer_as_one_process_does(isolated: dict[str, str]) -> None:
    """One rank where there is one GPU, which joins by NCCL; two where there are two."""
    ranks = min(2, torch.cuda.device_count()) or 1
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
    options = ["--device", DEVICE, "--dtype", "float32", "--temperature", "0"]
    words = ["-m", "llamakit", "generate", *options, "--max-new-tokens", "8", PROMPT]
    settings: dict[str, Any] = {"env": isolated, "capture_output": True, "text": True}

    alone = subprocess.run([sys.executable, *words], check=False, **settings)
    done = subprocess.run([sys.executable, *torchrun, *words], check=False, **settings)

    assert done.returncode == 0, done.stderr
    assert done.stdout == alone.stdout
