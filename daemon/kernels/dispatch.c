// Which kernels this process uses.
#include "kernels.h"

#ifdef __x86_64__
#include <cpuid.h>
#endif
#include <errno.h>
#include <string.h>

struct variant {
    const struct gd_kernels *kernels;
    bool (*is_supported)(void); // by this processor and its operating system
};

static bool always(void) {
    return true;
}

#ifdef __x86_64__
static bool has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static bool has_avx2(void) {
    unsigned eax, ebx, ecx, edx; // F16C needs no more of the operating system than AVX2
    return __builtin_cpu_supports("avx2") && __get_cpuid(1, &eax, &ebx, &ecx, &edx) && ecx & bit_F16C;
}

static bool has_sse4(void) {
    return __builtin_cpu_supports("sse4.2");
}
#endif

// Fastest first; the last is supported everywhere.
static const struct variant variants[] = {
#ifdef __x86_64__
    {&gd_kernels_avx512, has_avx512}, {&gd_kernels_avx2, has_avx2}, {&gd_kernels_sse4, has_sse4},
#endif
#ifdef __aarch64__
    {&gd_kernels_neon, always},
#endif
    {&gd_kernels_scalar, always},
};

enum { N_VARIANTS = sizeof(variants) / sizeof(variants[0]) };

int gd_kernels_select(const char *name, const struct gd_kernels **ret_kernels) {
    for (size_t i = 0; i < N_VARIANTS; i++) {
        if (name && strcmp(name, variants[i].kernels->name) != 0)
            continue;
        if (!variants[i].is_supported())
            continue;
        *ret_kernels = variants[i].kernels;
        return 0;
    }
    return -EINVAL;
}

const struct gd_kernels *gd_kernels_variant(size_t index, bool *ret_supported) {
    if (index >= N_VARIANTS)
        return NULL;
    *ret_supported = variants[index].is_supported();
    return variants[index].kernels;
}
