"""What drafts save on the bundled demo model, against no drafts and against transformers.

Greedy answers to questions asked twice, which repeat what was said, and stories, which do not.
llamakit plain and with prompt lookup, and transformers plain and with ``prompt_lookup_num_tokens``
on the same weights (exported), take turns in the same run. Prints the medians, the ratios of the
pairs, and how many drafted tokens were accepted; and checks that drafts change no answer.

    python benchmarks/speculation.py [--rounds N] [--new N]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

from llamakit import Llama, demo, export

NGRAM, MOST = 2, 10
"""The same for both: transformers looks for at most two tokens unless it is told otherwise."""

QUESTIONS = ("How do I verify a checkpoint?", "What is a shard?")
STORIES = ("Once upon a time", "The old sailor")

Answer = tuple[list[int], int, int]
"""The new tokens, how many tokens were drafted, and how many of those accepted."""


def ours(llama: Llama, prompt: list[int], new: int, draft: str | None) -> Answer:
    llama.forget()
    chunks = list(
        llama.stream([prompt], temperature=0, max_new_tokens=new, stop_tokens=(), draft=draft)
    )
    tokens = [chunk.token for chunk in chunks if chunk.token is not None]
    return tokens, chunks[-1].drafted, chunks[-1].accepted


def theirs(
    model: transformers.LlamaForCausalLM, prompt: list[int], new: int, lookup: bool
) -> Answer:
    settings = {"prompt_lookup_num_tokens": MOST} if lookup else {}
    ids = torch.tensor([prompt])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new,
        do_sample=False,
        **settings,
    )
    return out[0, len(prompt) :].tolist(), 0, 0


def measure(work: dict[str, Callable[[], Answer]], rounds: int) -> dict[str, list[float]]:
    """Time the ways in turn; the first round warms up and does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, run in work.items():
            start = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--new", type=int, default=60)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        export(demo.path(), Path(folder) / "hf")
        peer = transformers.LlamaForCausalLM.from_pretrained(
            Path(folder) / "hf", dtype=torch.float32
        ).eval()
    peer.generation_config.eos_token_id = None  # both write as many tokens as they are told
    llama = Llama.build(str(demo.path()), dtype="float32")
    print(f"{options.new} tokens an answer, {options.rounds} rounds")
    for question in QUESTIONS:
        report("asked twice", asked_twice(llama, question), llama, peer, options)
    for story in STORIES:
        report("a story", llama.tokenizer.encode(story, bos=True), llama, peer, options)


def asked_twice(llama: Llama, question: str) -> list[int]:
    """Return the dialog in which a question is asked again: its answer repeats the first one."""
    dialog = [{"role": "user", "content": question}]
    answer = llama.chat_completion([dialog], temperature=0)[0]["generation"]["content"]
    asked = [*dialog, {"role": "assistant", "content": answer}, *dialog]
    return llama.prompt_format().encode(asked)


def report(
    kind: str,
    prompt: list[int],
    llama: Llama,
    peer: transformers.LlamaForCausalLM,
    options: argparse.Namespace,
) -> None:
    new, draft = options.new, f"prompt-lookup:ngram={NGRAM},least=1,max={MOST}"
    work: dict[str, Callable[[], Answer]] = {
        "llamakit": lambda: ours(llama, prompt, new, None),
        "llamakit, prompt lookup": lambda: ours(llama, prompt, new, draft),
        "llamakit, its defaults": lambda: ours(llama, prompt, new, "prompt-lookup"),
        "transformers": lambda: theirs(peer, prompt, new, lookup=False),
        "transformers, prompt lookup": lambda: theirs(peer, prompt, new, lookup=True),
    }
    seconds = measure(work, options.rounds)
    plain = seconds["llamakit"]
    print(f"\n{kind}: a prompt of {len(prompt)} tokens")
    for name, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(plain, times, strict=True))
        speed = new / statistics.median(times)
        tokens, drafted, accepted = work[name]()
        rate = f"  {accepted} of {drafted} accepted" if drafted else ""
        same = "" if tokens == work["llamakit"]()[0] else "  OTHER TOKENS"
        print(f"{name:30}{speed:8.1f} tokens/s  {ratio:5.2f} times llamakit{rate}{same}")


if __name__ == "__main__":
    main()
