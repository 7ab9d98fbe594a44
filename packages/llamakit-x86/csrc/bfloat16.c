/* Products of rows and a weight in bfloat16, over all blocks by several threads. */
#include "bfloat16.h"

#include <stdlib.h>

#include "parallel.h"

static const struct instructions16 *const SETS[] = {
#ifdef LLAMAKIT_AMX
    &llamakit_amx,
#endif
#ifdef LLAMAKIT_BF16
    &llamakit_avx512bf16,
#endif
#ifdef LLAMAKIT_X86
    &llamakit_avx512_16,
    &llamakit_avx2_16,
#endif
    &llamakit_generic16,
};
enum { COUNT = sizeof SETS / sizeof *SETS };

/* The name of a set of instructions, NULL behind the last one. The quickest is the first. */
const char *llamakit_name16(int number) {
    return number >= 0 && number < COUNT ? SETS[number]->name : NULL;
}

/* Which of the bits of `llamakit_cpu` a set needs. */
int llamakit_needs16(int number) { return SETS[number]->needs; }

/* Bytes of activations that stay in a core's cache while a chunk of blocks is multiplied. */
enum { CACHED = 3 << 19 };

struct job {
    const struct weight16 *weight;
    const struct instructions16 *set;
    const void *input;
    void *output;
    char *values; /* tiles of activations, see struct pass */
    int64_t rows, groups, width, pairs; /* pairs: of blocks that are multiplied together */
    int is_bfloat16, is_gated;
    struct chunks chunks;
};

static int64_t divided(int64_t count, int64_t size) { return (count + size - 1) / size; }

/* Copy one group of a row of activations, as the instructions take it; `place`: where it goes. */
static void pack_group(const struct job *job, int64_t row, int64_t group, int64_t place) {
    const int64_t inputs = job->weight->inputs, start = group * GROUP;
    const int64_t count = row >= job->rows       ? 0
                          : inputs - start < GROUP ? inputs - start
                                                   : GROUP;
    const int64_t from = row * inputs + start;
    if (job->set->is_wide && job->is_bfloat16) {
        float *to = (float *)job->values + place * GROUP;
        const uint16_t *values = (const uint16_t *)job->input + from;
        for (int64_t i = 0; i < count; i++) to[i] = float_of((uint32_t)values[i] << 16);
        memset(to + count, 0, (size_t)(GROUP - count) * 4);
        return;
    }
    const int64_t size = job->set->is_wide ? 4 : 2;
    char *to = job->values + place * GROUP * size;
    if (count == GROUP && size == 2) { /* of a size that the compiler knows */
        memcpy(to, (const char *)job->input + from * 2, GROUP * 2);
        return;
    }
    if (count) memcpy(to, (const char *)job->input + from * size, (size_t)(count * size));
    memset(to + count * size, 0, (size_t)((GROUP - count) * size));
}

static void pack_tiles(void *argument) {
    struct job *job = argument;
    for (int64_t tile; (tile = take_chunk(&job->chunks)) < job->chunks.count;)
        for (int64_t group = 0; group < job->groups; group++)
            for (int64_t r = 0; r < job->width; r++)
                pack_group(job, tile * TILE_ROWS + r, group,
                           (tile * job->groups + group) * job->width + r);
}

/* Where the two blocks of a pair are: neighbors, or a gate and what it is multiplied by. */
static void find_blocks(const struct job *job, int64_t pair, const uint8_t *block[2]) {
    const int64_t count = divided(job->weight->outputs, BLOCK), nbytes = job->groups * RECORD16;
    const int64_t left = job->is_gated ? pair : 2 * pair;
    const int64_t right = job->is_gated ? pair + job->pairs : 2 * pair + 1;
    block[0] = job->weight->records + left * nbytes;
    block[1] = right < count ? job->weight->records + right * nbytes : block[0];
}

static void store_rows(const struct job *job, int64_t row, int64_t count, int64_t pair,
                       float sums[][2 * BLOCK]) {
    const int64_t outputs = job->weight->outputs / (job->is_gated ? 2 : 1);
    const int64_t size = job->is_bfloat16 ? 2 : 4, most = job->is_gated ? BLOCK : 2 * BLOCK;
    const int64_t start = pair * most, left = outputs - start < most ? outputs - start : most;
    const store_row store = job->is_gated ? job->set->store_gated : job->set->store;
    char *out = (char *)job->output + (row * outputs + start) * size;
    for (int64_t r = 0; r < count; r++, out += outputs * size)
        store(sums[r], out, left, job->is_bfloat16);
}

/* Multiply the rows from `first` to `end` by one pair, while `next` is fetched. */
static void multiply_pair(const struct job *job, int64_t pair, int64_t first, int64_t end,
                          int has_next) {
    const int64_t size = job->set->is_wide ? 4 : 2;
    struct pass pass = {.groups = job->groups, .width = job->width};
    pass.parts = has_next ? divided(end - first, PASS_ROWS) : 0;
    find_blocks(job, pair, pass.block);
    find_blocks(job, has_next ? pair + 1 : pair, pass.next);
    for (int64_t row = first; row < end; row += PASS_ROWS, pass.part++) {
        float sums[PASS_ROWS][2 * BLOCK];
        pass.values = job->values + row * job->groups * GROUP * size;
        pass.count = end - row < PASS_ROWS ? end - row : PASS_ROWS;
        job->set->multiply(&pass, sums);
        store_rows(job, row, pass.count, pair, sums);
    }
}

static void multiply_chunks(void *argument) {
    struct job *job = argument;
    const int64_t bytes_a_row = job->groups * GROUP * (job->set->is_wide ? 4 : 2);
    const int64_t cached = CACHED / bytes_a_row / PASS_ROWS * PASS_ROWS;
    const int64_t step = cached ? cached : PASS_ROWS;
    if (job->set->begin) job->set->begin(job->width);
    for (int64_t chunk; (chunk = take_chunk(&job->chunks)) < job->chunks.count;) {
        const int64_t begin = job->pairs * chunk / job->chunks.count;
        const int64_t end = job->pairs * (chunk + 1) / job->chunks.count;
        for (int64_t row = 0; row < job->rows; row += step) {
            const int64_t last = job->rows - row < step ? job->rows : row + step;
            for (int64_t pair = begin; pair < end; pair++)
                multiply_pair(job, pair, row, last, pair + 1 < end);
        }
    }
    if (job->set->end) job->set->end();
}

/* Multiply rows of activations, float32 or bfloat16, by a weight. Returns 0; 1: no memory.
 * Gated: the result has half as many outputs; SiLU of the first half times the second, which
 * have to be whole blocks. */
int llamakit_multiply16(const struct weight16 *weight, const void *input, void *output, int64_t rows,
                        int is_bfloat16, int is_gated, int threads) {
    struct job job = {.weight = weight, .set = SETS[weight->instructions], .input = input,
                      .output = output, .rows = rows, .is_bfloat16 = is_bfloat16,
                      .is_gated = is_gated, .groups = divided(weight->inputs, GROUP)};
    const int64_t tiles = divided(rows, TILE_ROWS);
    if (rows == 0 || weight->inputs == 0 || weight->outputs == 0) return 0;
    job.width = rows < TILE_ROWS ? rows : TILE_ROWS;
    job.pairs = divided(weight->outputs, 2 * BLOCK);
    const int64_t count = tiles * job.width * job.groups * GROUP;
    job.values = aligned_alloc(64, (size_t)(count * (job.set->is_wide ? 4 : 2)));
    if (!job.values) return 1;
    llamakit_in_parallel(pack_tiles, &job, &job.chunks, tiles, count > LEAST_WORK ? threads : 1);
    const int is_small = weight->outputs * weight->inputs * rows < LEAST_WORK;
    const int64_t chunks = (int64_t)threads * CHUNKS_A_THREAD;
    llamakit_in_parallel(multiply_chunks, &job, &job.chunks, chunks < job.pairs ? chunks : job.pairs,
                         is_small ? 1 : threads);
    free(job.values);
    return 0;
}

/* values: outputs x inputs bfloat16. records: whole blocks and groups; what pads them is zero. */
void llamakit_pack16(const uint16_t *values, int64_t outputs, int64_t inputs, uint8_t *records) {
    const int64_t groups = divided(inputs, GROUP), blocks = divided(outputs, BLOCK);
    for (int64_t block = 0; block < blocks; block++)
        for (int64_t group = 0; group < groups; group++, records += RECORD16) {
            const int64_t n = outputs - block * BLOCK, k = inputs - group * GROUP;
            const int64_t rows = n < BLOCK ? n : BLOCK, count = k < GROUP ? k : GROUP;
            const uint16_t *from = values + block * BLOCK * inputs + group * GROUP;
            uint16_t *to = (uint16_t *)records;
            if (rows < BLOCK || count < GROUP) memset(records, 0, RECORD16);
            for (int64_t row = 0; row < rows; row++)
                for (int64_t i = 0; i < count; i++)
                    to[i / 2 * 2 * BLOCK + row * 2 + i % 2] = from[row * inputs + i];
        }
}
