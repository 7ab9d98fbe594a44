/* AVX-512 with VNNI: Ice Lake and later, Zen 4 and later. */
#include "product.h"
#ifdef LLAMAKIT_X86
#include <immintrin.h>

#define FUNCTION __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma")))
#define NAME(x) avx512vnni_##x
#define LANES 16
#define TILE 8
#define INTS __m512i
#define FLOATS __m512
#define ZERO_FLOATS() _mm512_setzero_ps()
#define SAME(value) _mm512_set1_ps(value)
#define LOAD(p) _mm512_loadu_si512(p)
#define STORE(p, v) _mm512_storeu_ps(p, v)
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define TIMES(a, b) _mm512_mul_ps(a, b)
#define TO_FLOATS(v) _mm512_cvtepi32_ps(v)
#define FOUR(p) _mm512_set1_epi32(four(p))
#define START8(offset) _mm512_set1_epi32(offset)
#define DOT8(sums, values, row) _mm512_dpbusd_epi32(sums, values, row)
#define START4(offset) _mm512_set1_epi32(offset)
#define DOT4(sums, values, row) _mm512_dpbusd_epi32(sums, values, row)
#define END4(sums, offset) (sums)
#define LOW_HALVES(v) _mm512_and_si512(v, _mm512_set1_epi8(15))
#define HIGH_HALVES(v) _mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(15))
#define LOW_BFLOAT16(v) _mm512_castsi512_ps(_mm512_slli_epi32(v, 16))
#define HIGH_BFLOAT16(v) \
    _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32((int)0xffff0000)))

static inline int four(const int8_t *p) {
    int value;
    memcpy(&value, p, 4);
    return value;
}

#include "blocks.h"
#include "rounding.h"

const struct instructions llamakit_avx512vnni = {"avx512vnni", avx512vnni_multiply8,
                                                 avx512vnni_multiply4, avx512vnni_round};
#endif
