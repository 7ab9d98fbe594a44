/* The products of rows and blocks of bfloat16. Included for each instruction set, which defines
 *   FUNCTION, NAME(x), LANES outputs of a vector, MOST rows at once,
 *   VALUE of an activation, PAIRS of weights, and FLOATS, LOAD, LOAD_SUMS, STORE for its vectors,
 *   WEIGHTS, made by WIDEN(pairs), and ADD_PRODUCTS(sums, weights, two activations). */
#include <immintrin.h>

/* How far ahead of its use a weight is fetched from memory. */
#define AHEAD 4096

FUNCTION static inline __attribute__((always_inline)) void NAME(rows16)(
    const struct pass *pass, int64_t first, float out[][2 * BLOCK], const int rows) {
    for (int side = 0; side < 2 * BLOCK; side += 2 * LANES) {
        const uint8_t *left = pass->block[side / BLOCK] + side % BLOCK * 4;
        const uint8_t *right = pass->block[(side + LANES) / BLOCK] + (side + LANES) % BLOCK * 4;
        const VALUE *values = (const VALUE *)pass->values + first * GROUP;
        FLOATS sums[MOST], more[MOST];
        for (int r = 0; r < rows; r++) {
            sums[r] = LOAD_SUMS(out[r] + side);
            more[r] = LOAD_SUMS(out[r] + side + LANES);
        }
        for (int64_t group = 0; group < pass->groups; group++) {
#pragma GCC unroll 4
            for (int j = 0; j < GROUP / 2; j++) {
                const WEIGHTS here = WIDEN(LOAD(left + 64 * j)), there = WIDEN(LOAD(right + 64 * j));
                _mm_prefetch(left + AHEAD + 64 * j, _MM_HINT_T0);
                if (LANES == BLOCK) _mm_prefetch(right + AHEAD + 64 * j, _MM_HINT_T0);
                for (int r = 0; r < rows; r++) {
                    const VALUE *two = values + GROUP * r + 2 * j;
                    ADD_PRODUCTS(sums[r], here, two);
                    ADD_PRODUCTS(more[r], there, two);
                }
            }
            left += RECORD16, right += RECORD16, values += pass->width * GROUP;
        }
        for (int r = 0; r < rows; r++) {
            STORE(out[r] + side, sums[r]);
            STORE(out[r] + side + LANES, more[r]);
        }
    }
}

FUNCTION static void NAME(tile16)(const struct pass *pass, int64_t count, float out[][2 * BLOCK]) {
    for (int64_t first = 0; first < count; first += MOST, out += MOST)
        switch (count - first) {
        case 1: NAME(rows16)(pass, first, out, 1); break;
        case 2: NAME(rows16)(pass, first, out, 2); break;
        case 3: NAME(rows16)(pass, first, out, 3); break;
#if MOST > 4
        case 4: NAME(rows16)(pass, first, out, 4); break;
        case 5: NAME(rows16)(pass, first, out, 5); break;
        case 6: NAME(rows16)(pass, first, out, 6); break;
        case 7: NAME(rows16)(pass, first, out, 7); break;
#endif
        default: NAME(rows16)(pass, first, out, MOST);
        }
}

FUNCTION static void NAME(multiply16)(const struct pass *pass, float out[][2 * BLOCK]) {
    NAME(tile16)(pass, pass->count < TILE_ROWS ? pass->count : TILE_ROWS, out);
    if (pass->count <= TILE_ROWS) return;
    struct pass other = *pass;
    other.values = (const VALUE *)pass->values + TILE_ROWS * pass->tile_groups * GROUP;
    NAME(tile16)(&other, pass->count - TILE_ROWS, out + TILE_ROWS);
}
