/* AVX2 without VNNI. vpmaddubsw adds two products of unsigned by signed bytes in 16 bits and
 * saturates, so the weights of 8 bits go in as magnitudes, up to 128, and their signs to the
 * activations, up to 127: 2 * 128 * 127 fits. Of 4 bits, eight such pairs fit: 8 * 2 * 15 * 127. */
#include "product.h"
#ifdef LLAMAKIT_X86

#define FUNCTION __attribute__((target("avx2,fma")))
#define NAME(x) avx2_##x
#include "eight_lanes.h"
#define ONES _mm256_set1_epi16(1)
#define SIGNED(v) _mm256_xor_si256(v, _mm256_set1_epi8((char)0x80))
#define START8(offset) _mm256_setzero_si256()
#define DOT8(sums, values, row)                                                                   \
    _mm256_add_epi32(                                                                             \
        sums, _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(SIGNED(values)),             \
                                                     _mm256_sign_epi8(row, SIGNED(values))),      \
                                ONES))
#define START4(offset) _mm256_setzero_si256()
#define DOT4(sums, values, row) _mm256_add_epi16(sums, _mm256_maddubs_epi16(values, row))
#define END4(sums, offset) \
    _mm256_add_epi32(_mm256_madd_epi16(sums, ONES), _mm256_set1_epi32(offset))

#include "blocks.h"
#include "rounding.h"

const struct instructions llamakit_avx2 = {"avx2", avx2_multiply8, avx2_multiply4, avx2_round, HAS_AVX2};
#endif
