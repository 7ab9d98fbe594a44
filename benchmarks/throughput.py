"""Many prompts of mixed length: continuous batching, against fixed batches.

A small random model answers the same prompts, each with as many tokens as was drawn for it:
llamakit with a batch that waiting prompts join at once, llamakit in fixed batches of the same
size, and transformers' generate in fixed batches (padded on the left; a batch runs until its
longest answer is done). All three take turns in the same run. Prints tokens a second and ratios.

    python benchmarks/throughput.py [--prompts N] [--batch N] [--rounds N]
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import transformers

from llamakit import Llama, demo
from llamakit.api import choose_sampling
from llamakit.runtime.scheduler import Request, Scheduler

SHAPE = {
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 4096,
    "max_position_embeddings": 1024,
}


class Asked(NamedTuple):
    """One prompt, and how many tokens its answer has."""

    prompt: list[int]
    new: int


def draw(count: int) -> list[Asked]:
    """Draw prompts of 8 to 256 tokens and answers of 4 to 256, short ones more often."""
    chance = random.Random(1)

    def length(least: int, most: int) -> int:
        return int(least * (most / least) ** chance.random())

    return [
        Asked([1, *(chance.randrange(300, 4000) for _ in range(length(8, 256)))], length(4, 256))
        for _ in range(count)
    ]


def ours(llama: Llama, asked: Sequence[Asked], batch: int) -> int:
    """Answer all in one engine; return how many tokens that were."""
    sampling = choose_sampling(temperature=0)
    requests = [Request(it.prompt, len(it.prompt) + it.new, sampling, 1) for it in asked]
    generator = Scheduler(llama._executor, batch, max(it.limit for it in requests))
    count = sum(event.token is not None for event in generator.run(requests))
    generator.close()
    return count


def fixed(asked: Sequence[Asked], batch: int, run: Callable[[Sequence[Asked]], int]) -> int:
    """Answer one batch after another."""
    return sum(run(asked[at : at + batch]) for at in range(0, len(asked), batch))


def theirs(model: transformers.LlamaForCausalLM, asked: Sequence[Asked]) -> int:
    """Answer one batch; only the tokens that were asked for count."""
    width = max(len(it.prompt) for it in asked)
    ids = torch.tensor([[0] * (width - len(it.prompt)) + it.prompt for it in asked])
    mask = torch.tensor([[0] * (width - len(it.prompt)) + [1] * len(it.prompt) for it in asked])
    most = max(it.new for it in asked)
    model.generate(ids, attention_mask=mask, max_new_tokens=most, do_sample=False)
    return sum(it.new for it in asked)


def make(folder: str) -> tuple[Llama, transformers.LlamaForCausalLM]:
    """Write a random model and load it in both."""
    torch.manual_seed(1)
    config = transformers.LlamaConfig(**SHAPE, tie_word_embeddings=False, pad_token_id=0)
    transformers.LlamaForCausalLM(config).float().save_pretrained(folder)
    peer = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    peer.generation_config.eos_token_id = None  # as many tokens as were drawn
    tokenizer = demo.path().parent / "tokenizer.model"
    return Llama.open(folder, tokenizer, dtype="float32", device="cpu"), peer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    asked = draw(options.prompts)
    with tempfile.TemporaryDirectory() as folder:
        llama, peer = make(folder)
        work: dict[str, Callable[[Sequence[Asked]], int]] = {
            "llamakit, continuous": lambda them: ours(llama, them, options.batch),
            "llamakit, fixed batches": lambda them: fixed(
                them, options.batch, lambda part: ours(llama, part, options.batch)
            ),
            "transformers, fixed batches": lambda them: fixed(
                them, options.batch, lambda part: theirs(peer, part)
            ),
        }
        seconds: dict[str, list[float]] = {name: [] for name in work}
        for run in work.values():
            run(asked[: options.batch])  # warm
        for _ in range(options.rounds):
            for name, run in work.items():
                start = time.perf_counter()
                assert run(asked) == sum(it.new for it in asked)
                seconds[name].append(time.perf_counter() - start)
    tokens = sum(it.new for it in asked)
    print(f"{len(asked)} prompts, {tokens} new tokens, {options.batch} at once")
    best = seconds["llamakit, continuous"]
    for name, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(times, best, strict=True))
        median = statistics.median(times)
        print(f"{name:30}{median:8.1f} s{tokens / median:8.0f} tokens/s{ratio:7.2f} times the time")


if __name__ == "__main__":
    main()
