/* AVX-512 with VNNI: Ice Lake and later, Zen 4 and later. */
#include "product.h"
#ifdef LLAMAKIT_X86

#define FUNCTION __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma")))
#define NAME(x) avx512vnni_##x
#define LANES 16
#define TILE 8
#define INTS __m512i
#define FLOATS __m512
#define INTRINSIC(x) _mm512_##x
#define LOAD(p) _mm512_loadu_si512(p)
#define AND(a, b) _mm512_and_si512(a, b)
#define AS_FLOATS(v) _mm512_castsi512_ps(v)
#define START8(offset) _mm512_set1_epi32(offset)
#define DOT8(sums, values, row) _mm512_dpbusd_epi32(sums, values, row)
#define START4(offset) _mm512_set1_epi32(offset)
#define DOT4(sums, values, row) _mm512_dpbusd_epi32(sums, values, row)
#define END4(sums, offset) (sums)

#include "blocks.h"
#include "rounding.h"

const struct instructions llamakit_avx512vnni = {"avx512vnni", avx512vnni_multiply8,
                                                 avx512vnni_multiply4, avx512vnni_round,
                                                 HAS_AVX512VNNI};
#endif
