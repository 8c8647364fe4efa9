#include "feed_sides.h"

#include <stdio.h>
#include <stdlib.h>

enum { PROBE_GRADIENTS, PARAMETERS, OUTPUTS };

static const char *const names[FEED_SIDES] = {"probe_gradients", "parameters", "outputs"};
static const size_t element_bytes[] = {
    [GRADIENTD_F32] = 4, [GRADIENTD_BF16] = 2, [GRADIENTD_F16] = 2, [GRADIENTD_F64] = 8};

static _Noreturn void fail(const char *what) {
    fprintf(stderr, "feed: a stream beside the gradient: %s\n", what);
    exit(1);
}

static enum gradientd_element_type type_of(const char *name) {
    static const char *const types[] = {"f32", "bf16", "f16", "f64"};
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (strcmp(types[i], name) == 0)
            return (enum gradientd_element_type)i;
    fail("unknown type");
}

bool feed_sides_parse(struct feed_sides *sides, const char *key, const char *value, struct gradientd_options *options) {
    struct gradientd_stream_options *streams[] = {&options->probe_gradients, &options->parameters, &options->outputs};
    for (size_t i = 0; i < FEED_SIDES; i++) {
        char type[8];
        unsigned stride;
        unsigned long long examples = 0, outputs = 0;
        if (strncmp(key, "start_", 6) == 0 && strcmp(key + 6, names[i]) == 0) {
            sides->has_start[i] = true;
            return true;
        }
        if (strcmp(key, names[i]) != 0)
            continue;
        if (sscanf(value, "%u %7s %llu %llu", &stride, type, &examples, &outputs) != (i == OUTPUTS ? 4 : 2))
            fail(value);
        *streams[i] = (struct gradientd_stream_options){stride, type_of(type)};
        if (i == OUTPUTS) {
            options->output_examples = examples;
            options->outputs_per_example = outputs;
        }
        return true;
    }
    return false;
}

static void *allocate(size_t bytes) {
    void *memory = malloc(bytes);
    if (!memory)
        fail("no memory");
    return memory;
}

static const void **slices_of(const void *elements, size_t bytes_each, const struct gradientd_options *options) {
    const void **slices = allocate(options->n_groups * sizeof(void *));
    const char *at = elements;
    for (size_t group = 0; group < options->n_groups; group++) {
        slices[group] = at;
        at += options->groups[group].numel * bytes_each;
    }
    return slices;
}

static void read_all(void *into, size_t bytes) {
    if (fread(into, 1, bytes, stdin) != bytes)
        fail("input ended in the middle of it");
}

static void read_start(struct feed_sides *sides, size_t side, size_t bytes_each, struct gradientd_options *options) {
    sides->starts[side] = allocate(sides->bytes[side]);
    read_all(sides->starts[side], sides->bytes[side]);
    if (side == PARAMETERS)
        options->start_parameters = sides->start_slices = slices_of(sides->starts[side], bytes_each, options);
    else
        options->start_outputs = sides->starts[side];
}

void feed_sides_init(struct feed_sides *sides, struct gradientd_options *options) {
    const struct gradientd_stream_options *streams[] = {&options->probe_gradients, &options->parameters,
                                                        &options->outputs};
    size_t group_elements = 0;
    for (size_t group = 0; group < options->n_groups; group++)
        group_elements += options->groups[group].numel;
    for (size_t i = 0; i < FEED_SIDES; i++) {
        size_t bytes = element_bytes[streams[i]->element_type];
        if (streams[i]->stride == 0)
            continue;
        sides->bytes[i] =
            bytes * (i == OUTPUTS ? options->output_examples * options->outputs_per_example : group_elements);
        sides->elements[i] = allocate(sides->bytes[i]);
        sides->slices[i] = slices_of(sides->elements[i], bytes, options);
        if (sides->has_start[i])
            read_start(sides, i, bytes, options);
    }
}

void feed_sides_read(struct feed_sides *sides) {
    uint8_t flags[2];
    read_all(flags, sizeof(flags));
    read_all(&sides->model_version, sizeof(sides->model_version));
    sides->has_model_version = flags[1];
    for (size_t i = 0; i < FEED_SIDES; i++) {
        sides->is_there[i] = flags[0] >> i & 1;
        if (sides->is_there[i])
            read_all(sides->elements[i], sides->bytes[i]);
    }
}

void feed_sides_take(struct feed_sides *sides, struct gradientd_step *step) {
    step->probe_gradients = sides->is_there[PROBE_GRADIENTS] ? sides->slices[PROBE_GRADIENTS] : NULL;
    step->parameters = sides->is_there[PARAMETERS] ? sides->slices[PARAMETERS] : NULL;
    step->outputs = sides->is_there[OUTPUTS] ? sides->elements[OUTPUTS] : NULL;
    step->has_model_version = sides->has_model_version;
    step->model_version = sides->model_version;
    sides->has_model_version = false;
    for (size_t i = 0; i < FEED_SIDES; i++)
        sides->is_there[i] = false;
}

void feed_sides_deinit(struct feed_sides *sides) {
    for (size_t i = 0; i < FEED_SIDES; i++) {
        free(sides->elements[i]);
        free(sides->starts[i]);
        free(sides->slices[i]);
    }
    free(sides->start_slices);
}
