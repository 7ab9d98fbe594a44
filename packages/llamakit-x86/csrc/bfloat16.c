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

/* A part of the inputs, up to CACHED_GROUPS of them, is multiplied at once, by up to CACHED bytes of
 * rows: both stay in a core's cache with the weights of the next two pairs of blocks. Sums of
 * several parts wait for one another, of PANEL pairs and ROWS_IN_PARTS rows at most. */
enum { CACHED_GROUPS = 64, CACHED = 1 << 20, PANEL = 8, ROWS_IN_PARTS = 128 };

struct job {
    const struct weight16 *weight;
    const struct instructions16 *set;
    const void *input;
    void *output;
    char *values; /* tiles of activations, see struct pass */
    int64_t rows, groups, width, pairs; /* pairs: of blocks that are multiplied together */
    int64_t parts, step; /* parts of the inputs; rows that are multiplied at once */
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

/* The first group of a part of the inputs. */
static int64_t first_group(const struct job *job, int64_t part) {
    return job->groups * part / job->parts;
}

/* Where the two blocks of a pair are: neighbors, or a gate and what it is multiplied by. */
static void find_blocks(const struct job *job, int64_t pair, int64_t part,
                        const uint8_t *block[2]) {
    const int64_t count = divided(job->weight->outputs, BLOCK), nbytes = job->groups * RECORD16;
    const int64_t left = job->is_gated ? pair : 2 * pair;
    const int64_t right = job->is_gated ? pair + job->pairs : 2 * pair + 1;
    const uint8_t *records = job->weight->records + first_group(job, part) * RECORD16;
    block[0] = records + left * nbytes;
    block[1] = right < count ? records + right * nbytes : block[0];
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

/* A part of the inputs of one pair: what is multiplied, or what is multiplied next. */
struct place {
    int64_t pair, part;
};

/* Multiply the rows from `first` to `end` by what is at a place, while `next` is fetched; store
 * them after the last part. A pair of -1: nothing is next. */
static void multiply_pair(const struct job *job, struct place here, struct place next,
                          int64_t first, int64_t end, float sums[][2 * BLOCK]) {
    const int64_t size = job->set->is_wide ? 4 : 2, group = first_group(job, here.part);
    struct pass pass = {.tile_groups = job->groups, .width = job->width};
    pass.groups = first_group(job, here.part + 1) - group;
    pass.parts = next.pair < 0 ? 0 : divided(end - first, PASS_ROWS);
    if (next.pair < 0) next = here;
    find_blocks(job, here.pair, here.part, pass.block);
    find_blocks(job, next.pair, next.part, pass.next);
    const int64_t whole = job->width < TILE_ROWS ? job->width : PASS_ROWS;
    for (int64_t row = first; row < end; row += PASS_ROWS, pass.part++) {
        float(*out)[2 * BLOCK] = job->parts == 1 ? sums : sums + (row - first);
        pass.values = job->values + (row * job->groups + group * job->width) * GROUP * size;
        pass.count = end - row < PASS_ROWS ? end - row : PASS_ROWS;
        if (here.part == 0) memset(out, 0, (size_t)whole * sizeof *out);
        job->set->multiply(&pass, out);
        if (here.part == job->parts - 1) store_rows(job, row, pass.count, here.pair, out);
    }
}

/* Multiply the rows from `first` to `end` by the pairs of a panel; `next` is multiplied then. */
static void multiply_panel(const struct job *job, int64_t begin, int64_t last, int64_t next,
                           int64_t first, int64_t end) {
    float sums[PANEL * ROWS_IN_PARTS][2 * BLOCK];
    for (int64_t part = 0; part < job->parts; part++)
        for (int64_t pair = begin; pair < last; pair++) {
            const struct place here = {pair, part};
            const struct place after = pair + 1 < last          ? (struct place){pair + 1, part}
                                       : part + 1 < job->parts ? (struct place){begin, part + 1}
                                                                : (struct place){next, 0};
            multiply_pair(job, here, after, first, end,
                          sums + (job->parts == 1 ? 0 : (pair - begin) * job->step));
        }
}

/* Multiply all rows by the pairs from `begin` to `end`; `next` is multiplied then. */
static void multiply_chunk(const struct job *job, int64_t begin, int64_t end, int64_t next) {
    for (int64_t row = 0; row < job->rows; row += job->step) {
        const int64_t last_row = job->rows - row < job->step ? job->rows : row + job->step;
        for (int64_t pair = begin; pair < end; pair += PANEL) {
            const int64_t last = end - pair < PANEL ? end : pair + PANEL;
            const int64_t after = last < end ? last : last_row < job->rows ? begin : next;
            multiply_panel(job, pair, last, after, row, last_row);
        }
    }
}

static void multiply_chunks(void *argument) {
    struct job *job = argument;
    const int64_t count = job->chunks.count;
    if (job->set->begin) job->set->begin(job->width);
    for (int64_t chunk = take_chunk(&job->chunks), next; chunk < count; chunk = next) {
        next = take_chunk(&job->chunks); /* ahead: its first blocks are fetched meanwhile */
        multiply_chunk(job, job->pairs * chunk / count, job->pairs * (chunk + 1) / count,
                       next < count ? job->pairs * next / count : -1);
    }
    if (job->set->end) job->set->end();
}

/* Decide how many inputs and rows are multiplied at once. */
static void divide_job(struct job *job) {
    job->parts = job->rows > PASS_ROWS ? divided(job->groups, CACHED_GROUPS) : 1;
    const int64_t size = job->set->is_wide ? 4 : 2;
    const int64_t bytes_a_row = divided(job->groups, job->parts) * GROUP * size;
    job->step = CACHED / bytes_a_row / PASS_ROWS * PASS_ROWS;
    if (job->step < PASS_ROWS) job->step = PASS_ROWS;
    if (job->parts > 1 && job->step > ROWS_IN_PARTS) job->step = ROWS_IN_PARTS;
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
    divide_job(&job);
    job.values = aligned_alloc(64, (size_t)(count * (job.set->is_wide ? 4 : 2)));
    if (!job.values) return 1;
    llamakit_in_parallel(pack_tiles, &job, &job.chunks, tiles, count > LEAST_WORK ? threads : 1);
    const int is_small = weight->outputs * weight->inputs * rows < LEAST_WORK;
    const int64_t chunks = 2 * (int64_t)threads * CHUNKS_A_THREAD; /* each takes two */
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
