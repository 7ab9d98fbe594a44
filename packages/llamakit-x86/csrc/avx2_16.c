/* AVX2 with FMA: weights are widened to float32. Haswell and later, Zen and later. */
#include "bfloat16.h"
#ifdef LLAMAKIT_X86

#define FUNCTION __attribute__((target("avx2,fma")))
#define NAME(x) avx2_##x
#define LANES 8
#define MOST 4
#define FLOATS __m256
#define INTRINSIC(x) _mm256_##x
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define AS_FLOATS(v) _mm256_castsi256_ps(v)
#define AND(a, b) _mm256_and_si256(a, b)
#include "widened.h"
#include "lanes16.h"
#include "storing.h"

const struct instructions16 llamakit_avx2_16 = {
    "avx2", avx2_multiply16, avx2_store, avx2_store_gated, NULL, NULL, HAS_AVX2, 1};
#endif
