"""Measures vLLM: its own engine, in its process, a step at a time.

python run_vllm.py JOB    # where vLLM is installed, see benchmarks/engines.py
"""

from __future__ import annotations

import json
import os
import sys
import time

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}


def main(job: dict) -> dict:
    from vllm import LLM, SamplingParams

    prompts, new = job["prompts"], job["new"]
    rows, length = len(prompts), len(prompts[0])
    os.environ["OMP_NUM_THREADS"] = str(job["threads"])
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = f"0-{job['threads'] - 1}"
    model = LLM(
        job["huggingface"],
        dtype=job["dtype"],
        skip_tokenizer_init=True,
        max_model_len=length + new + 64,
        max_num_seqs=rows,
        max_num_batched_tokens=max(512, length * rows),
        enable_prefix_caching=False,
        kv_cache_memory_bytes=1 << 30,  # of its own accord it wants its weights' memory again
        disable_log_stats=True,
    )
    engine = model.llm_engine

    def begin(count: int) -> None:
        settings = SamplingParams(
            temperature=0, max_tokens=count, ignore_eos=True, detokenize=False
        )
        for number, prompt in enumerate(prompts):
            engine.add_request(str(number), {"prompt_token_ids": prompt}, settings)

    def finish() -> list[list[int]]:
        found: dict[int, list[int]] = {}
        while engine.has_unfinished_requests():
            for it in engine.step():
                found[int(it.request_id)] = list(it.outputs[0].token_ids)
        return [found[number] for number in range(rows)]

    begin(1)
    finish()
    first = time.time()
    seconds = []
    for _ in range(job["prefills"]):
        begin(1)
        start = time.perf_counter()
        finish()
        seconds.append(time.perf_counter() - start)
    begin(new)
    # The first steps read the prompts, which may take several.
    steps, processor, done = [], [], {}
    while engine.has_unfinished_requests():
        start, used = time.perf_counter(), time.process_time()
        outputs = engine.step()
        elapsed, worked = time.perf_counter() - start, time.process_time() - used
        if len(done) == rows:
            steps.append(elapsed)
            processor.append(worked)
        done |= {it.request_id: list(it.outputs[0].token_ids) for it in outputs}
    return {
        "first": first,
        "prefill": rows * length / min(seconds),
        "steps": steps,
        "processor": processor,
        "tokens": [done[str(number)] for number in range(rows)],
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
