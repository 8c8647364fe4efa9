#include <string.h>

#include "internal.h"

size_t client_element_bytes(enum gradientd_element_type type) {
    return type == GRADIENTD_BF16 || type == GRADIENTD_F16 ? 2 : sizeof(float);
}

struct client_vector client_vector_of(enum gradientd_element_type type) {
    return (struct client_vector){
        .element_bytes = client_element_bytes(type),
        .narrows = type == GRADIENTD_F64,
    };
}

static void copy(const struct client_vector *vector, void *to, const void *from, size_t bytes) {
    if (vector->streams)
        client_copy_stream(to, from, bytes);
    else
        memcpy(to, from, bytes);
}

// By way of a buffer that stays in the cache. A cast rounds to nearest, ties to even, unless the trainer has changed
// how its processor rounds.
static void narrow(const struct client_vector *vector, float *to, const double *from, uint64_t elements) {
    enum { BUFFER_ELEMS = 1024 };
    float buffer[BUFFER_ELEMS];

    for (uint64_t first = 0; first < elements; first += BUFFER_ELEMS) {
        size_t n = elements - first < BUFFER_ELEMS ? (size_t)(elements - first) : BUFFER_ELEMS;
        for (size_t i = 0; i < n; i++)
            buffer[i] = (float)from[first + i];
        copy(vector, to + first, buffer, n * sizeof(float));
    }
}

// The group that element `element` of a step belongs to.
static uint32_t group_of(const struct gradientd_run *run, uint64_t element) {
    uint32_t low = 0, high = run->n_groups - 1;
    while (low < high) {
        uint32_t middle = low + (high - low + 1) / 2;
        if (run->groups[middle].offset <= element)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

static void copy_piece(const struct client_vector *vector, uint8_t *to, const uint8_t *from, uint64_t elements) {
    if (vector->narrows)
        narrow(vector, (float *)(void *)to, (const double *)(const void *)from, elements);
    else
        copy(vector, to, from, elements * vector->element_bytes);
}

void client_copy_elements(const struct gradientd_run *run, const struct client_vector *vector, uint8_t *elements,
                          const void *const *gradients, uint64_t first, uint64_t end) {
    size_t source_bytes = vector->narrows ? sizeof(double) : vector->element_bytes;

    for (uint32_t i = group_of(run, first); first < end; i++) {
        const struct client_group *group = &run->groups[i];
        uint64_t group_end = group->offset + group->numel;
        uint64_t n = (end < group_end ? end : group_end) - first;
        const uint8_t *from = gradients[i];
        if (from)
            copy_piece(vector, elements + first * vector->element_bytes, from + (first - group->offset) * source_bytes,
                       n);
        first += n;
    }
    if (vector->streams)
        client_copy_fence();
}

void client_copy_vector(const struct client_vector *vector, uint8_t *to, const void *from, uint64_t elements) {
    copy_piece(vector, to, from, elements);
    if (vector->streams)
        client_copy_fence();
}
