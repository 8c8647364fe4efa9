#include <string.h>

#include "internal.h"

size_t client_element_bytes(enum gradientd_element_type type) {
    return type == GRADIENTD_BF16 || type == GRADIENTD_F16 ? 2 : sizeof(float);
}

// A cast rounds to nearest, ties to even, unless the trainer has changed how its processor rounds.
static void narrow(float *to, const double *from, uint64_t elements) {
    for (uint64_t i = 0; i < elements; i++)
        to[i] = (float)from[i];
}

void client_copy_group(const struct gradientd_run *run, uint8_t *elements, uint32_t group, const void *gradient) {
    const struct client_group *place = &run->groups[group];
    uint8_t *to = elements + place->offset * run->element_bytes;
    if (run->narrows)
        narrow((float *)(void *)to, gradient, place->numel);
    else
        memcpy(to, gradient, place->numel * run->element_bytes);
}
