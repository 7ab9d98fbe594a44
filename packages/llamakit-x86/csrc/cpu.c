/* Which instructions the processor has and the system allows. */
#include "product.h"

#ifdef LLAMAKIT_X86
#include <cpuid.h>

/* Which registers the system saves: bit 2 is AVX's, 5 to 7 are AVX-512's, 17 and 18 AMX's. */
static uint32_t saved_registers(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static int has_registers(uint32_t bits) { return (saved_registers() & bits) == bits; }

int llamakit_cpu(void) {
    uint32_t a, b, c, d, a1 = 0, b1, c1, d1;
    if (!__get_cpuid(1, &a1, &b1, &c1, &d1)) return 0;
    const int has_fma = c1 >> 12 & 1, has_xgetbv = c1 >> 27 & 1;
    if (!has_fma || !has_xgetbv || !has_registers(6)) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b >> 5 & 1)) return 0;
    if (a < 1 || !__get_cpuid_count(7, 1, &a1, &b1, &c1, &d1)) a1 = 0;
    int found = HAS_AVX2;
    if (a1 >> 4 & 1) found |= HAS_AVXVNNI;
    const uint32_t foundation = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* F, DQ, BW, VL */
    if ((b & foundation) != foundation || !has_registers(0xe0)) return found;
    found |= HAS_AVX512;
    if (c >> 11 & 1) found |= HAS_AVX512VNNI;
    if (a1 >> 5 & 1) found |= HAS_AVX512BF16;
    const uint32_t tiles = 1u << 22 | 1u << 24; /* AMX-BF16, AMX-TILE */
    if ((d & tiles) == tiles && has_registers(0x60000) && llamakit_amx_works()) found |= HAS_AMX;
    return found;
}
#else
int llamakit_cpu(void) { return 0; }
#endif
