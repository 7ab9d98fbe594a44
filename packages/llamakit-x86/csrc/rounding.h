/* Rounds a row of activations. Included for each instruction set, so that the compiler writes it in
 * them; FUNCTION has the attribute that names them. No product is contracted into a sum
 * (-ffp-contract=off), so all of them round alike. */

/* The largest magnitude whose reciprocal is finite, and then some: smaller groups are zeros. */
#define LEAST 1e-30f
/* 1.5 * 2 ** 23: a float32 that this is added to is rounded to an integer, in the lowest bits. */
#define ROUNDER 12582912.0f
/* How many squared steps the squares of a group have to be, the largest aside, for rounding to be
 * off by less than 2.5 % of them: each of 32 values is off by 1 / 12 of a squared step. */
#define ENOUGH (GROUP / 12.0 / (0.025 * 0.025))

FUNCTION static inline void NAME(read_group)(const void *row, int is_bfloat16, int64_t inputs,
                                             int64_t start, float *part) {
    const int64_t count = inputs - start < GROUP ? inputs - start : GROUP;
    memset(part, 0, GROUP * sizeof *part);
    if (is_bfloat16)
        for (int i = 0; i < count; i++)
            part[i] = float_of((uint32_t)((const uint16_t *)row)[start + i] << 16);
    else
        memcpy(part, (const float *)row + start, (size_t)count * sizeof *part);
}

/* Round one group; return by how many squared units rounding is off beyond what is little. */
FUNCTION static inline double NAME(round_group)(const float *part, int32_t zero,
                                                const struct rows *x, int64_t place) {
    int8_t *values = x->values + place * GROUP;
    uint32_t most = 0; /* as integers, magnitudes are in order, then infinity, then NaN */
    for (int i = 0; i < GROUP; i++) {
        uint32_t magnitude = bits_of(part[i]) & 0x7fffffff;
        most = magnitude > most ? magnitude : most;
    }
    float largest = float_of(most), step = largest / 127.0f;
    if (most >= 0x7f800000 || largest < LEAST) {
        memset(values, 0, GROUP);
        x->steps[place] = most >= 0x7f800000 ? float_of(0x7fc00000) : 0.0f;
        x->weighted[place] = x->steps[place];
        x->offsets[place] = 0;
        return 0;
    }
    float inverse = 127.0f / largest;
    int32_t sum = 0, squares = -127 * 127;
    for (int i = 0; i < GROUP; i++) {
        int8_t value = (int8_t)(bits_of(part[i] * inverse + ROUNDER) & 0xff);
        values[i] = value;
        sum += value;
        squares += value * value;
    }
    x->steps[place] = step;
    x->weighted[place] = step * (float)sum;
    x->offsets[place] = -zero * sum;
    return (double)step * step * (ENOUGH - squares);
}

FUNCTION static int NAME(round)(const void *row, int is_bfloat16, int64_t inputs, int32_t zero,
                                const struct rows *x, const struct rows *rest, int64_t number) {
    float part[GROUP];
    double off = 0;
    for (int64_t group = 0; group < x->groups; group++) {
        NAME(read_group)(row, is_bfloat16, inputs, group * GROUP, part);
        off += NAME(round_group)(part, zero, x, group * x->width + number);
    }
    if (!(off > 0)) return 0;
    for (int64_t group = 0; group < x->groups; group++) {
        const int64_t place = group * x->width + number;
        NAME(read_group)(row, is_bfloat16, inputs, group * GROUP, part);
        for (int i = 0; i < GROUP; i++)
            part[i] -= (float)x->values[place * GROUP + i] * x->steps[place];
        NAME(round_group)(part, zero, rest, place);
    }
    return 1;
}
