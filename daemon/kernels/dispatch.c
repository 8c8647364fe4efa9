// Which kernels this process uses.
#include "kernels.h"

#include <errno.h>
#include <string.h>

struct variant {
    const struct gd_kernels *kernels;
    bool (*is_supported)(void); // by this machine
};

static bool always(void) {
    return true;
}

// Fastest first; the last is supported everywhere.
static const struct variant variants[] = {
    {&gd_kernels_scalar, always},
};

int gd_kernels_select(const char *name, const struct gd_kernels **ret_kernels) {
    for (size_t i = 0; i < sizeof(variants) / sizeof(variants[0]); i++) {
        if (name && strcmp(name, variants[i].kernels->name) != 0)
            continue;
        if (!variants[i].is_supported())
            continue;
        *ret_kernels = variants[i].kernels;
        return 0;
    }
    return -EINVAL;
}
