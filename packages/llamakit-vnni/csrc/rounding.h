/* Rounds a row of activations. Included for each instruction set, so that the compiler writes it in
 * them; FUNCTION has the attribute that names them. No product is contracted into a sum
 * (-ffp-contract=off), so all of them round alike. */

/* The largest magnitude whose reciprocal is finite, and then some: smaller groups are zeros. */
#define LEAST 1e-30f
/* 1.5 * 2 ** 23: a float32 that this is added to is rounded to an integer, in the lowest bits. */
#define ROUNDER 12582912.0f

FUNCTION static void NAME(round)(const void *row, int is_bfloat16, int64_t inputs, int32_t zero,
                                 const struct rows *x, int64_t number) {
    for (int64_t group = 0; group < x->groups; group++) {
        const int64_t place = group * x->width + number, start = group * GROUP;
        const int64_t count = inputs - start < GROUP ? inputs - start : GROUP;
        int8_t *values = x->values + place * GROUP;
        float part[GROUP] = {0};
        if (is_bfloat16)
            for (int i = 0; i < count; i++)
                part[i] = float_of((uint32_t)((const uint16_t *)row)[start + i] << 16);
        else
            memcpy(part, (const float *)row + start, (size_t)count * sizeof *part);
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
            continue;
        }
        float inverse = 127.0f / largest;
        int32_t sum = 0;
        for (int i = 0; i < GROUP; i++) {
            int8_t value = (int8_t)(bits_of(part[i] * inverse + ROUNDER) & 0xff);
            values[i] = value;
            sum += value;
        }
        x->steps[place] = step;
        x->weighted[place] = step * (float)sum;
        x->offsets[place] = -zero * sum;
    }
}
