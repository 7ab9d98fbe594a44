"""What rounding costs: the demo model's perplexity on text it was not trained on.

    python benchmarks/perplexity.py

The text is what ``tools/demo_model/evaluate.py`` judges the model by: new stories, and held-out
questions with their answers. The peer is the same checkpoint with every value kept. All is done
again with a checkpoint in which two channels of activations are 100 times as large, and the
weights that they meet a hundredth, so that it computes the same: "off" is by how much the
log-probability of a token changes, on average.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from decoding.outlier_model import make_outlier_model

from llamakit import demo
from llamakit.api import choose_sampling
from llamakit.llama.llama import Llama
from llamakit.runtime.kernels.kernel import Kernel
from llamakit.runtime.requests import Request

sys.path.insert(0, str(Path(__file__).parents[1]))  # tools/ is no installed package

from tools.demo_model import stories
from tools.demo_model.evaluate import held_out_questions
from tools.demo_model.questions import load_intents

SEED = 20

FORMS: dict[str, dict[str, str]] = {
    "exact": {},
    "kv-cache int8": {"kv_cache": "int8"},
    "int8": {"quantize": "int8"},
    "int4": {"quantize": "int4"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stories", type=int, default=60)
    parser.add_argument("--questions", type=int, default=120)
    arguments = parser.parse_args()
    rng = random.Random(f"perplexity {SEED}")
    new_stories = [stories.story(rng) for _ in range(arguments.stories)]
    asked = held_out_questions(load_intents(SEED), rng, SEED)
    asked = rng.sample(asked, min(arguments.questions, len(asked)))
    with tempfile.TemporaryDirectory() as folder:
        outliers = make_outlier_model(Path(demo.path()), Path(folder) / "outliers")
        for model in (demo.path(), outliers):
            print(f"\n{Path(model).name:14}{'stories':>10}{'ratio':>8}{'off':>8}", end="")
            print(f"{'answers':>10}{'ratio':>8}{'off':>8}")
            compare(model, new_stories, asked)


def compare(model: str | Path, new_stories: list[str], asked: list[tuple[Any, str]]) -> None:
    """Print what each way of rounding a model costs."""
    exact: list[list[float]] = []
    for name, options in FORMS.items():
        with Llama.open(model, dtype="float32", **options) as llama:
            strings = [
                [story_tokens(llama, text) for text in new_stories],
                [answer_tokens(llama, text, intent.answer) for intent, text in asked],
            ]
            logprobs = [token_logprobs(llama, them) for them in strings]
            kernels = kernel_names(llama)
        exact = exact or logprobs
        cells = [cell(own, right) for own, right in zip(logprobs, exact, strict=True)]
        print(f"{name:14}{''.join(cells)}   {kernels}", flush=True)


def cell(own: list[float], right: list[float]) -> str:
    """Show a perplexity, its ratio to the exact one, and how much a token's logprob is off."""
    perplexity, best = (math.exp(-statistics.fmean(them)) for them in (own, right))
    off = statistics.fmean(abs(a - b) for a, b in zip(own, right, strict=True))
    return f"{perplexity:10.4f}{perplexity / best:8.4f}{off:8.4f}"


def story_tokens(llama: Llama, text: str) -> tuple[list[int], int]:
    """Return a story's tokens, and from which on they count."""
    return llama.tokenizer.encode(text, bos=True), 1


def answer_tokens(llama: Llama, question: str, answer: str) -> tuple[list[int], int]:
    """Return a dialog's tokens, and where its answer begins."""
    prompt = list(llama.prompt_format().encode([{"role": "user", "content": question}]))
    return prompt + llama.tokenizer.encode(f" {answer} ", eos=True), len(prompt)


def token_logprobs(llama: Llama, strings: list[tuple[list[int], int]]) -> list[float]:
    """Return the log-probability of every token that counts, in the order of the strings."""
    greedy = choose_sampling(temperature=0)
    found: dict[int, Sequence[float]] = {}
    requests = [
        Request(
            tokens,
            len(tokens),
            greedy,
            0,
            prompt_logprobs=True,
            first_scored=first,
            prompt_only=True,
        )
        for tokens, first in strings
    ]
    for event in llama.run(requests):
        found[event.index] = event.prompt_logprobs or ()
    return [logprob for index in range(len(strings)) for logprob in found[index]]


def kernel_names(llama: Llama) -> str:
    kernels = (it for it in llama._executor.model.modules() if isinstance(it, Kernel))
    return ", ".join(sorted({it.name for it in kernels}))


if __name__ == "__main__":
    main()
