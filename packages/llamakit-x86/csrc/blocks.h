/* The products of one block. Included for each instruction set, which defines
 *   FUNCTION, NAME(x), LANES outputs of a vector, TILE rows at once,
 *   INTS, FLOATS, INTRINSIC(x), LOAD, AND, AS_FLOATS for vectors of its width,
 *   START8, DOT8, START4, DOT4, END4 for the sums of products. */
#include <immintrin.h>

#define ZERO_FLOATS() INTRINSIC(setzero_ps)()
#define SAME(value) INTRINSIC(set1_ps)(value)
#define STORE(p, v) INTRINSIC(storeu_ps)(p, v)
#define FMA(a, b, c) INTRINSIC(fmadd_ps)(a, b, c)
#define TIMES(a, b) INTRINSIC(mul_ps)(a, b)
#define TO_FLOATS(v) INTRINSIC(cvtepi32_ps)(v)
#define FOUR(p) INTRINSIC(set1_epi32)(four(p))
#define LOW_HALVES(v) AND(v, INTRINSIC(set1_epi8)(15))
#define HIGH_HALVES(v) AND(INTRINSIC(srli_epi16)(v, 4), INTRINSIC(set1_epi8)(15))
#define LOW_BFLOAT16(v) AS_FLOATS(INTRINSIC(slli_epi32)(v, 16))
#define HIGH_BFLOAT16(v) AS_FLOATS(AND(v, INTRINSIC(set1_epi32)((int)0xffff0000)))

static inline int four(const int8_t *p) {
    int value;
    memcpy(&value, p, 4);
    return value;
}

/* How far ahead of its use a weight is fetched from memory. */
#define AHEAD 3072

FUNCTION static inline __attribute__((always_inline)) void NAME(tile8)(
    const uint8_t *records, const struct rows *x, int64_t first, float out[][BLOCK], const int rows) {
    for (int side = 0; side < BLOCK; side += LANES) {
        const uint8_t *part = records + side * 4;
        const int8_t *activations = x->values + first * GROUP;
        const float *steps = x->steps + first;
        const int32_t *offsets = x->offsets + first;
        FLOATS totals[TILE];
        for (int r = 0; r < rows; r++) totals[r] = ZERO_FLOATS();
        for (int64_t group = 0; group < x->groups; group++) {
            INTS sums[TILE];
            for (int r = 0; r < rows; r++) sums[r] = START8(offsets[r]);
#pragma GCC unroll 8
            for (int j = 0; j < 8; j++) {
                const INTS values = LOAD(part + 64 * j);
                if (side == 0) __builtin_prefetch(part + AHEAD + 64 * j);
                for (int r = 0; r < rows; r++)
                    sums[r] = DOT8(sums[r], values, FOUR(activations + GROUP * r + 4 * j));
            }
            for (int r = 0; r < rows; r++)
                totals[r] = FMA(TO_FLOATS(sums[r]), SAME(steps[r]), totals[r]);
            part += RECORD8;
            activations += x->width * GROUP;
            steps += x->width;
            offsets += x->width;
        }
        for (int r = 0; r < rows; r++) STORE(out[r] + side, totals[r]);
    }
}

FUNCTION static inline __attribute__((always_inline)) void NAME(tile4)(
    const uint8_t *records, const struct rows *x, int64_t first, float out[][BLOCK], const int rows) {
    for (int side = 0; side < BLOCK; side += LANES) {
        const uint8_t *part = records + side * 4;
        const int8_t *activations = x->values + first * GROUP;
        const float *steps = x->steps + first, *weighted = x->weighted + first;
        const int32_t *offsets = x->offsets + first;
        FLOATS totals[TILE];
        for (int r = 0; r < rows; r++) totals[r] = ZERO_FLOATS();
        for (int64_t group = 0; group < x->groups; group++) {
            INTS sums[TILE];
            for (int r = 0; r < rows; r++) sums[r] = START4(offsets[r]);
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                const INTS both = LOAD(part + 64 * j);
                const INTS low = LOW_HALVES(both), high = HIGH_HALVES(both);
                if (side == 0) __builtin_prefetch(part + AHEAD + 64 * j);
                for (int r = 0; r < rows; r++) {
                    const int8_t *row = activations + GROUP * r;
                    sums[r] = DOT4(sums[r], low, FOUR(row + 4 * j));
                    sums[r] = DOT4(sums[r], high, FOUR(row + 4 * j + 16));
                }
            }
            const INTS scales = LOAD(part + 256);
            if (side == 0) __builtin_prefetch(part + AHEAD + 256);
            const FLOATS scale = LOW_BFLOAT16(scales), middle = HIGH_BFLOAT16(scales);
            for (int r = 0; r < rows; r++) {
                const FLOATS sum = TO_FLOATS(END4(sums[r], offsets[r]));
                totals[r] = FMA(TIMES(sum, SAME(steps[r])), scale, totals[r]);
                totals[r] = FMA(middle, SAME(weighted[r]), totals[r]);
            }
            part += RECORD4;
            activations += x->width * GROUP;
            steps += x->width;
            weighted += x->width;
            offsets += x->width;
        }
        for (int r = 0; r < rows; r++) STORE(out[r] + side, totals[r]);
    }
}

#define CASES(tile)                                                                               \
    switch (rows) {                                                                               \
    case 1: NAME(tile)(records, x, first, out, 1); break;                                         \
    case 2: NAME(tile)(records, x, first, out, 2); break;                                         \
    case 3: NAME(tile)(records, x, first, out, 3); break;                                         \
    case 4: NAME(tile)(records, x, first, out, 4); break;                                         \
    MORE_CASES(tile)                                                                              \
    }

#if TILE == 8
#define MORE_CASES(tile)                                                                          \
    case 5: NAME(tile)(records, x, first, out, 5); break;                                         \
    case 6: NAME(tile)(records, x, first, out, 6); break;                                         \
    case 7: NAME(tile)(records, x, first, out, 7); break;                                         \
    case 8: NAME(tile)(records, x, first, out, 8); break;
#else
#define MORE_CASES(tile)
#endif

FUNCTION static void NAME(multiply8)(const uint8_t *records, const struct rows *x, int64_t first,
                                     int64_t count, float out[][BLOCK]) {
    for (; count > 0; first += TILE, count -= TILE, out += TILE) {
        const int64_t rows = count < TILE ? count : TILE;
        CASES(tile8)
    }
}

FUNCTION static void NAME(multiply4)(const uint8_t *records, const struct rows *x, int64_t first,
                                     int64_t count, float out[][BLOCK]) {
    for (; count > 0; first += TILE, count -= TILE, out += TILE) {
        const int64_t rows = count < TILE ? count : TILE;
        CASES(tile4)
    }
}
