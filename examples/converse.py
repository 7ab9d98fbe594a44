"""Answer dialogs from Python, all at once and then one as it is written.

    python examples/converse.py
    torchrun --nproc_per_node 2 examples/converse.py --ckpt_dir llama-2-7b-chat/ \
        --tokenizer_path tokenizer.model
"""

from __future__ import annotations

import fire

from llamakit import Dialog, Llama
from llamakit.demo import path


def main(
    ckpt_dir: str = str(path()),
    tokenizer_path: str | None = None,
    temperature: float = 0.6,
    top_p: float = 0.9,
    max_seq_len: int = 512,
    max_gen_len: int | None = None,
    max_batch_size: int = 4,
) -> None:
    llama = Llama.build(
        ckpt_dir=ckpt_dir,
        tokenizer_path=tokenizer_path,
        max_seq_len=max_seq_len,
        max_batch_size=max_batch_size,
    )
    dialogs: list[Dialog] = [
        [{"role": "user", "content": "How do I verify a checkpoint?"}],
        [
            {"role": "system", "content": "Answer in one sentence."},
            {"role": "user", "content": "What is a shard?"},
        ],
    ]

    results = llama.chat_completion(
        dialogs, max_gen_len=max_gen_len, temperature=temperature, top_p=top_p
    )
    for dialog, result in zip(dialogs, results, strict=True):
        print(f"{dialog[-1]['content']}\n> {result['generation']['content']}\n")

    for piece in llama.stream_chat(dialogs[0], temperature=0):
        print(piece, end="", flush=True)
    print()


if __name__ == "__main__":
    fire.Fire(main)
