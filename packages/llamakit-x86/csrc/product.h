/* Weights of 8 and 4 bits in blocks of 16 outputs, and rows of activations in groups of 32.
 *
 * A record holds one group of 32 inputs of one block of 16 outputs:
 *   8 bits: 8 x 64 bytes. Byte 4 * i + k of part j is the value of output i and input 4 * j + k,
 *           plus 128.
 *   4 bits: 4 x 64 bytes, the same for part j in the low half of each byte and for part j + 4 in
 *           the high half; then for each of the 16 outputs the step and the middle, bfloat16.
 * Records of one block follow one another by group; blocks by output.
 */
#ifndef LLAMAKIT_PRODUCT_H
#define LLAMAKIT_PRODUCT_H

#include <stdint.h>
#include <string.h>

enum { GROUP = 32, BLOCK = 16, RECORD8 = 512, RECORD4 = 320, MOST_ROWS = 8 };

struct weight {
    const uint8_t *records;
    const float *scales; /* 8 bits: of each output, whole blocks of them; 4 bits: NULL */
    int64_t outputs, inputs;
    int32_t bits, instructions;
};

/* Up to MOST_ROWS rows of activations, each group rounded to 8 bits by its own largest value.
 * All arrays are groups x width, so that what is read together lies together. */
struct rows {
    int8_t *values;   /* GROUP each, zeros behind the last input */
    float *steps;     /* NaN where the group had NaN or infinity in it */
    float *weighted;  /* the step times the sum of the values */
    int32_t *offsets; /* the sum times minus the number that stands for a weight of zero */
    int64_t groups, width;
};

/* Multiply `count` rows, from `first` on, by one block. out: rows x BLOCK. */
typedef void (*multiply_block)(const uint8_t *records, const struct rows *x, int64_t first,
                               int64_t count, float out[][BLOCK]);

/* Round one row of `inputs`, float32 or bfloat16; `zero` is what stands for a weight of zero.
 * A row with outliers would lose the values beside them: what rounding leaves of it is rounded
 * again, into `rest`. Returns whether it is such a row. */
typedef int (*round_row)(const void *row, int is_bfloat16, int64_t inputs, int32_t zero,
                         const struct rows *x, const struct rows *rest, int64_t number);

struct instructions {
    const char *name;
    multiply_block multiply8, multiply4;
    round_row round;
    int needs; /* bits of `enum has` */
};

/* What `llamakit_cpu` found. */
enum has {
    HAS_AVX2 = 1,
    HAS_AVXVNNI = 2,
    HAS_AVX512 = 4,
    HAS_AVX512VNNI = 8,
    HAS_AVX512BF16 = 16,
    HAS_AMX = 32
};

int llamakit_cpu(void);
int llamakit_amx_works(void);

extern const struct instructions llamakit_generic;
#if defined(__x86_64__) && defined(__GNUC__)
#define LLAMAKIT_X86 1
extern const struct instructions llamakit_avx2, llamakit_avx512vnni;
#if __GNUC__ >= 11 || __clang_major__ >= 12
#define LLAMAKIT_AVXVNNI 1
extern const struct instructions llamakit_avxvnni;
#endif
#endif

static inline float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static inline uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

#endif
