/* Which instructions the processor has, and products over all blocks by several threads. */
#include <stdatomic.h>
#include <stdlib.h>

#include "product.h"

#ifdef LLAMAKIT_X86
#include <cpuid.h>

/* Which registers the system saves: bit 2 is AVX's, 5 to 7 are AVX-512's. */
static uint32_t saved_registers(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

enum { AVX2 = 1, AVXVNNI = 2, AVX512VNNI = 4 };

static int found_instructions(void) {
    uint32_t a, b, c, d, a1, b1, c1, d1;
    if (!__get_cpuid(1, &a1, &b1, &c1, &d1)) return 0;
    const int has_fma = c1 >> 12 & 1, has_xgetbv = c1 >> 27 & 1;
    if (!has_fma || !has_xgetbv || (saved_registers() & 6) != 6) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b >> 5 & 1)) return 0;
    int found = AVX2;
    const uint32_t foundation = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* F, DQ, BW, VL */
    if ((b & foundation) == foundation && (c >> 11 & 1) && (saved_registers() & 0xe0) == 0xe0)
        found |= AVX512VNNI;
    if (a >= 1 && __get_cpuid_count(7, 1, &a1, &b1, &c1, &d1) && (a1 >> 4 & 1)) found |= AVXVNNI;
    return found;
}
#endif

static const struct instructions *const SETS[] = {
#ifdef LLAMAKIT_X86
    &llamakit_avx512vnni,
#ifdef LLAMAKIT_AVXVNNI
    &llamakit_avxvnni,
#endif
    &llamakit_avx2,
#endif
    &llamakit_generic,
};
enum { COUNT = sizeof SETS / sizeof *SETS };

/* The name of a set of instructions, NULL behind the last one. The quickest is the first. */
const char *llamakit_name(int number) {
    return number >= 0 && number < COUNT ? SETS[number]->name : NULL;
}

/* Whether the processor has the instructions of a set. */
int llamakit_has(int number) {
    if (number < 0 || number >= COUNT) return 0;
    if (SETS[number] == &llamakit_generic) return 1;
#ifdef LLAMAKIT_X86
    const int found = found_instructions();
#ifdef LLAMAKIT_AVXVNNI
    if (SETS[number] == &llamakit_avxvnni) return (found & AVXVNNI) != 0;
#endif
    return (found & (SETS[number] == &llamakit_avx2 ? AVX2 : AVX512VNNI)) != 0;
#else
    return 0;
#endif
}

/* OpenMP's GOMP_parallel of the runtime that PyTorch has loaded: two runtimes in one process would
 * have twice as many threads as cores. */
typedef void (*parallel)(void (*run)(void *), void *job, unsigned threads, unsigned flags);
static parallel in_parallel = NULL;

void llamakit_use_threads_of(parallel function) { in_parallel = function; }

struct job {
    const struct weight *weight;
    const struct instructions *set;
    struct rows x; /* of all rows: those of tile t are at t * MOST_ROWS * groups in each array */
    struct rows rest;  /* alike, of the rows with outliers */
    char *has_outlier; /* of each row */
    const void *input;
    void *output;
    int64_t rows;
    int is_bfloat16;
    int64_t chunks;
    atomic_long next;
};

static void all(void (*run)(void *), struct job *job, int64_t chunks, int threads) {
    job->chunks = chunks;
    atomic_store(&job->next, 0);
    if (threads > 1 && chunks > 1 && in_parallel)
        in_parallel(run, job, (unsigned)(chunks < threads ? chunks : threads), 0);
    else
        run(job);
}

/* Return the rows from `row` on that are multiplied together, of all: `job->x` or `job->rest`. */
static struct rows tile(const struct job *job, const struct rows *of, int64_t row) {
    const int64_t start = row * of->groups, left = job->rows - row;
    struct rows x = *of;
    x.width = left < MOST_ROWS ? left : MOST_ROWS;
    x.values += start * GROUP;
    x.steps += start;
    x.weighted += start;
    x.offsets += start;
    return x;
}

static void round_rows(void *argument) {
    struct job *job = argument;
    const int64_t inputs = job->weight->inputs, nbytes = inputs * (job->is_bfloat16 ? 2 : 4);
    const int32_t zero = job->weight->bits == 4 ? 8 : 128;
    for (int64_t row; (row = atomic_fetch_add(&job->next, 1)) < job->chunks;) {
        const int64_t first = row / MOST_ROWS * MOST_ROWS;
        const struct rows x = tile(job, &job->x, first), rest = tile(job, &job->rest, first);
        job->has_outlier[row] =
            (char)job->set->round((const char *)job->input + row * nbytes, job->is_bfloat16,
                                  inputs, zero, &x, &rest, row - first);
    }
}

static uint16_t to_bfloat16(float value) {
    const uint32_t bits = bits_of(value);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fc0;
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16); /* ties to even */
}

static void store(const struct job *job, int64_t row, int64_t block, const float *totals) {
    const int64_t outputs = job->weight->outputs, start = block * BLOCK;
    const int64_t count = outputs - start < BLOCK ? outputs - start : BLOCK;
    const float *scales = job->weight->scales ? job->weight->scales + start : NULL;
    for (int64_t i = 0; i < count; i++) {
        const float value = scales ? totals[i] * scales[i] : totals[i];
        if (job->is_bfloat16)
            ((uint16_t *)job->output)[row * outputs + start + i] = to_bfloat16(value);
        else
            ((float *)job->output)[row * outputs + start + i] = value;
    }
}

/* Add what rounding left of the rows with outliers, neighbors together. */
static void add_rest(const struct job *job, multiply_block multiply, const uint8_t *records,
                     int64_t row, int64_t count, float totals[][BLOCK]) {
    const char *has_outlier = job->has_outlier + row;
    for (int64_t first = 0, end; first < count; first = end + 1) {
        for (end = first; end < count && has_outlier[end];) end++;
        if (end == first) continue;
        float more[MOST_ROWS][BLOCK];
        const struct rows rest = tile(job, &job->rest, row);
        multiply(records, &rest, first, end - first, more);
        for (int64_t i = first; i < end; i++)
            for (int k = 0; k < BLOCK; k++) totals[i][k] += more[i - first][k];
    }
}

static void multiply_chunks(void *argument) {
    struct job *job = argument;
    const struct weight *weight = job->weight;
    const int is_4 = weight->bits == 4;
    const multiply_block multiply = is_4 ? job->set->multiply4 : job->set->multiply8;
    const int64_t blocks = (weight->outputs + BLOCK - 1) / BLOCK;
    const int64_t nbytes = job->x.groups * (is_4 ? RECORD4 : RECORD8);
    for (int64_t chunk; (chunk = atomic_fetch_add(&job->next, 1)) < job->chunks;)
        for (int64_t block = blocks * chunk / job->chunks;
             block < blocks * (chunk + 1) / job->chunks; block++)
            for (int64_t row = 0; row < job->rows; row += MOST_ROWS) {
                float totals[MOST_ROWS][BLOCK];
                const uint8_t *records = weight->records + block * nbytes;
                const struct rows x = tile(job, &job->x, row);
                multiply(records, &x, 0, x.width, totals);
                add_rest(job, multiply, records, row, x.width, totals);
                for (int64_t i = 0; i < x.width; i++) store(job, row + i, block, totals[i]);
            }
}

static struct rows rows_in(char *memory, int64_t groups, int64_t places) {
    struct rows x = {.groups = groups, .values = (int8_t *)memory};
    x.steps = (float *)(memory + places * GROUP);
    x.weighted = x.steps + places;
    x.offsets = (int32_t *)(x.weighted + places);
    return x;
}

enum { CHUNKS_A_THREAD = 4, LEAST_WORK = 1 << 16 };

/* Multiply rows of activations, float32 or bfloat16, by a weight. Returns 0; 1: no memory. */
int llamakit_multiply(const struct weight *weight, const void *input, void *output, int64_t rows,
                      int is_bfloat16, int threads) {
    struct job job = {.weight = weight, .set = SETS[weight->instructions], .input = input,
                      .output = output, .rows = rows, .is_bfloat16 = is_bfloat16};
    const int64_t groups = (weight->inputs + GROUP - 1) / GROUP, places = rows * groups;
    const int64_t blocks = (weight->outputs + BLOCK - 1) / BLOCK;
    if (places == 0 || blocks == 0) return 0;
    const int64_t nbytes = places * (GROUP + 12);
    char *memory = malloc((size_t)(2 * nbytes + rows));
    if (!memory) return 1;
    job.x = rows_in(memory, groups, places);
    job.rest = rows_in(memory + nbytes, groups, places);
    job.has_outlier = memory + 2 * nbytes;
    all(round_rows, &job, rows, places * GROUP > LEAST_WORK ? threads : 1);
    const int64_t chunks = (int64_t)threads * CHUNKS_A_THREAD;
    const int is_small = weight->outputs * weight->inputs * rows < LEAST_WORK;
    all(multiply_chunks, &job, chunks < blocks ? chunks : blocks, is_small ? 1 : threads);
    free(memory);
    return 0;
}
