/* Whether AMX works: some virtual machines name it and end a process that uses it (SIGILL). */
#define _GNU_SOURCE
#include "bfloat16.h"

#ifdef LLAMAKIT_AMX
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* of arch_prctl */

/* Ones times ones; the exit status of the child. */
static int multiply_ones(void) {
    static uint16_t ones[TILE_ROWS * GROUP];
    for (int i = 0; i < TILE_ROWS * GROUP; i++) ones[i] = 0x3f80;
    const uint8_t *block = (const uint8_t *)ones;
    const struct pass pass = {.values = ones, .groups = 1, .width = TILE_ROWS, .count = TILE_ROWS,
                              .block = {block, block}, .next = {block, block}};
    float out[PASS_ROWS][2 * BLOCK] = {{0}};
    llamakit_amx.begin(TILE_ROWS);
    llamakit_amx.multiply(&pass, out);
    llamakit_amx.end();
    for (int i = 0; i < TILE_ROWS * 2 * BLOCK; i++)
        if (out[i / (2 * BLOCK)][i % (2 * BLOCK)] != GROUP) return 1;
    return 0;
}

/* Ask the system for the registers of tiles, and have a child process multiply in them. */
int llamakit_amx_works(void) {
    if (syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA)) return 0;
    const pid_t child = fork();
    if (child < 0) return 0;
    if (child == 0) {
        const struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGILL, SIG_DFL);
        signal(SIGSEGV, SIG_DFL);
        _exit(multiply_ones());
    }
    int status = 1;
    return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}
#else
int llamakit_amx_works(void) { return 0; }
#endif
