#include "parallel.h"

#include <stddef.h>

/* OpenMP's GOMP_parallel of the runtime that PyTorch has loaded: two runtimes in one process would
 * have twice as many threads as cores. */
typedef void (*parallel)(void (*run)(void *), void *job, unsigned threads, unsigned flags);
static parallel in_parallel = NULL;

void llamakit_use_threads_of(parallel function) { in_parallel = function; }

void llamakit_in_parallel(void (*run)(void *), void *job, struct chunks *chunks, int64_t count,
                          int threads) {
    chunks->count = count;
    atomic_store(&chunks->next, 0);
    if (threads > 1 && count > 1 && in_parallel)
        in_parallel(run, job, (unsigned)(count < threads ? count : threads), 0);
    else
        run(job);
}
