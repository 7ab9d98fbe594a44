/* What AVX2 and AVX-VNNI have in common: eight outputs of 32 bits. */
#define LANES 8
#define TILE 4
#define INTS __m256i
#define FLOATS __m256
#define INTRINSIC(x) _mm256_##x
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define AND(a, b) _mm256_and_si256(a, b)
#define AS_FLOATS(v) _mm256_castsi256_ps(v)
