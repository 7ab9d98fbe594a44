/* Work in chunks, by the threads of the OpenMP runtime that PyTorch has loaded. */
#ifndef LLAMAKIT_PARALLEL_H
#define LLAMAKIT_PARALLEL_H

#include <stdatomic.h>
#include <stdint.h>

enum { CHUNKS_A_THREAD = 4, LEAST_WORK = 1 << 16 };

struct chunks {
    int64_t count;
    atomic_long next;
};

/* The number of a chunk that nobody has taken; `count` or more: none is left. */
static inline int64_t take_chunk(struct chunks *chunks) {
    return atomic_fetch_add(&chunks->next, 1);
}

/* Have `run(job)` called by up to `threads` threads, until it has taken all chunks. */
void llamakit_in_parallel(void (*run)(void *), void *job, struct chunks *chunks, int64_t count,
                          int threads);

#endif
