/* Weights in bfloat16 in blocks of 16 outputs, and rows of activations.
 *
 * A record holds 32 inputs of a block, 16 x 64 bytes: part j has inputs 2 * j and 2 * j + 1 of
 * output i at bytes 4 * i, which is how AMX wants the right operand of a product. Records of one
 * block follow one another by input; blocks by output. Inputs and outputs that pad are zero.
 */
#ifndef LLAMAKIT_BFLOAT16_H
#define LLAMAKIT_BFLOAT16_H

#include "product.h"

/* Rows of a tile of activations, those that are multiplied together, and bytes of a record. */
enum { TILE_ROWS = 16, PASS_ROWS = 2 * TILE_ROWS, RECORD16 = 1024 };

struct weight16 {
    const uint8_t *records;
    int64_t outputs, inputs;
    int32_t instructions;
};

/* Up to PASS_ROWS rows of activations. In a tile those of one group of 32 inputs lie together:
 * groups x width x GROUP, bfloat16 or float32 as the instructions take them; tiles follow. */
struct pass {
    const void *values; /* from the first group that is multiplied on */
    int64_t groups, tile_groups; /* how many are multiplied, and how many a tile has */
    int64_t width, count; /* `width` rows in a tile, `count` of the pass are wanted */
    const uint8_t *block[2], *next[2]; /* what is multiplied by, and what will be after it */
    int64_t part, parts; /* the share of `next` that this pass fetches; parts is 0: none of it */
};

/* Multiply the rows by two blocks and add the products to out: rows, a multiple of `width` of
 * them, x (16 outputs of the one, 16 of the other). */
typedef void (*multiply_blocks)(const struct pass *pass, float out[][2 * BLOCK]);

/* Store a row of a pass, one value for each of `count` outputs: float32 or bfloat16. */
typedef void (*store_row)(const float *sums, void *output, int64_t count, int is_bfloat16);

struct instructions16 {
    const char *name;
    multiply_blocks multiply;
    store_row store, store_gated; /* gated: SiLU of the first 16 sums times the other 16 */
    void (*begin)(int64_t width), (*end)(void); /* of each thread; NULL: nothing to do */
    int needs, is_wide; /* bits of `enum has`; whether activations are float32 */
};

extern const struct instructions16 llamakit_generic16;
#ifdef LLAMAKIT_X86
extern const struct instructions16 llamakit_avx2_16, llamakit_avx512_16;
#if __GNUC__ >= 11 || __clang_major__ >= 12
#define LLAMAKIT_BF16 1
extern const struct instructions16 llamakit_avx512bf16;
#ifdef __linux__
#define LLAMAKIT_AMX 1
extern const struct instructions16 llamakit_amx;
#endif
#endif
#endif

#endif
