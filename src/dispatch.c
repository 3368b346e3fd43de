/* Chooses the kernels of one instruction set at run time. Compiled at the baseline: it must run everywhere.
   __builtin_cpu_supports reads cpuid and asks XGETBV whether the operating system saves the registers. */
#include <string.h>
#include "fastconv.h"

extern const fc_isa fc_isa_baseline;
#ifdef FASTCONV_HAVE_AVX2
extern const fc_isa fc_isa_avx2;
#endif
#ifdef FASTCONV_HAVE_AVX512
extern const fc_isa fc_isa_avx512;
#endif

static const fc_isa *const built[] = {
    &fc_isa_baseline,
#ifdef FASTCONV_HAVE_AVX2
    &fc_isa_avx2,
#endif
#ifdef FASTCONV_HAVE_AVX512
    &fc_isa_avx512,
#endif
};
enum { BUILT = sizeof built / sizeof built[0] };

static int machine_has(const char *name) {
    if (!strcmp(name, "baseline")) return 1;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!strcmp(name, "avx2")) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (!strcmp(name, "avx512"))
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("fma");
#endif
    return 0;
}

const char *fc_isa_built(int index) { return index >= 0 && index < (int)BUILT ? built[index]->name : NULL; }

const fc_isa *fc_isa_select(const char *name) {
    for (int i = 0; i < (int)BUILT; i++)
        if (!strcmp(built[i]->name, name)) return machine_has(name) ? built[i] : NULL;
    return NULL;
}

const fc_isa *fc_isa_best(void) {
    for (int i = (int)BUILT - 1; i > 0; i--)
        if (machine_has(built[i]->name)) return built[i];
    return built[0];
}
