"""Measures llamakit: prompts in, tokens out, as its generator computes them.

python run_llamakit.py JOB    # a JSON object, see Job in decode.py
"""

from __future__ import annotations

import json
import sys
import time


def main(job: dict) -> dict:
    from pathlib import Path

    import torch

    from llamakit.llama.loading import LoadSpec, load_slice
    from llamakit.runtime.group import Group
    from llamakit.runtime.model import Batch

    torch.set_num_threads(job["threads"])
    path, rows = str(Path(job["model"])), len(job["prompts"])
    spec = LoadSpec(path, job["dtype"], job["device"], job["quantize"], batch=rows)
    model = load_slice(spec, Group()).model
    prompts = [tuple(prompt) for prompt in job["prompts"]]
    length = len(prompts[0])
    cache = model.new_cache(len(prompts), length + job["new"] + 8)

    def prefill() -> torch.Tensor:
        batches = [Batch((prompt,), (0,), slot) for slot, prompt in enumerate(prompts)]
        return torch.cat([model(batch, cache) for batch in batches])

    def step(ids: list[int], position: int) -> torch.Tensor:
        rows = tuple((token,) for token in ids)
        return model(Batch(rows, (position,) * len(ids)), cache)  # (B, V)

    logits = model(Batch((prompts[0],), (0,)), cache)
    int(logits.argmax())
    first = time.time()
    if job["only_first"]:
        return {"first": first}
    seconds = []
    for _ in range(job["prefills"]):
        start = time.perf_counter()
        logits = prefill()
        ids = logits.argmax(-1).tolist()
        seconds.append(time.perf_counter() - start)
    forced = job["forced"] or [[]] * len(prompts)
    written, margins = [ids], [margin(logits)]
    steps, processor = [], []
    for number in range(job["new"] - 1):
        given = [row[number] if row else own for row, own in zip(forced, ids, strict=True)]
        start, used = time.perf_counter(), time.process_time()
        logits = step(given, length + number)
        ids = logits.argmax(-1).tolist()
        steps.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
        written.append(ids)
        margins.append(margin(logits))
    return {
        "first": first,
        "prefill": length * len(prompts) / min(seconds),
        "steps": steps,
        "processor": processor,
        "tokens": [list(row) for row in zip(*written, strict=True)],
        "margins": [list(row) for row in zip(*margins, strict=True)],
    }


def margin(logits):  # type: ignore[no-untyped-def]
    """How far the likeliest token's logit is above the next, of each row."""
    best = logits.topk(2, -1).values
    return (best[:, 0] - best[:, 1]).tolist()


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
