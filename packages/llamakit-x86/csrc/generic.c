/* Plain C, in the order of the others: the same bits on any processor. */
#include <math.h>

#include "product.h"

#define FUNCTION
#define NAME(x) generic_##x
#include "rounding.h"

static void generic_multiply8(const uint8_t *records, const struct rows *x, int64_t first,
                              int64_t count, float out[][BLOCK]) {
    for (int64_t r = 0; r < count; r++)
        for (int i = 0; i < BLOCK; i++) {
            float total = 0;
            for (int64_t group = 0; group < x->groups; group++) {
                const int64_t place = group * x->width + first + r;
                const uint8_t *values = records + group * RECORD8 + 4 * i;
                int32_t sum = 0;
                for (int k = 0; k < GROUP; k++)
                    sum += (values[k / 4 * 64 + k % 4] - 128) * x->values[place * GROUP + k];
                total = fmaf((float)sum, x->steps[place], total);
            }
            out[r][i] = total;
        }
}

static void generic_multiply4(const uint8_t *records, const struct rows *x, int64_t first,
                              int64_t count, float out[][BLOCK]) {
    for (int64_t r = 0; r < count; r++)
        for (int i = 0; i < BLOCK; i++) {
            float total = 0;
            for (int64_t group = 0; group < x->groups; group++) {
                const int64_t place = group * x->width + first + r;
                const uint8_t *record = records + group * RECORD4, *values = record + 4 * i;
                int32_t sum = 0;
                for (int k = 0; k < GROUP; k++) {
                    const uint8_t both = values[k % 16 / 4 * 64 + k % 4];
                    sum += ((k < 16 ? both & 15 : both >> 4) - 8) * x->values[place * GROUP + k];
                }
                uint32_t scales;
                memcpy(&scales, record + 256 + 4 * i, 4);
                total = fmaf((float)sum * x->steps[place], float_of(scales << 16), total);
                total = fmaf(float_of(scales & 0xffff0000), x->weighted[place], total);
            }
            out[r][i] = total;
        }
}

const struct instructions llamakit_generic = {"generic", generic_multiply8, generic_multiply4,
                                              generic_round, 0};
