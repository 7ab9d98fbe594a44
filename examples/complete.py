"""Continue a few strings from Python. Runs alone, or under torchrun with several ranks.

    python examples/complete.py
    torchrun --nproc_per_node 2 examples/complete.py --ckpt_dir llama-2-7b/ \
        --tokenizer_path tokenizer.model
"""

from __future__ import annotations

import fire

from llamakit import Llama
from llamakit.demo import path


def main(
    ckpt_dir: str = str(path()),
    tokenizer_path: str | None = None,
    temperature: float = 0.6,
    top_p: float = 0.9,
    max_seq_len: int = 256,
    max_gen_len: int = 64,
    max_batch_size: int = 4,
) -> None:
    llama = Llama.build(
        ckpt_dir=ckpt_dir,
        tokenizer_path=tokenizer_path,
        max_seq_len=max_seq_len,
        max_batch_size=max_batch_size,
    )
    prompts = ["Once upon a time", "One morning, a baker found", "从前"]

    results = llama.text_completion(
        prompts, max_gen_len=max_gen_len, temperature=temperature, top_p=top_p
    )

    for prompt, result in zip(prompts, results, strict=True):
        print(f"{prompt}\n> {result['generation']}\n")


if __name__ == "__main__":
    fire.Fire(main)
