"""Answer prompts on as many ranks as torchrun started, each rank into a file of its own."""

from __future__ import annotations

import json
import os
import sys

from llamakit import Llama


def main() -> None:
    checkpoint, prompts_file, out = sys.argv[1:4]
    with open(prompts_file) as file:  # noqa: PTH123
        prompts = json.load(file)
    llama = Llama.build(
        ckpt_dir=checkpoint,
        tokenizer_path=os.path.join(os.path.dirname(checkpoint), "tokenizer.model"),  # noqa: PTH118, PTH120
        max_seq_len=256,
        max_batch_size=5,
        dtype="float32",
        device="cpu",
    )
    tokens, logprobs = llama.generate(prompts, max_gen_len=24, temperature=0, logprobs=True)
    sampled, _ = llama.generate(prompts, max_gen_len=8, temperature=0.9, seed=3)
    llama.forget()
    streamed = list(llama.stream_text("a", temperature=0, max_new_tokens=8))
    drawn: list[list[int]] = [[] for _ in prompts]
    for chunk in llama.stream(
        iter(prompts),
        temperature=0,
        max_new_tokens=24,
        seeds=[1] * len(prompts),
        longest=max(map(len, prompts)),
    ):
        drawn[chunk.index] += [] if chunk.token is None else [chunk.token]
    stopped = next(iter(llama.stream_text("a", temperature=0, max_new_tokens=50)))
    again = Llama.build(
        ckpt_dir=checkpoint,
        tokenizer_path=os.path.join(os.path.dirname(checkpoint), "tokenizer.model"),  # noqa: PTH118, PTH120
        max_seq_len=256,
        max_batch_size=5,
        dtype="float32",
        device="cpu",
    )
    second, _ = again.generate(prompts, max_gen_len=24, temperature=0)
    rank = os.environ.get("RANK", "0")
    answer = {
        "tokens": tokens,
        "logprobs": logprobs,
        "sampled": sampled,
        "streamed": streamed,
        "drawn": drawn,
        "stopped": stopped,
        "second": second,
        "size": llama.model_parallel_size,
        "nbytes_read": llama.checkpoint.nbytes_read,
    }
    with open(f"{out}.{rank}", "w") as file:  # noqa: PTH123
        json.dump(answer, file)


if __name__ == "__main__":
    main()
