"""Measures transformers: the leanest loop around its model, with its own cache.

python run_transformers.py JOB
"""

from __future__ import annotations

import json
import sys
import time


def main(job: dict) -> dict:
    import torch
    from transformers import AutoModelForCausalLM, DynamicCache
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(job["threads"])
    torch.set_grad_enabled(False)
    model = AutoModelForCausalLM.from_pretrained(
        job["huggingface"], dtype=getattr(torch, job["dtype"]), attn_implementation="sdpa"
    ).to(job["device"])
    prompts = torch.tensor(job["prompts"], device=job["device"])

    def prefill():  # type: ignore[no-untyped-def]
        cache = DynamicCache(config=model.config)
        out = model(prompts, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1].argmax(-1), cache

    if job["only_first"]:
        model(prompts[:1], logits_to_keep=1).logits[:, -1].argmax(-1).tolist()
        return {"first": time.time()}
    ids, _ = prefill()
    first = time.time()
    seconds = []
    for _ in range(job["prefills"]):
        start = time.perf_counter()
        ids, cache = prefill()
        ids.tolist()
        seconds.append(time.perf_counter() - start)
    written, steps, processor = [ids.tolist()], [], []
    for _ in range(job["new"] - 1):
        start, used = time.perf_counter(), time.process_time()
        ids = model(ids[:, None], past_key_values=cache, use_cache=True).logits[:, -1].argmax(-1)
        written.append(ids.tolist())
        steps.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    return {
        "first": first,
        "prefill": prompts.numel() / min(seconds),
        "steps": steps,
        "processor": processor,
        "tokens": [list(row) for row in zip(*written, strict=True)],
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
