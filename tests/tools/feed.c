// A trainer for tests: reads the description of a run and its steps from stdin, submits them through the C client.
//
// The description is text, one `key value...` a line, ended by an empty line; see `keys` below. What follows is binary
// and little-endian. With `start_optimizer_step` it begins with the start vectors: the second moment, and for amsgrad
// its maximum, f32, all groups one after the other. Then come records until the end of input:
//
//     u8 'S': i64 step, u64 optimizer_step, f64 wall_time, u8 not_applied, u8 has_beta2_eps, u16 n_scalars,
//             one byte per group (present), f64 learning rate per parameter group,
//             [f64 beta2 per parameter group, f64 eps per parameter group]  if has_beta2_eps,
//             scalars, the elements of the present groups, of `element_type`
//     u8 'N': f64 batch_size, f64 clip_factor, u8 n_squared_norms, each f64 batch_size, f64 value, u8 has_per_group,
//             [f64 per group]                                               what the next 'S' says of its batch
//     u8 'V': i64 step, f64 wall_time, u16 n_scalars, scalars                (gradientd_scalars)
//     u8 'P': streams beside the gradient, for the next 'S', see feed_sides.h
//     scalar: u16 tag_bytes, tag, f32 value
//
// Prints `event PATH`, with `echo 1` a line `step N` once step N is handed over, and `skipped N` at the end. Any other
// result than success ends it with status 1 and a message on stderr.
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "feed_sides.h"
#include "gradientd/client.h"

enum {
    LINE_BYTES = 8192,
    SCALARS_MAX = 1024, // the protocol's limit of user tags
    TAG_BYTES = 256,
    PATTERNS_MAX = 64,
    RULES = 8,
    SQUARED_NORMS_MAX = 64,
    INPUT_BUFFER_BYTES = 1 << 20,
};

enum feed_end {
    FEED_END_CLOSE,   // gradientd_close(SUCCESS)
    FEED_END_EXIT,    // _exit() with the run open
    FEED_END_KILL,    // SIGKILL with the run open
    FEED_END_FAILURE, // gradientd_close(FAILURE)
};

struct feed {
    struct gradientd_options options;
    struct gradientd_group *groups;
    struct gradientd_parameter_group *parameter_groups;
    bool in_place;
    bool echo;
    enum feed_end end;

    struct feed_sides sides;

    struct gradientd_run *run;
    void **gradients; // one per group
    const void **submitted;
    enum gradientd_rule shadow_rules[RULES];
    char *include[PATTERNS_MAX];
    char *exclude[PATTERNS_MAX];
    struct gradientd_hparam *hparams;
    bool starts;
    float **start_vectors[2]; // one per group each
    bool *present;
    double *learning_rates;
    double *beta2;
    double *eps;
    double batch_size, clip_factor; // of the next step
    struct gradientd_squared_norm squared_norms[SQUARED_NORMS_MAX];
    size_t n_squared_norms;
    double *group_norms[SQUARED_NORMS_MAX]; // one per group each
    struct gradientd_scalar scalars[SCALARS_MAX];
    char tags[SCALARS_MAX][TAG_BYTES];
};

static _Noreturn void feed_fail(const char *what, const char *text) {
    fprintf(stderr, "feed: %s: %s\n", what, text);
    exit(1);
}

static void *feed_grow(void *array, size_t elements, size_t element_bytes) {
    void *grown = reallocarray(array, elements ? elements : 1, element_bytes);
    if (!grown)
        feed_fail("memory", strerror(errno));
    return grown;
}

static char *feed_copy(const char *text) {
    char *copy = strdup(text);
    if (!copy)
        feed_fail("memory", strerror(errno));
    return copy;
}

// --- the description

static void feed_parse_group(struct feed *feed, const char *value) {
    char name[TAG_BYTES];
    unsigned long long numel;
    unsigned parameter_group;
    unsigned step_lag;
    if (sscanf(value, "%255s %llu %u %u", name, &numel, &parameter_group, &step_lag) != 4)
        feed_fail("group NAME NUMEL PARAMETER_GROUP STEP_LAG", value);

    size_t i = feed->options.n_groups++;
    feed->groups = feed_grow(feed->groups, i + 1, sizeof(*feed->groups));
    feed->groups[i] = (struct gradientd_group){
        .name = feed_copy(name),
        .numel = numel,
        .parameter_group = parameter_group,
        .step_lag = step_lag,
    };
}

static void feed_parse_parameter_group(struct feed *feed, const char *value) {
    struct gradientd_parameter_group parsed = {0};
    if (sscanf(value, "%lf %lf %lf", &parsed.beta2, &parsed.eps, &parsed.start_learning_rate) < 2)
        feed_fail("parameter_group BETA2 EPS [START_RATE]", value);

    size_t i = feed->options.n_parameter_groups++;
    feed->parameter_groups = feed_grow(feed->parameter_groups, i + 1, sizeof(*feed->parameter_groups));
    feed->parameter_groups[i] = parsed;
}

static int feed_name_index(const char *key, const char *name, const char *const *names, int n_names) {
    for (int i = 0; i < n_names; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    feed_fail(key, name);
}

static enum gradientd_rule feed_rule(const char *key, const char *value) {
    static const char *const rules[RULES] = {"sgd",     "adam",    "adamw",  "rmsprop",
                                             "amsgrad", "adagrad", "adafom", "other"};
    return (enum gradientd_rule)(GRADIENTD_SGD + feed_name_index(key, value, rules, RULES));
}

static void feed_parse_rule(struct feed *feed, const char *value) {
    feed->options.optimizer.rule = feed_rule("rule", value);
}

static void feed_parse_shadow(struct feed *feed, const char *value) {
    if (feed->options.n_shadow_rules == RULES)
        feed_fail("too many", "shadow");
    feed->shadow_rules[feed->options.n_shadow_rules++] = feed_rule("shadow", value);
}

static void feed_parse_element_type(struct feed *feed, const char *value) {
    static const char *const types[] = {"f32", "bf16", "f16", "f64"};
    feed->options.element_type = (enum gradientd_element_type)feed_name_index("element_type", value, types, 4);
}

static void feed_parse_transport(struct feed *feed, const char *value) {
    static const char *const transports[] = {"memory", "raw", "deflated"};
    feed->options.transport = (enum gradientd_transport)feed_name_index("transport", value, transports, 3);
}

static void feed_parse_per_group(struct feed *feed, const char *value) {
    static const char *const choices[] = {"default", "on", "off"};
    feed->options.per_group = (enum gradientd_per_group)feed_name_index("per_group", value, choices, 3);
}

static void feed_add_pattern(const char *key, const char *value, char **patterns, size_t *n_patterns) {
    if (*n_patterns == PATTERNS_MAX)
        feed_fail("too many", key);
    patterns[(*n_patterns)++] = feed_copy(value);
}

static void feed_parse_include(struct feed *feed, const char *value) {
    feed_add_pattern("include", value, feed->include, &feed->options.n_include);
}

static void feed_parse_exclude(struct feed *feed, const char *value) {
    feed_add_pattern("exclude", value, feed->exclude, &feed->options.n_exclude);
}

static void feed_parse_maximum_of(struct feed *feed, const char *value) {
    static const char *const maxima[] = {"default", "raw_then_corrected", "corrected", "uncorrected"};
    feed->options.optimizer.maximum_of = (enum gradientd_maximum_of)feed_name_index("maximum_of", value, maxima, 4);
}

static void feed_parse_bias_correction(struct feed *feed, const char *value) {
    static const char *const choices[] = {"default", "corrected", "none"};
    feed->options.optimizer.bias_correction =
        (enum gradientd_bias_correction)feed_name_index("bias_correction", value, choices, 3);
}

static void feed_parse_end(struct feed *feed, const char *value) {
    static const char *const ends[] = {"close", "exit", "kill", "failure"};
    feed->end = (enum feed_end)feed_name_index("end", value, ends, 4);
}

static void feed_parse_hparam(struct feed *feed, const char *value) {
    static const char *const kinds[] = {"number", "text", "flag"};
    char kind[TAG_BYTES];
    char name[TAG_BYTES];
    int at = 0;
    if (sscanf(value, "%255s %255s%n", kind, name, &at) != 2 || value[at] != ' ')
        feed_fail("hparam KIND NAME VALUE", value);

    size_t i = feed->options.n_hparams++;
    feed->hparams = feed_grow(feed->hparams, i + 1, sizeof(*feed->hparams));
    feed->hparams[i] = (struct gradientd_hparam){
        .name = feed_copy(name),
        .kind = (enum gradientd_hparam_kind)feed_name_index("hparam", kind, kinds, 3),
        .number = strtod(value + at, NULL),
        .text = feed_copy(value + at + 1),
        .flag = strcmp(value + at, " true") == 0,
    };
}

static bool feed_parse_text(struct feed *feed, const char *key, const char *value) {
    const struct {
        const char *key;
        void (*parse)(struct feed *, const char *);
    } keys[] = {
        {"group", feed_parse_group},
        {"parameter_group", feed_parse_parameter_group},
        {"rule", feed_parse_rule},
        {"maximum_of", feed_parse_maximum_of},
        {"bias_correction", feed_parse_bias_correction},
        {"end", feed_parse_end},
        {"shadow", feed_parse_shadow},
        {"element_type", feed_parse_element_type},
        {"transport", feed_parse_transport},
        {"per_group", feed_parse_per_group},
        {"include", feed_parse_include},
        {"exclude", feed_parse_exclude},
        {"hparam", feed_parse_hparam},
    };
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (strcmp(keys[i].key, key) == 0) {
            keys[i].parse(feed, value);
            return true;
        }
    }

    const char **paths[] = {&feed->options.socket, &feed->options.logdir, &feed->options.run,
                            &feed->options.hparams_group};
    const char *const names[] = {"socket", "logdir", "run", "hparams_group"};
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        if (strcmp(names[i], key) == 0) {
            *paths[i] = feed_copy(value);
            return true;
        }
    }
    return false;
}

static bool feed_parse_number(struct feed *feed, const char *key, const char *value) {
    struct gradientd_options *options = &feed->options;
    char *end;
    double number = strtod(value, &end);
    if (end == value || *end != '\0')
        feed_fail(key, value);

    if (strcmp(key, "eps_root") == 0) {
        options->optimizer.eps_root = number;
    } else if (strcmp(key, "initial_accumulator") == 0) {
        options->optimizer.initial_accumulator = number;
    } else if (strcmp(key, "learning_rate_decay") == 0) {
        options->optimizer.learning_rate_decay = number;
    } else if (strcmp(key, "max_lag") == 0) {
        options->max_lag = (uint32_t)number;
    } else if (strcmp(key, "inflight") == 0) {
        options->inflight = (uint32_t)number;
    } else if (strcmp(key, "first_step") == 0) {
        options->first_step = (int64_t)number;
    } else if (strcmp(key, "stride") == 0) {
        options->stride = (uint32_t)number;
    } else if (strcmp(key, "fold_depth") == 0) {
        options->fold_depth = (uint32_t)number;
    } else if (strcmp(key, "start_optimizer_step") == 0) {
        options->start_optimizer_step = (uint64_t)number;
        feed->starts = true;
    } else if (strcmp(key, "wall_time") == 0) {
        options->wall_time = number;
    } else if (strcmp(key, "labels_from_model") == 0) {
        options->labels_from_model = number != 0;
    } else if (strcmp(key, "absent_counts") == 0) {
        options->absent_counts = number != 0;
    } else if (strcmp(key, "no_thinning") == 0) {
        options->no_thinning = number != 0;
    } else if (strcmp(key, "in_place") == 0) {
        feed->in_place = number != 0;
    } else if (strcmp(key, "echo") == 0) {
        feed->echo = number != 0;
    } else {
        return false;
    }
    return true;
}

static void feed_read_description(struct feed *feed) {
    char line[LINE_BYTES];
    while (fgets(line, sizeof(line), stdin)) {
        size_t length = strcspn(line, "\n");
        if (length == 0)
            return;
        line[length] = '\0';
        char *value = strchr(line, ' ');
        if (!value)
            feed_fail("a line without a value", line);
        *value++ = '\0';
        if (!feed_sides_parse(&feed->sides, line, value, &feed->options) && !feed_parse_text(feed, line, value) &&
            !feed_parse_number(feed, line, value))
            feed_fail("unknown key", line);
    }
    feed_fail("description", "input ended before its empty line");
}

// --- the records

static void feed_read(void *into, size_t bytes) {
    if (fread(into, 1, bytes, stdin) != bytes)
        feed_fail("record", "input ended in the middle of it");
}

static void feed_read_scalars(struct feed *feed, uint16_t n_scalars) {
    if (n_scalars > SCALARS_MAX)
        feed_fail("record", "too many scalars");
    for (uint16_t i = 0; i < n_scalars; i++) {
        uint16_t tag_bytes;
        feed_read(&tag_bytes, sizeof(tag_bytes));
        if (tag_bytes >= TAG_BYTES)
            feed_fail("record", "tag too long");
        feed_read(feed->tags[i], tag_bytes);
        feed->tags[i][tag_bytes] = '\0';
        feed->scalars[i].tag = feed->tags[i];
        feed_read(&feed->scalars[i].value, sizeof(float));
    }
}

static void feed_check(const struct feed *feed, const char *call, int result) {
    if (result == GRADIENTD_OK)
        return;
    char what[64];
    snprintf(what, sizeof(what), "%s returned %d", call, result);
    feed_fail(what, gradientd_last_error(feed->run));
}

// Of an element as the records have it.
static size_t feed_element_bytes(const struct feed *feed) {
    static const size_t bytes[] = {[GRADIENTD_F32] = 4, [GRADIENTD_BF16] = 2, [GRADIENTD_F16] = 2, [GRADIENTD_F64] = 8};
    return bytes[feed->options.element_type];
}

static void feed_submit_in_place(struct feed *feed, const struct gradientd_step *step) {
    uint8_t *elements = gradientd_acquire(feed->run);
    if (!elements)
        feed_fail("gradientd_acquire", gradientd_last_error(feed->run));
    for (size_t i = 0; i < feed->options.n_groups; i++) {
        size_t bytes = feed->groups[i].numel * feed_element_bytes(feed);
        if (feed->present[i])
            feed_read(elements, bytes);
        elements += bytes;
    }
    feed_check(feed, "gradientd_commit", gradientd_commit(feed->run, step, feed->present));
}

static void feed_submit_copied(struct feed *feed, const struct gradientd_step *step) {
    for (size_t i = 0; i < feed->options.n_groups; i++) {
        feed->submitted[i] = feed->present[i] ? feed->gradients[i] : NULL;
        if (feed->present[i])
            feed_read(feed->gradients[i], feed->groups[i].numel * feed_element_bytes(feed));
    }
    feed_check(feed, "gradientd_submit", gradientd_submit(feed->run, step, feed->submitted));
}

static void feed_batch(struct feed *feed) {
    uint8_t n, has_per_group;
    feed_read(&feed->batch_size, sizeof(feed->batch_size));
    feed_read(&feed->clip_factor, sizeof(feed->clip_factor));
    feed_read(&n, sizeof(n));
    if (n > SQUARED_NORMS_MAX)
        feed_fail("record", "too many squared norms");
    feed->n_squared_norms = n;
    for (size_t i = 0; i < n; i++) {
        struct gradientd_squared_norm *norm = &feed->squared_norms[i];
        feed_read(&norm->batch_size, sizeof(norm->batch_size));
        feed_read(&norm->value, sizeof(norm->value));
        feed_read(&has_per_group, sizeof(has_per_group));
        norm->per_group = NULL;
        if (!has_per_group)
            continue;
        feed->group_norms[i] = feed_grow(feed->group_norms[i], feed->options.n_groups, sizeof(double));
        feed_read(feed->group_norms[i], feed->options.n_groups * sizeof(double));
        norm->per_group = feed->group_norms[i];
    }
}

static void feed_step(struct feed *feed) {
    struct gradientd_step step = {
        .learning_rates = feed->learning_rates,
        .scalars = feed->scalars,
        .batch_size = feed->batch_size,
        .clip_factor = feed->clip_factor,
        .squared_norms = feed->squared_norms,
        .n_squared_norms = feed->n_squared_norms,
    };
    feed->batch_size = feed->clip_factor = 0.0;
    feed->n_squared_norms = 0;
    uint8_t flags[2];
    uint16_t n_scalars;
    feed_read(&step.step, sizeof(step.step));
    feed_read(&step.optimizer_step, sizeof(step.optimizer_step));
    feed_read(&step.wall_time, sizeof(step.wall_time));
    feed_read(flags, sizeof(flags));
    feed_read(&n_scalars, sizeof(n_scalars));
    step.not_applied = flags[0];
    step.n_scalars = n_scalars;

    for (size_t i = 0; i < feed->options.n_groups; i++) {
        uint8_t present;
        feed_read(&present, sizeof(present));
        feed->present[i] = present != 0;
    }
    size_t per_parameter_group = feed->options.n_parameter_groups * sizeof(double);
    feed_read(feed->learning_rates, per_parameter_group);
    if (flags[1]) {
        feed_read(feed->beta2, per_parameter_group);
        feed_read(feed->eps, per_parameter_group);
        step.beta2 = feed->beta2;
        step.eps = feed->eps;
    }
    feed_read_scalars(feed, n_scalars);
    feed_sides_take(&feed->sides, &step);

    if (feed->in_place) {
        feed_submit_in_place(feed, &step);
    } else {
        feed_submit_copied(feed, &step);
    }
    if (feed->echo)
        printf("step %lld\n", (long long)step.step);
}

static void feed_values(struct feed *feed) {
    int64_t step;
    double wall_time;
    uint16_t n_scalars;
    feed_read(&step, sizeof(step));
    feed_read(&wall_time, sizeof(wall_time));
    feed_read(&n_scalars, sizeof(n_scalars));
    feed_read_scalars(feed, n_scalars);
    feed_check(feed, "gradientd_scalars", gradientd_scalars(feed->run, step, wall_time, feed->scalars, n_scalars));
}

static void feed_read_start_vectors(struct feed *feed) {
    struct gradientd_options *options = &feed->options;
    int n_vectors = options->optimizer.rule == GRADIENTD_AMSGRAD ? 2 : 1;
    for (int vector = 0; vector < n_vectors; vector++) {
        feed->start_vectors[vector] = feed_grow(NULL, options->n_groups, sizeof(float *));
        for (size_t i = 0; i < options->n_groups; i++) {
            feed->start_vectors[vector][i] = feed_grow(NULL, feed->groups[i].numel, sizeof(float));
            feed_read(feed->start_vectors[vector][i], feed->groups[i].numel * sizeof(float));
        }
    }
    options->start_second_moment = (const float *const *)feed->start_vectors[0];
    options->start_second_moment_max = (const float *const *)feed->start_vectors[1];
}

static void feed_free_start_vectors(struct feed *feed) {
    for (int vector = 0; vector < 2; vector++) {
        for (size_t i = 0; feed->start_vectors[vector] && i < feed->options.n_groups; i++)
            free(feed->start_vectors[vector][i]);
        free(feed->start_vectors[vector]);
    }
}

static void feed_open(struct feed *feed) {
    struct gradientd_options *options = &feed->options;
    options->groups = feed->groups;
    options->parameter_groups = feed->parameter_groups;
    options->shadow_rules = feed->shadow_rules;
    options->include = (const char *const *)feed->include;
    options->exclude = (const char *const *)feed->exclude;
    options->hparams = feed->hparams;
    options->connect_timeout = 30;
    options->max_stall = 60; // nothing is skipped, so that what is expected of a file is known
    options->close_timeout = 60;

    feed->gradients = feed_grow(NULL, options->n_groups, sizeof(*feed->gradients));
    feed->submitted = feed_grow(NULL, options->n_groups, sizeof(*feed->submitted));
    feed->present = feed_grow(NULL, options->n_groups, sizeof(*feed->present));
    for (size_t i = 0; i < options->n_groups; i++)
        feed->gradients[i] = feed_grow(NULL, feed->groups[i].numel, feed_element_bytes(feed));
    feed_sides_init(&feed->sides, options);
    feed->learning_rates = feed_grow(NULL, options->n_parameter_groups, sizeof(double));
    feed->beta2 = feed_grow(NULL, options->n_parameter_groups, sizeof(double));
    feed->eps = feed_grow(NULL, options->n_parameter_groups, sizeof(double));

    if (feed->starts)
        feed_read_start_vectors(feed);
    struct gradientd_error error;
    if (gradientd_open(options, &feed->run, &error) < 0)
        feed_fail("gradientd_open", error.text);
    printf("event %s\n", gradientd_event_path(feed->run));
}

static void feed_end(struct feed *feed) {
    printf("skipped %llu\n", (unsigned long long)gradientd_skipped(feed->run));
    if (feed->end == FEED_END_EXIT)
        _exit(0);
    if (feed->end == FEED_END_KILL)
        raise(SIGKILL);
    int result = gradientd_close(feed->run, feed->end == FEED_END_FAILURE ? GRADIENTD_FAILURE : GRADIENTD_SUCCESS);
    feed->run = NULL;
    feed_check(feed, "gradientd_close", result);
}

static void feed_free(struct feed *feed) {
    for (size_t i = 0; i < feed->options.n_groups; i++) {
        free(feed->gradients[i]);
        free((void *)(uintptr_t)feed->groups[i].name);
    }
    for (size_t i = 0; i < PATTERNS_MAX; i++) {
        free(feed->include[i]);
        free(feed->exclude[i]);
    }
    for (size_t i = 0; i < SQUARED_NORMS_MAX; i++)
        free(feed->group_norms[i]);
    for (size_t i = 0; i < feed->options.n_hparams; i++) {
        free((void *)(uintptr_t)feed->hparams[i].name);
        free((void *)(uintptr_t)feed->hparams[i].text);
    }
    free(feed->hparams);
    feed_free_start_vectors(feed);
    feed_sides_deinit(&feed->sides);
    free(feed->gradients);
    free(feed->submitted);
    free(feed->present);
    free(feed->learning_rates);
    free(feed->beta2);
    free(feed->eps);
    free(feed->groups);
    free(feed->parameter_groups);
    free((void *)(uintptr_t)feed->options.socket);
    free((void *)(uintptr_t)feed->options.logdir);
    free((void *)(uintptr_t)feed->options.run);
    free((void *)(uintptr_t)feed->options.hparams_group);
}

int main(void) {
    static struct feed feed;
    feed.options = gradientd_options_default();
    setvbuf(stdout, NULL, _IOLBF, 0); // whoever drives this waits for its lines
    setvbuf(stdin, NULL, _IOFBF, INPUT_BUFFER_BYTES);

    feed_read_description(&feed);
    feed_open(&feed);
    for (int kind = getchar(); kind != EOF; kind = getchar()) {
        if (kind == 'S') {
            feed_step(&feed);
        } else if (kind == 'P') {
            feed_sides_read(&feed.sides);
        } else if (kind == 'N') {
            feed_batch(&feed);
        } else if (kind == 'V') {
            feed_values(&feed);
        } else {
            feed_fail("record", "unknown kind");
        }
    }
    feed_end(&feed);
    feed_free(&feed);
    return 0;
}
