/* Products of rows and a weight of 8 or 4 bits, over all blocks by several threads. */
#include "product.h"

#include <stdlib.h>

#include "parallel.h"

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

/* Which of the bits of `llamakit_cpu` a set needs. */
int llamakit_needs(int number) { return SETS[number]->needs; }

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
    struct chunks chunks;
};

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
    for (int64_t row; (row = take_chunk(&job->chunks)) < job->chunks.count;) {
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
    for (int64_t chunk; (chunk = take_chunk(&job->chunks)) < job->chunks.count;)
        for (int64_t block = blocks * chunk / job->chunks.count;
             block < blocks * (chunk + 1) / job->chunks.count; block++)
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
    llamakit_in_parallel(round_rows, &job, &job.chunks, rows,
                         places * GROUP > LEAST_WORK ? threads : 1);
    const int64_t chunks = (int64_t)threads * CHUNKS_A_THREAD;
    const int is_small = weight->outputs * weight->inputs * rows < LEAST_WORK;
    llamakit_in_parallel(multiply_chunks, &job, &job.chunks, chunks < blocks ? chunks : blocks,
                         is_small ? 1 : threads);
    free(memory);
    return 0;
}
