#include "diagnostics/thinning.h"

enum { UNTHINNED_STEPS = 10000 };

int64_t gd_thinning_stride(int64_t step) {
    int64_t stride = 1;
    while (step / stride >= UNTHINNED_STEPS)
        stride *= 10;
    return stride;
}

bool gd_thinning_writes(int64_t before, int64_t step) {
    int64_t stride = gd_thinning_stride(step);
    return before < step / stride * stride;
}
