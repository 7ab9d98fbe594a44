/* AVX-VNNI, without AVX-512: Alder Lake and later. */
#include "product.h"
#ifdef LLAMAKIT_AVXVNNI

#define FUNCTION __attribute__((target("avx2,fma,avxvnni")))
#define NAME(x) avxvnni_##x
#include "eight_lanes.h"
#define START8(offset) _mm256_set1_epi32(offset)
#define DOT8(sums, values, row) _mm256_dpbusd_avx_epi32(sums, values, row)
#define START4(offset) _mm256_set1_epi32(offset)
#define DOT4(sums, values, row) _mm256_dpbusd_avx_epi32(sums, values, row)
#define END4(sums, offset) (sums)

#include "blocks.h"
#include "rounding.h"

const struct instructions llamakit_avxvnni = {"avxvnni", avxvnni_multiply8, avxvnni_multiply4,
                                              avxvnni_round, HAS_AVXVNNI};
#endif
