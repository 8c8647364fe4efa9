#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gradientd/client.h"
#include "random.h"
#include "stress.h"

enum {
    GROUPS_MAX = 5,
    SHADOWS = 2,
    ELEMENTS_MIN = 10,
    ELEMENTS_MAX = 1200000,       // several threads share a snapshot from half a million on
    SUBMITTED_ELEMENTS = 1500000, // of a run, about
    STEPS_MIN = 3,
    STEPS_MAX = 60,
    TABLE_ELEMENTS = 4096,
    RECORD_BYTES_MAX = 1 << 30,
};

struct stress_spec {
    struct gradientd_group groups[GROUPS_MAX];
    char names[GROUPS_MAX][16];
    uint32_t n_groups;
    struct gradientd_parameter_group rates;
    enum gradientd_rule rule;
    enum gradientd_rule shadows[SHADOWS];
    uint32_t n_shadows;
    enum gradientd_element_type element_type;
    uint32_t max_lag, inflight;
    uint64_t elements;
    int64_t steps;
    uint32_t copy_threads;
    uint8_t table[TABLE_ELEMENTS * sizeof(float)]; // of random elements, which a gradient repeats
};

int stress_fail(const char *format, ...) {
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    fprintf(stderr, "stress: %s\n", line);
    return -1;
}

static size_t element_bytes(const struct stress_spec *spec) {
    return spec->element_type == GRADIENTD_F32 ? sizeof(float) : sizeof(uint16_t);
}

// Finite elements of either sign.
static void fill_table(struct stress_spec *spec, uint64_t *random) {
    for (size_t i = 0; i < TABLE_ELEMENTS; i++) {
        uint64_t bits = stress_random(random);
        float value = ldexpf((float)(int32_t)bits, -31 - (int)(bits >> 40 & 7));
        uint32_t single;
        memcpy(&single, &value, sizeof(single));
        uint16_t half = spec->element_type == GRADIENTD_BF16 ? (uint16_t)(single >> 16) : (uint16_t)(bits & 0xb7ff);
        if (spec->element_type == GRADIENTD_F32)
            memcpy(spec->table + i * sizeof(value), &value, sizeof(value));
        else
            memcpy(spec->table + i * sizeof(half), &half, sizeof(half));
    }
}

struct stress_spec *stress_spec_new(uint64_t seed, uint32_t number) {
    static const enum gradientd_element_type types[] = {GRADIENTD_F32, GRADIENTD_F32, GRADIENTD_BF16, GRADIENTD_F16};
    uint64_t random = seed * STRESS_SPECS + number;
    struct stress_spec *spec = calloc(1, sizeof(*spec));
    if (!spec)
        return NULL;
    double share = (double)number / (STRESS_SPECS - 1); // both ends of the range come with every seed
    uint64_t elements = (uint64_t)(ELEMENTS_MIN * pow((double)ELEMENTS_MAX / ELEMENTS_MIN, share));
    spec->n_groups = 1 + stress_random_below(&random, GROUPS_MAX);
    for (uint32_t i = 0; i < spec->n_groups; i++) {
        snprintf(spec->names[i], sizeof(spec->names[i]), "layer%u/weight", i);
        uint64_t numel = elements / spec->n_groups + stress_random_below(&random, 7) + 1;
        spec->groups[i] = (struct gradientd_group){.name = spec->names[i], .numel = numel};
        spec->elements += numel;
    }
    spec->rates = (struct gradientd_parameter_group){.beta2 = 0.99, .eps = 1e-8};
    spec->rule = GRADIENTD_SGD + number % (GRADIENTD_OTHER - GRADIENTD_SGD + 1);
    if (spec->rule == GRADIENTD_ADAM) {
        spec->shadows[spec->n_shadows++] = GRADIENTD_AMSGRAD;
        spec->shadows[spec->n_shadows++] = GRADIENTD_RMSPROP;
    }
    spec->element_type = types[stress_random_below(&random, sizeof(types) / sizeof(types[0]))];
    spec->max_lag = 1 + stress_random_below(&random, 6);
    spec->inflight = 1 + stress_random_below(&random, 4);
    spec->copy_threads = 1 + stress_random_below(&random, 3);
    uint64_t steps = SUBMITTED_ELEMENTS / spec->elements;
    spec->steps = (int64_t)(steps < STEPS_MIN ? STEPS_MIN : steps > STEPS_MAX ? STEPS_MAX : steps);
    fill_table(spec, &random);
    return spec;
}

void stress_spec_free(struct stress_spec *spec) {
    free(spec);
}

int64_t stress_spec_steps(const struct stress_spec *spec) {
    return spec->steps;
}

// All groups, one after the other.
static void fill_gradient(const struct stress_spec *spec, int64_t step, uint8_t *gradient) {
    size_t bytes = spec->elements * element_bytes(spec), table_bytes = TABLE_ELEMENTS * element_bytes(spec);
    size_t from = (size_t)step * 132 % TABLE_ELEMENTS * element_bytes(spec);
    for (size_t at = 0; at < bytes;) {
        size_t part = table_bytes - from < bytes - at ? table_bytes - from : bytes - at;
        memcpy(gradient + at, spec->table + from, part);
        at += part;
        from = 0;
    }
}

static int submit(const struct stress_spec *spec, struct gradientd_run *run, const struct gradientd_step *step,
                  bool in_place, uint8_t *gradient) {
    if (in_place) {
        void *slot = gradientd_acquire(run);
        if (slot)
            fill_gradient(spec, step->step, slot);
        return slot ? gradientd_commit(run, step, NULL) : GRADIENTD_SKIPPED;
    }
    const void *gradients[GROUPS_MAX];
    size_t at = 0;
    fill_gradient(spec, step->step, gradient);
    for (uint32_t i = 0; i < spec->n_groups; i++) {
        gradients[i] = gradient + at;
        at += spec->groups[i].numel * element_bytes(spec);
    }
    return gradientd_submit(run, step, gradients);
}

static void before_step(const struct stress_manner *manner, struct gradientd_run *run, int64_t step) {
    if (manner->before_step)
        manner->before_step(manner->context, run, step);
}

static int submit_all(const struct stress_spec *spec, struct gradientd_run *run, const struct stress_manner *manner) {
    static const double learning_rate = 1e-3;
    int result = GRADIENTD_OK;
    uint8_t *gradient = malloc(spec->elements * element_bytes(spec));
    if (!gradient)
        return stress_fail("no memory for a gradient");
    int64_t first = manner->first ? manner->first : 1, last = manner->last ? manner->last : spec->steps;
    for (int64_t i = first; i <= last && result == GRADIENTD_OK; i++) {
        before_step(manner, run, i);
        struct gradientd_scalar loss = {"train/loss", 1.0f / (float)i};
        struct gradientd_step step = {
            .step = i,
            .learning_rates = &learning_rate,
            .wall_time = 1.7e9 + (double)i,
            .scalars = &loss,
            .n_scalars = 1,
        };
        result = submit(spec, run, &step, manner->in_place, gradient);
    }
    before_step(manner, run, last + 1);
    free(gradient);
    return result;
}

// FNV-1a.
static uint64_t hash_bytes(uint64_t hash, const uint8_t *bytes, size_t n) {
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3;
    return hash;
}

// Reads a record, or what is there of one, into *record, which grows. Returns its bytes, 0 at the end of the file.
static size_t read_record(FILE *file, uint8_t **record) {
    enum { HEAD_BYTES = 12, FOOT_BYTES = 4, LENGTH_BYTES = 8 };
    uint8_t head[HEAD_BYTES] = {0};
    uint64_t length = 0;
    size_t bytes = fread(head, 1, HEAD_BYTES, file);
    for (int i = LENGTH_BYTES - 1; i >= 0; i--)
        length = length << 8 | head[i];
    bool is_whole = bytes == HEAD_BYTES && length < RECORD_BYTES_MAX;
    size_t left = is_whole ? (size_t)length + FOOT_BYTES : 0;
    *record = realloc(*record, HEAD_BYTES + left);
    if (!*record)
        abort();
    memcpy(*record, head, bytes);
    return bytes + fread(*record + bytes, 1, left, file);
}

int stress_hash_file(const char *path, uint64_t *ret_hash) {
    static const char outcome[] = "_hparams_/session_end_info"; // of a run that was closed, and of no other
    uint64_t hash = 0xcbf29ce484222325;
    uint8_t *record = NULL;
    size_t bytes;
    FILE *file = fopen(path, "re");
    if (!file)
        return stress_fail("%s cannot be read", path);
    while ((bytes = read_record(file, &record)) > 0)
        if (!memmem(record, bytes, outcome, sizeof(outcome) - 1))
            hash = hash_bytes(hash, record, bytes);
    free(record);
    fclose(file);
    *ret_hash = hash;
    return 0;
}

static struct gradientd_options describe(const struct stress_place *place, const struct stress_spec *spec,
                                         const struct stress_manner *manner) {
    struct gradientd_options options = gradientd_options_default();
    options.socket = place->socket;
    options.logdir = place->logdir;
    options.run = manner->name;
    options.transport = manner->transport;
    options.groups = spec->groups;
    options.n_groups = spec->n_groups;
    options.parameter_groups = &spec->rates;
    options.n_parameter_groups = 1;
    options.optimizer.rule = spec->rule;
    options.shadow_rules = spec->shadows;
    options.n_shadow_rules = spec->n_shadows;
    options.element_type = spec->element_type;
    options.max_lag = spec->max_lag;
    options.inflight = spec->inflight;
    options.copy_threads = spec->copy_threads;
    options.warn = manner->warn;
    options.first_step = manner->first ? manner->first : 1;
    options.wall_time = 1.7e9;
    options.connect_timeout = options.max_stall = options.close_timeout = 120.0; // nothing is skipped: files compare
    return options;
}

int stress_run(const struct stress_place *place, const struct stress_spec *spec, const struct stress_manner *manner,
               uint64_t *ret_hash) {
    struct gradientd_options options = describe(place, spec, manner);
    struct gradientd_run *run;
    struct gradientd_error error;
    if (gradientd_open(&options, &run, &error) < 0)
        return stress_fail("%s: gradientd_open: %s", manner->name, error.text);
    char *path = strdup(gradientd_event_path(run));
    int submitted = submit_all(spec, run, manner);
    if (submitted != GRADIENTD_OK)
        stress_fail("%s: a submit returned %d: %s", manner->name, submitted, gradientd_last_error(run));
    int closed = gradientd_close(run, GRADIENTD_SUCCESS);
    int result = -1;
    if (closed != GRADIENTD_OK)
        stress_fail("%s: gradientd_close returned %d", manner->name, closed);
    else if (path && submitted == GRADIENTD_OK)
        result = stress_hash_file(path, ret_hash);
    if (path)
        unlink(path);
    free(path);
    return result;
}
