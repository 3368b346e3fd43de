/* Chooses the kernels of one instruction set at run time. Compiled at the baseline: it must run everywhere. */
#include <string.h>
#include "fastconv.h"
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

extern const fc_isa fc_isa_baseline;
#ifdef FASTCONV_HAVE_AVX2
extern const fc_isa fc_isa_avx2;
#endif
#ifdef FASTCONV_HAVE_AVX2_VNNI
void fc_extend_avx2_vnni(fc_isa *isa, fc_kernels compute[FC_COMPUTES]);
#endif
#ifdef FASTCONV_HAVE_NEON_DOTPROD
void fc_extend_neon_dotprod(fc_isa *isa, fc_kernels compute[FC_COMPUTES]);
#endif
#ifdef FASTCONV_HAVE_NEON_I8MM
void fc_extend_neon_i8mm(fc_isa *isa, fc_kernels compute[FC_COMPUTES]);
#endif
#ifdef FASTCONV_HAVE_AVX512
extern const fc_isa fc_isa_avx512;
#endif
#ifdef FASTCONV_HAVE_AVX512_VNNI
void fc_extend_avx512_vnni(fc_isa *isa, fc_kernels compute[FC_COMPUTES]);
#endif
#ifdef FASTCONV_HAVE_AVX512_BF16
void fc_extend_avx512_bf16(fc_isa *isa, fc_kernels compute[FC_COMPUTES]);
#endif

/* Plainest first. A set has a table of its own, or extends that of one before it. */
static const struct { const char *name; const fc_isa *own; const char *parent; fc_extend extend; } built[] = {
    {"baseline", &fc_isa_baseline, NULL, NULL},
#ifdef FASTCONV_HAVE_NEON_DOTPROD
    {"neon_dotprod", NULL, "baseline", fc_extend_neon_dotprod},
#endif
#ifdef FASTCONV_HAVE_NEON_I8MM
    {"neon_i8mm", NULL, "neon_dotprod", fc_extend_neon_i8mm},
#endif
#ifdef FASTCONV_HAVE_AVX2
    {"avx2", &fc_isa_avx2, NULL, NULL},
#endif
#ifdef FASTCONV_HAVE_AVX2_VNNI
    {"avx2_vnni", NULL, "avx2", fc_extend_avx2_vnni},
#endif
#ifdef FASTCONV_HAVE_AVX512
    {"avx512", &fc_isa_avx512, NULL, NULL},
#endif
#ifdef FASTCONV_HAVE_AVX512_VNNI
    {"avx512_vnni", NULL, "avx512", fc_extend_avx512_vnni},
#endif
#ifdef FASTCONV_HAVE_AVX512_BF16
    {"avx512_bf16", NULL, "avx512_vnni", fc_extend_avx512_bf16},
#endif
};
enum { BUILT = sizeof built / sizeof built[0] };

/* Tables of the sets that extend another, made when the module is loaded. */
static struct { fc_isa isa; fc_kernels compute[FC_COMPUTES]; } extended[BUILT];

static int number(const char *name) {
    int i = 0;
    while (i < (int)BUILT && strcmp(built[i].name, name)) i++;
    return i;
}

static const fc_isa *table(int i) { return built[i].own ? built[i].own : &extended[i].isa; }

/* The parent's table, then the set's own kernels. */
static void make(int i) {
    fc_isa *isa = &extended[i].isa;
    *isa = *table(number(built[i].parent));
    isa->name = built[i].name;
    for (int c = 0; c < FC_COMPUTES; c++)
        if (isa->compute[c]) {
            extended[i].compute[c] = *isa->compute[c];
            isa->compute[c] = &extended[i].compute[c];
        }
    built[i].extend(isa, extended[i].compute);
}

#if defined(__x86_64__)
/* Asked of the processor itself: what __builtin_cpu_supports reads is in no library that clang-cl links. Bits as in
   Intel's Software Developer's Manual, volume 2, CPUID, and volume 1, section 13.3 (XCR0). */
enum {
    LEAF_1_ECX = 1 << 12 | 1 << 27 | 1 << 28 | 1 << 29, /* FMA, XGETBV may be asked, AVX, F16C */
    AVX2 = 1 << 5,
    AVX_VNNI = 1 << 4,                                  /* in EAX of leaf 7, subleaf 1 */
    AVX512_BF16 = 1 << 5,                               /* likewise */
    XMM_YMM = 1 << 1 | 1 << 2,
    OPMASK_ZMM = 1 << 5 | 1 << 6 | 1 << 7
};
static const unsigned AVX512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* F, DQ, BW, VL */
static const unsigned AVX512_VNNI = 1u << 11;                             /* in ECX */

static int ask_processor(unsigned leaf_7_ebx, unsigned leaf_7_ecx, unsigned leaf_7_1_eax, unsigned saved) {
    unsigned a, b, c, d, xcr0, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & LEAF_1_ECX) != LEAF_1_ECX) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (b & leaf_7_ebx) != leaf_7_ebx) return 0;
    if ((c & leaf_7_ecx) != leaf_7_ecx) return 0;
    if (leaf_7_1_eax && (!a || !__get_cpuid_count(7, 1, &a, &b, &c, &d) || (a & leaf_7_1_eax) != leaf_7_1_eax)) return 0;
    __asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0)); /* the registers that the system saves */
    return (xcr0 & saved) == saved;
}

/* Every call names its instruction set, and a virtual machine stops at CPUID for tens of microseconds: asked once.
   Threads that ask at the same time find the same. */
static int processor_has(int *known, unsigned leaf_7_ebx, unsigned leaf_7_ecx, unsigned leaf_7_1_eax, unsigned saved) {
    enum { UNKNOWN, ABSENT, PRESENT };
    int found = __atomic_load_n(known, __ATOMIC_RELAXED);
    if (found == UNKNOWN) {
        found = ask_processor(leaf_7_ebx, leaf_7_ecx, leaf_7_1_eax, saved) ? PRESENT : ABSENT;
        __atomic_store_n(known, found, __ATOMIC_RELAXED);
    }
    return found == PRESENT;
}
#elif defined(__aarch64__)
/* Linux says it in a word (Documentation/arch/arm64/elf_hwcaps.rst), Apple by the names of features. */
static int system_says(int word, unsigned long bit, const char *feature) {
#if defined(__linux__)
    (void)feature;
    return (getauxval(word) & bit) != 0;
#elif defined(__APPLE__)
    int found = 0;
    size_t size = sizeof found;
    (void)word, (void)bit;
    return !sysctlbyname(feature, &found, &size, NULL, 0) && found;
#else
    (void)word, (void)bit, (void)feature;
    return 0;
#endif
}
#endif

static int machine_has(const char *name) {
    if (!strcmp(name, "baseline")) return 1;
#if defined(__x86_64__)
    static int avx2, avx2_vnni, avx512, avx512_vnni, avx512_bf16;
    const unsigned wide = XMM_YMM | OPMASK_ZMM;
    if (!strcmp(name, "avx2")) return processor_has(&avx2, AVX2, 0, 0, XMM_YMM);
#ifdef FASTCONV_EVEX_VNNI
    if (!strcmp(name, "avx2_vnni")) return processor_has(&avx2_vnni, AVX2 | AVX512, AVX512_VNNI, 0, wide);
#else
    if (!strcmp(name, "avx2_vnni")) return processor_has(&avx2_vnni, AVX2, 0, AVX_VNNI, XMM_YMM);
#endif
    if (!strcmp(name, "avx512")) return processor_has(&avx512, AVX2 | AVX512, 0, 0, wide);
    if (!strcmp(name, "avx512_vnni")) return processor_has(&avx512_vnni, AVX2 | AVX512, AVX512_VNNI, 0, wide);
    if (!strcmp(name, "avx512_bf16"))
        return processor_has(&avx512_bf16, AVX2 | AVX512, AVX512_VNNI, AVX512_BF16, wide);
#elif defined(__aarch64__)
    enum { HWCAP = 16, HWCAP2 = 26 }; /* AT_HWCAP and AT_HWCAP2 of the auxiliary vector */
    if (!strcmp(name, "neon_dotprod")) return system_says(HWCAP, 1ul << 20, "hw.optional.arm.FEAT_DotProd");
    if (!strcmp(name, "neon_i8mm")) return system_says(HWCAP2, 1ul << 13, "hw.optional.arm.FEAT_I8MM");
#endif
    return 0;
}

const char *fc_isa_built(int index) { return index >= 0 && index < (int)BUILT ? built[index].name : NULL; }

const fc_isa *fc_isa_select(const char *name) {
    const int i = number(name);
    return i < (int)BUILT && machine_has(name) ? table(i) : NULL;
}

const fc_isa *fc_isa_best(void) {
    int best = 0;
    for (int i = 1; i < (int)BUILT; i++)
        if (machine_has(built[i].name)) {
            if (!built[i].own) make(i);
            best = i;
        }
    return table(best);
}
