/* Plain C, in the order of the instruction sets that widen: the same bits on any processor. */
#include <math.h>

#include "bfloat16.h"

#define FUNCTION
#define NAME(x) generic_##x
#include "storing.h"

static void generic_multiply16(const struct pass *pass, float out[][2 * BLOCK]) {
    for (int64_t row = 0; row < pass->count; row++)
        for (int i = 0; i < 2 * BLOCK; i++) {
            const int64_t tile = row / TILE_ROWS * TILE_ROWS * pass->tile_groups;
            float sum = out[row][i];
            for (int64_t k = 0; k < pass->groups * GROUP; k++) {
                const int64_t place = tile + k / GROUP * pass->width + row % TILE_ROWS;
                const float value = ((const float *)pass->values)[place * GROUP + k % GROUP];
                uint16_t weight;
                memcpy(&weight, pass->block[i / BLOCK] + k / 2 * 64 + i % BLOCK * 4 + k % 2 * 2, 2);
                sum = fmaf(value, float_of((uint32_t)weight << 16), sum);
            }
            out[row][i] = sum;
        }
}

const struct instructions16 llamakit_generic16 = {
    "generic", generic_multiply16, generic_store, generic_store_gated, NULL, NULL, 0, 1};
