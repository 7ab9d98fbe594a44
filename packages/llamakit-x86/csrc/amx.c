/* AMX: tiles of 16 rows by 32 inputs times 32 inputs by 16 outputs. Sapphire Rapids and later. */
#include "bfloat16.h"
#ifdef LLAMAKIT_AMX
#include <immintrin.h>

#define FUNCTION __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw,avx512vl,avx512dq,fma")))
#define NAME(x) amx_##x
#include "storing.h"

/* How far ahead of its use a block is fetched where one pass is all there is. */
#define AHEAD 16384

struct tiles {
    uint8_t palette, start, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

/* Registers 0 to 3: sums, 4 and 5: activations, 6 and 7: weights. */
FUNCTION static void amx_begin(int64_t width) {
    struct tiles tiles = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        tiles.row_bytes[i] = 64;
        tiles.rows[i] = (uint8_t)(i < 6 ? width : 16);
    }
    /* GCC's intrinsic says that it reads 8 bytes, so the others would not be written before. */
    __asm__ volatile("" : : "r"(&tiles) : "memory");
    _tile_loadconfig(&tiles);
}

FUNCTION static void amx_end(void) { _tile_release(); }

/* Few rows: one tile of them, and blocks come from memory. */
FUNCTION static void amx_one(const struct pass *pass, float out[][2 * BLOCK]) {
    const uint8_t *left = pass->block[0], *right = pass->block[1];
    const uint8_t *rows = pass->values;
    _tile_loadd(0, out[0], 4 * 2 * BLOCK);
    _tile_loadd(1, out[0] + BLOCK, 4 * 2 * BLOCK);
    for (int64_t group = 0; group < pass->groups; group++) {
        for (int i = 0; i < RECORD16; i += 64) {
            _mm_prefetch(left + AHEAD + i, _MM_HINT_T1);
            _mm_prefetch(right + AHEAD + i, _MM_HINT_T1);
        }
        _tile_loadd(4, rows, 64);
        _tile_loadd(6, left, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, right, 64);
        _tile_dpbf16ps(1, 4, 7);
        left += RECORD16, right += RECORD16, rows += 64 * pass->width;
    }
    _tile_stored(0, out[0], 4 * 2 * BLOCK);
    _tile_stored(1, out[0] + BLOCK, 4 * 2 * BLOCK);
}

/* Fetch a share of the blocks that follow, of each record its lines of `part`. */
FUNCTION static inline void amx_fetch(const uint8_t *record, int64_t first, int64_t end) {
    for (int64_t line = first; line < end; line++) _mm_prefetch(record + 64 * line, _MM_HINT_T1);
}

FUNCTION static void amx_two(const struct pass *pass, float out[][2 * BLOCK]) {
    const uint8_t *left = pass->block[0], *right = pass->block[1];
    const uint8_t *next = pass->next[0], *after = pass->next[1];
    const int64_t tile = 64 * TILE_ROWS;
    const uint8_t *rows = pass->values, *more = rows + tile * pass->tile_groups;
    const int64_t first = pass->parts ? 16 * pass->part / pass->parts : 0;
    const int64_t end = pass->parts ? 16 * (pass->part + 1) / pass->parts : 0;
    _tile_loadd(0, out[0], 4 * 2 * BLOCK);
    _tile_loadd(1, out[0] + BLOCK, 4 * 2 * BLOCK);
    _tile_loadd(2, out[TILE_ROWS], 4 * 2 * BLOCK);
    _tile_loadd(3, out[TILE_ROWS] + BLOCK, 4 * 2 * BLOCK);
    for (int64_t group = 0; group < pass->groups; group++) {
        _tile_loadd(4, rows, 64);
        _tile_loadd(6, left, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, right, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, more, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        amx_fetch(next, first, end);
        amx_fetch(after, first, end);
        left += RECORD16, right += RECORD16, rows += tile, more += tile;
        next += RECORD16, after += RECORD16;
    }
    _tile_stored(0, out[0], 4 * 2 * BLOCK);
    _tile_stored(1, out[0] + BLOCK, 4 * 2 * BLOCK);
    _tile_stored(2, out[TILE_ROWS], 4 * 2 * BLOCK);
    _tile_stored(3, out[TILE_ROWS] + BLOCK, 4 * 2 * BLOCK);
}

FUNCTION static void amx_multiply(const struct pass *pass, float out[][2 * BLOCK]) {
    if (pass->count > TILE_ROWS)
        amx_two(pass, out);
    else
        amx_one(pass, out);
}

const struct instructions16 llamakit_amx = {
    "amx", amx_multiply, amx_store, amx_store_gated, amx_begin, amx_end, HAS_AMX, 0};
#endif
