/* What AVX2 and AVX-VNNI have in common: eight outputs of 32 bits. */
#include <immintrin.h>

#define LANES 8
#define TILE 4
#define INTS __m256i
#define FLOATS __m256
#define ZERO_FLOATS() _mm256_setzero_ps()
#define SAME(value) _mm256_set1_ps(value)
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define STORE(p, v) _mm256_storeu_ps(p, v)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define TIMES(a, b) _mm256_mul_ps(a, b)
#define TO_FLOATS(v) _mm256_cvtepi32_ps(v)
#define FOUR(p) _mm256_set1_epi32(four(p))
#define LOW_HALVES(v) _mm256_and_si256(v, _mm256_set1_epi8(15))
#define HIGH_HALVES(v) _mm256_and_si256(_mm256_srli_epi16(v, 4), _mm256_set1_epi8(15))
#define LOW_BFLOAT16(v) _mm256_castsi256_ps(_mm256_slli_epi32(v, 16))
#define HIGH_BFLOAT16(v) \
    _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32((int)0xffff0000)))

static inline int four(const int8_t *p) {
    int value;
    memcpy(&value, p, 4);
    return value;
}
