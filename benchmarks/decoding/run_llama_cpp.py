"""Measures llama.cpp through llama-cpp-python's bindings of its C interface.

python run_llama_cpp.py JOB    # where llama-cpp-python is installed
"""

from __future__ import annotations

import ctypes
import json
import sys
import time

import llama_cpp as api
import numpy as np

QUIET = api.llama_log_callback(lambda *_: None)


def main(job: dict) -> dict:
    api.llama_log_set(QUIET, ctypes.c_void_p(0))
    api.llama_backend_init()
    loading = api.llama_model_default_params()
    loading.use_extra_bufts = job["repack"]
    model = api.llama_model_load_from_file(job["gguf"].encode(), loading)
    prompts = job["prompts"]
    rows, length = len(prompts), len(prompts[0])
    params = api.llama_context_default_params()
    params.n_ctx = rows * (length + job["new"] + 64)
    params.n_batch = params.n_ubatch = 512
    params.n_seq_max = rows
    params.n_threads = params.n_threads_batch = job["threads"]
    context = api.llama_init_from_model(model, params)
    vocabulary = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))

    def compute(entries: list[tuple[int, int, int, bool]]) -> list[int]:
        """Decode (id, position, row, wanted); return the likeliest token of each that is wanted."""
        batch = api.llama_batch_init(len(entries), 0, 1)
        batch.n_tokens = len(entries)
        for place, (token, position, row, wanted) in enumerate(entries):
            batch.token[place], batch.pos[place] = token, position
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, row
            batch.logits[place] = wanted
        assert api.llama_decode(context, batch) == 0
        best = [likeliest(place) for place, entry in enumerate(entries) if entry[3]]
        api.llama_batch_free(batch)
        return best

    def likeliest(place: int) -> int:
        logits = api.llama_get_logits_ith(context, place)
        return int(np.ctypeslib.as_array(logits, (vocabulary,)).argmax())

    def prefill() -> list[int]:
        api.llama_memory_clear(api.llama_get_memory(context), True)
        ids = []
        for row, prompt in enumerate(prompts):
            entries = [(it, at, row, at == length - 1) for at, it in enumerate(prompt)]
            ids += compute(entries)
        return ids

    prefill()
    first = time.time()
    if job["only_first"]:
        return {"first": first}
    seconds = []
    for _ in range(job["prefills"]):
        start = time.perf_counter()
        ids = prefill()
        seconds.append(time.perf_counter() - start)
    written, steps, processor = [ids], [], []
    for number in range(job["new"] - 1):
        start, used = time.perf_counter(), time.process_time()
        ids = compute([(it, length + number, row, True) for row, it in enumerate(ids)])
        steps.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
        written.append(ids)
    return {
        "first": first,
        "prefill": rows * length / min(seconds),
        "steps": steps,
        "processor": processor,
        "tokens": [list(row) for row in zip(*written, strict=True)],
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
