#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../stress/random.h"
#include "crash.h"

enum { TABLE_ELEMENTS = 4096 };

static const double PATIENCE = 120.0;  // seconds a submit waits rather than skip its step: files compare
static const double WALL_TIME = 1.7e9; // of the file's first records

static void draw_groups(struct crash_stream *stream, uint64_t *random, uint64_t elements_min, uint64_t elements_max) {
    static const char *const names[CRASH_GROUPS_MAX] = {"0.weight", "0.bias", "2.weight", "2.bias"};
    double share = (double)stress_random_below(random, 1000) / 1000.0;
    uint64_t elements = (uint64_t)((double)elements_min * pow((double)elements_max / (double)elements_min, share));
    stream->n_groups = 1 + stress_random_below(random, CRASH_GROUPS_MAX);
    for (size_t i = 0; i < stream->n_groups; i++) {
        uint64_t numel = elements / stream->n_groups + stress_random_below(random, 7) + 1;
        stream->groups[i] = (struct gradientd_group){.name = names[i], .numel = numel};
        stream->elements += numel;
    }
}

int crash_stream_init(struct crash_stream *stream, uint64_t seed, uint64_t elements_min, uint64_t elements_max) {
    uint64_t random = seed;
    *stream = (struct crash_stream){.rates = {.beta2 = 0.99, .eps = 1e-8}};
    draw_groups(stream, &random, elements_min, elements_max);
    stream->rule =
        (enum gradientd_rule)(GRADIENTD_SGD + stress_random_below(&random, GRADIENTD_OTHER - GRADIENTD_SGD + 1));
    stream->shadow = stream->rule == GRADIENTD_AMSGRAD ? GRADIENTD_ADAM : GRADIENTD_AMSGRAD;
    stream->has_shadow = stress_random_below(&random, 3) == 0;
    stream->has_start = stream->rule == GRADIENTD_ADAM && stress_random_below(&random, 2) == 0;
    stream->in_place = stress_random_below(&random, 2) == 0;
    stream->max_lag = 1 + stress_random_below(&random, 6);
    stream->inflight = 1 + stress_random_below(&random, 6);
    stream->table = malloc(TABLE_ELEMENTS * sizeof(float));
    stream->gradient = malloc(stream->elements * sizeof(float));
    if (!stream->table || !stream->gradient)
        return crash_fail("no memory for a gradient");
    for (size_t i = 0; i < TABLE_ELEMENTS; i++)
        stream->table[i] = ldexpf((float)stress_random_below(&random, 1 << 24) - (float)(1 << 23), -23);
    return 0;
}

void crash_stream_deinit(struct crash_stream *stream) {
    free(stream->table);
    free(stream->gradient);
}

static void count_warning(void *context, const char *text) {
    struct crash_stream *stream = context;
    (void)text;
    stream->warnings++;
}

int crash_stream_open(struct crash_stream *stream, const char *socket, const char *logdir,
                      struct gradientd_run **ret_run) {
    struct gradientd_options options = gradientd_options_default();
    struct gradientd_error error;
    const float *second_moment[CRASH_GROUPS_MAX] = {0}; // all zeros

    options.socket = socket;
    options.logdir = logdir;
    options.groups = stream->groups;
    options.n_groups = stream->n_groups;
    options.parameter_groups = &stream->rates;
    options.n_parameter_groups = 1;
    options.optimizer.rule = stream->rule;
    options.shadow_rules = &stream->shadow;
    options.n_shadow_rules = stream->has_shadow;
    options.max_lag = stream->max_lag;
    options.inflight = stream->inflight;
    options.wall_time = WALL_TIME;
    options.connect_timeout = options.max_stall = options.close_timeout = PATIENCE;
    options.warn = count_warning;
    options.warn_context = stream;
    if (stream->has_start)
        options.start_second_moment = second_moment;
    return gradientd_open(&options, ret_run, &error) == 0 ? 0 : crash_fail("gradientd_open: %s", error.text);
}

static void fill_gradient(const struct crash_stream *stream, int64_t step, float *gradient) {
    size_t from = (size_t)step * 132 % TABLE_ELEMENTS;
    for (uint64_t at = 0; at < stream->elements;) {
        uint64_t part = TABLE_ELEMENTS - from;
        if (part > stream->elements - at)
            part = stream->elements - at;
        memcpy(gradient + at, stream->table + from, part * sizeof(float));
        at += part;
        from = 0;
    }
    if (step % 97 == 13)
        gradient[0] = NAN;
}

// Of several groups, one is without a gradient now and then.
static bool is_present(const struct crash_stream *stream, size_t group, int64_t step) {
    return stream->n_groups == 1 || group != (size_t)step % 7;
}

int crash_stream_submit(struct crash_stream *stream, struct gradientd_run *run, int64_t step) {
    const double learning_rate = 1e-3 / (double)(1 + step / 1000);
    const struct gradientd_scalar loss = {"train/loss", 1.0f / (float)step};
    const struct gradientd_step described = {
        .step = step,
        .learning_rates = &learning_rate,
        .wall_time = WALL_TIME + (double)step,
        .scalars = &loss,
        .n_scalars = 1,
    };
    float *elements = stream->in_place ? gradientd_acquire(run) : stream->gradient;
    const void *gradients[CRASH_GROUPS_MAX];
    bool present[CRASH_GROUPS_MAX];
    uint64_t at = 0;

    if (!elements)
        return GRADIENTD_DETACHED;
    fill_gradient(stream, step, elements);
    for (size_t i = 0; i < stream->n_groups; i++) {
        present[i] = is_present(stream, i, step);
        gradients[i] = present[i] ? elements + at : NULL;
        at += stream->groups[i].numel;
    }
    return stream->in_place ? gradientd_commit(run, &described, present) : gradientd_submit(run, &described, gradients);
}

int crash_stream_run_alone(struct crash_stream *stream, struct crash_daemon *daemon, int64_t steps, char **ret_path) {
    char logdir[CRASH_PATH_BYTES + 8];
    struct gradientd_run *run;
    int result = GRADIENTD_OK;

    daemon->page->armed = 0;
    snprintf(logdir, sizeof(logdir), "%s/alone", daemon->directory);
    if (crash_stream_open(stream, daemon->socket, logdir, &run) < 0)
        return -1;
    *ret_path = strdup(gradientd_event_path(run));
    for (int64_t step = 1; step <= steps && result == GRADIENTD_OK; step++)
        result = crash_stream_submit(stream, run, step);
    if (gradientd_close(run, GRADIENTD_SUCCESS) == GRADIENTD_OK && result == GRADIENTD_OK)
        return 0;
    free(*ret_path);
    return crash_fail("the undisturbed run was not served");
}
