/* AVX-512 without bfloat16: weights are widened to float32. Skylake and later. */
#include "bfloat16.h"
#ifdef LLAMAKIT_X86

#define FUNCTION __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma")))
#define NAME(x) avx512_##x
#define LANES 16
#define MOST 8
#define FLOATS __m512
#define INTRINSIC(x) _mm512_##x
#define LOAD(p) _mm512_loadu_si512(p)
#define AS_FLOATS(v) _mm512_castsi512_ps(v)
#define AND(a, b) _mm512_and_si512(a, b)
#include "widened.h"
#include "lanes16.h"
#include "storing.h"

const struct instructions16 llamakit_avx512_16 = {
    "avx512", avx512_multiply16, avx512_store, avx512_store_gated, NULL, NULL, HAS_AVX512, 1};
#endif
