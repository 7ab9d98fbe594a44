/* Packs weights into the records of product.h. */
#include "product.h"

/* values: outputs x inputs int8. records: whole blocks and groups; what pads them is zero. */
void llamakit_pack8(const int8_t *values, int64_t outputs, int64_t inputs, uint8_t *records) {
    const int64_t groups = (inputs + GROUP - 1) / GROUP;
    const int64_t blocks = (outputs + BLOCK - 1) / BLOCK;
    memset(records, 128, (size_t)(blocks * groups * RECORD8));
    for (int64_t n = 0; n < outputs; n++) {
        uint8_t *block = records + n / BLOCK * groups * RECORD8 + n % BLOCK * 4;
        for (int64_t k = 0; k < inputs; k++)
            block[k / GROUP * RECORD8 + k % GROUP / 4 * 64 + k % 4] =
                (uint8_t)(values[n * inputs + k] + 128);
    }
}

/* pairs: outputs x inputs / 2, the even input in the low half. scales: outputs x groups x 2
 * bfloat16, the step and the middle. inputs: whole groups. */
void llamakit_pack4(const uint8_t *pairs, const uint16_t *scales, int64_t outputs, int64_t inputs,
                    uint8_t *records) {
    const int64_t groups = inputs / GROUP, blocks = (outputs + BLOCK - 1) / BLOCK;
    memset(records, 0, (size_t)(blocks * groups * RECORD4));
    for (int64_t n = 0; n < outputs; n++)
        for (int64_t group = 0; group < groups; group++) {
            uint8_t *record = records + (n / BLOCK * groups + group) * RECORD4;
            uint8_t *values = record + n % BLOCK * 4;
            for (int k = 0; k < GROUP; k++) {
                const uint8_t pair = pairs[(n * inputs + group * GROUP + k) / 2];
                const uint8_t value = k % 2 ? pair >> 4 : pair & 15;
                values[k % 16 / 4 * 64 + k % 4] |= (uint8_t)(k < 16 ? value : value << 4);
            }
            memcpy(record + 256 + n % BLOCK * 4, scales + (n * groups + group) * 2, 4);
        }
}
