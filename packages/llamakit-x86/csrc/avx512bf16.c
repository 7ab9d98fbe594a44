/* AVX-512 with bfloat16: Cooper Lake, Sapphire Rapids and later, Zen 4 and later. */
#include "bfloat16.h"
#ifdef LLAMAKIT_BF16

#define FUNCTION __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")))
#define NAME(x) avx512bf16_##x
#define LANES 16
#define MOST 8
#define VALUE uint16_t
#define FLOATS __m512
#define WEIGHTS __m512i
#define LOAD(p) _mm512_loadu_si512(p)
#define LOAD_SUMS(p) _mm512_loadu_ps(p)
#define STORE(p, v) _mm512_storeu_ps(p, v)
#define WIDEN(pairs) (pairs)
#define ADD_PRODUCTS(sums, weights, two)                                                          \
    sums = _mm512_dpbf16_ps(sums, (__m512bh)(weights), (__m512bh)_mm512_set1_epi32(pair_of(two)))

static inline int pair_of(const uint16_t *two) {
    int pair;
    memcpy(&pair, two, 4);
    return pair;
}

#include "lanes16.h"
#include "storing.h"

const struct instructions16 llamakit_avx512bf16 = {
    "avx512bf16", avx512bf16_multiply16, avx512bf16_store, avx512bf16_store_gated,
    NULL, NULL, HAS_AVX512BF16, 0};
#endif
