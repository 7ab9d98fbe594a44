/* Stores sums as results. Included for each instruction set, so that the compiler writes it in
 * them; FUNCTION has the attribute that names them. No product is contracted into a sum
 * (-ffp-contract=off), so all of them round alike. */

/* 1.5 * 2 ** 23: a float32 that this is added to is rounded to an integer, in the lowest bits. */
#define TO_INTEGER 12582912.0f

/* SiLU, x / (1 + exp(-x)), to some 1e-7 of it; exp is a polynomial between powers of two. It is
 * taken of -|x|, and limited as an integer: a choice between floats becomes a second quotient,
 * whose results are denormal, and those take a hundred cycles.
 * Source of the coefficients: Cephes, expf.c. */
FUNCTION static inline float NAME(silu)(float x) {
    const uint32_t magnitude = bits_of(x) & 0x7fffffff, most = 0x42ae0000; /* 87.0f */
    const float power = -float_of(magnitude < most ? magnitude : most);
    const float rounded = power * 1.44269504f + TO_INTEGER, whole = rounded - TO_INTEGER;
    const float rest = (power - whole * 0.693359375f) - whole * -2.12194440e-4f;
    float sum = 1.9875691500e-4f;
    sum = sum * rest + 1.3981999507e-3f;
    sum = sum * rest + 8.3334519073e-3f;
    sum = sum * rest + 4.1665795894e-2f;
    sum = sum * rest + 1.6666665459e-1f;
    sum = sum * rest + 5.0000001201e-1f;
    sum = sum * (rest * rest) + rest + 1.0f;
    const float exp = sum * float_of((bits_of(rounded) - bits_of(TO_INTEGER) + 127) << 23);
    return (x < 0 ? x * exp : x) / (1.0f + exp);
}

FUNCTION static inline uint16_t NAME(narrow)(float value) {
    const uint32_t bits = bits_of(value);
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16; /* ties to even */
    return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
}

FUNCTION static void NAME(store)(const float *sums, void *output, int64_t count, int is_bfloat16) {
    if (!is_bfloat16) {
        memcpy(output, sums, (size_t)count * sizeof *sums);
        return;
    }
    uint16_t narrow[2 * BLOCK];
    for (int i = 0; i < 2 * BLOCK; i++) narrow[i] = NAME(narrow)(sums[i]);
    memcpy(output, narrow, (size_t)count * sizeof *narrow);
}

FUNCTION static void NAME(store_gated)(const float *sums, void *output, int64_t count,
                                       int is_bfloat16) {
    float products[2 * BLOCK] = {0};
    for (int i = 0; i < BLOCK; i++) products[i] = NAME(silu)(sums[i]) * sums[BLOCK + i];
    NAME(store)(products, output, count, is_bfloat16);
}
