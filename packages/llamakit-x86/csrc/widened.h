/* Pairs of bfloat16 as two vectors of float32, for instruction sets that multiply no bfloat16. */
#define VALUE float
#define WEIGHTS struct NAME(widened)
#define LOAD_SUMS(p) INTRINSIC(loadu_ps)(p)
#define STORE(p, v) INTRINSIC(storeu_ps)(p, v)
#define WIDEN(pairs)                                                                              \
    (WEIGHTS){AS_FLOATS(INTRINSIC(slli_epi32)(pairs, 16)),                                        \
              AS_FLOATS(AND(pairs, INTRINSIC(set1_epi32)((int)0xffff0000)))}
#define ADD_PRODUCTS(sums, weights, two)                                                          \
    sums = INTRINSIC(fmadd_ps)(INTRINSIC(set1_ps)((two)[0]), (weights).even, sums);               \
    sums = INTRINSIC(fmadd_ps)(INTRINSIC(set1_ps)((two)[1]), (weights).odd, sums)

#include <immintrin.h>

struct NAME(widened) {
    FLOATS even, odd;
};
