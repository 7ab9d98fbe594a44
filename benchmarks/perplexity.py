"""What rounding costs: the demo model's perplexity on text it was not trained on.

    python benchmarks/perplexity.py

The text is what ``tools/demo_model/evaluate.py`` judges the model by: new stories, and held-out
questions with their answers. The peer is the same checkpoint with every value kept.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from pathlib import Path

from llamakit import demo
from llamakit.llama.llama import Llama
from llamakit.llama.score_windows import Window
from llamakit.llama.scoring import score_windows

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
    told = [stories.story(rng) for _ in range(arguments.stories)]
    asked = held_out_questions(load_intents(SEED), rng, SEED)
    asked = rng.sample(asked, min(arguments.questions, len(asked)))
    exact: dict[str, float] = {}
    print(f"{'':14}{'stories':>10}{'ratio':>8}{'answers':>10}{'ratio':>8}")
    for name, options in FORMS.items():
        with Llama.open(demo.path(), **options) as llama:
            found = {
                "stories": perplexity(llama, [story_ids(llama, text) for text in told]),
                "answers": perplexity(
                    llama, [answer_ids(llama, text, intent.answer) for intent, text in asked]
                ),
            }
        exact = exact or found
        cells = [f"{value:10.4f}{value / exact[kind]:8.4f}" for kind, value in found.items()]
        print(f"{name:14}{''.join(cells)}", flush=True)


def story_ids(llama: Llama, text: str) -> tuple[list[int], int]:
    """Return a story's ids, and from which on they count."""
    return llama.tokenizer.encode(text, bos=True), 1


def answer_ids(llama: Llama, question: str, answer: str) -> tuple[list[int], int]:
    """Return a dialog's ids, and where its answer begins."""
    prompt = list(llama.prompt_format().encode([{"role": "user", "content": question}]))
    return prompt + llama.tokenizer.encode(f" {answer} ", eos=True), len(prompt)


def perplexity(llama: Llama, texts: list[tuple[list[int], int]]) -> float:
    """Return e to the mean loss of an id."""
    scores = [score for _, score in score_windows(llama, [Window(*text) for text in texts])]
    return math.exp(-sum(it.logprob for it in scores) / sum(it.tokens for it in scores))


if __name__ == "__main__":
    main()
