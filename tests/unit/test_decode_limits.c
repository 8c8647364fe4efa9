// Every limit a field alone can break: just inside it passes, just outside it fails and is named.
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "client_messages.h"

TestSuite(decode_limits, .init = new_arena, .fini = free_arena);

// ---- Limits of OpenRun ----------------------------------------------------------------------------------------------

static void set_run(size_t bytes, size_t component_bytes) {
    for (size_t i = 0; i < bytes; i++)
        m.text[i] = i % (component_bytes + 1) == component_bytes ? '/' : 'x';
    m.text[bytes] = '\0';
}

Test(decode_limits, limits_of_a_runs_name_and_times) {
    ACCEPTED(make_open_run, SET(m.open_run.run[0], '\0'));
    ACCEPTED(make_open_run, set_run(1023, 255));
    ACCEPTED(make_open_run, set_run(255, 255));
    INVALID(make_open_run, "run", "xxx", "1023", set_run(1024, 200));
    INVALID(make_open_run, "run", "xxx", "255", set_run(256, 256));
    INVALID(make_open_run, "run", "\"..\"", "..", strcpy(m.text, ".."));
    INVALID(make_open_run, "run", "\"a/../b\"", "..", strcpy(m.text, "a/../b"));
    INVALID(make_open_run, "run", "\"/a\"", "relative", strcpy(m.text, "/a"));
    INVALID(make_open_run, "run", "\"a b\"", "[A-Za-z0-9._=,+-]", strcpy(m.text, "a b"));
    INVALID(make_open_run, "run", "\"a?b\"", "[A-Za-z0-9._=,+-]", strcpy(m.text, "a\nb"));

    ACCEPTED(make_open_run, SET(m.open_run.wall_time, 0.0));
    ACCEPTED(make_open_run, SET(m.open_run.wall_time, -1e9));
    INVALID(make_open_run, "wall_time", "nan", "finite", SET(m.open_run.wall_time, (double)NAN));
    INVALID(make_open_run, "wall_time", "inf", "finite", SET(m.open_run.wall_time, (double)INFINITY));
    INVALID(make_open_run, "wall_time", "-inf", "finite", SET(m.open_run.wall_time, -(double)INFINITY));
    ACCEPTED(make_open_run, SET(m.open_run.first_step, 0));
    ACCEPTED(make_open_run, SET(m.open_run.first_step, INT64_MAX));
    INVALID(make_open_run, "first_step", "-1", "negative", SET(m.open_run.first_step, -1));
    INVALID(make_open_run, "first_step", "-9223372036854775808", "negative", SET(m.open_run.first_step, INT64_MIN));
}

Test(decode_limits, limits_of_lags_and_streams) {
    ACCEPTED(make_open_run, SET_OPTIONAL(m.open_run, max_lag, 1));
    ACCEPTED(make_open_run, SET_OPTIONAL(m.open_run, max_lag, 32));
    INVALID(make_open_run, "max_lag", "is 0", "1 and 32", SET_OPTIONAL(m.open_run, max_lag, 0));
    INVALID(make_open_run, "max_lag", "is 33", "1 and 32", SET_OPTIONAL(m.open_run, max_lag, 33));
    INVALID(make_open_run, "max_lag", "4294967295", "1 and 32", SET_OPTIONAL(m.open_run, max_lag, UINT32_MAX));
    ACCEPTED(make_open_run, SET_OPTIONAL(m.open_run, inflight, 1));
    ACCEPTED(make_open_run, SET_OPTIONAL(m.open_run, inflight, 64));
    INVALID(make_open_run, "inflight", "is 0", "1 and 64", SET_OPTIONAL(m.open_run, inflight, 0));
    INVALID(make_open_run, "inflight", "is 65", "1 and 64", SET_OPTIONAL(m.open_run, inflight, 65));

    UNSUPPORTED(make_open_run, "streams", "has 0 entries", "no GRADIENT", SET(m.open_run.n_streams, 0));
    UNSUPPORTED(make_open_run, "streams", "has 1 entries", "no GRADIENT",
                SET(m.stream.kind, GRADIENTD__STREAM_KIND__PARAMETERS));
    INVALID(make_open_run, "streams", "kind is 1", "once each", SET(m.open_run.n_streams, 2)); // the same one twice
    INVALID(make_open_run, "streams", "kind is 5", "OUTPUTS (4)",
            SET(m.stream.kind, GRADIENTD__STREAM_KIND__START_SECOND_MOMENT));
    INVALID(make_open_run, "streams", "kind is 99", "OUTPUTS (4)", SET(m.stream.kind, (Gradientd__StreamKind)99));
    ACCEPTED(make_open_run, SET(m.stream.element_type, GRADIENTD__ELEMENT_TYPE__BF16));
    ACCEPTED(make_open_run, SET(m.stream.element_type, GRADIENTD__ELEMENT_TYPE__F16));
    UNSUPPORTED(make_open_run, "element_type", "is 0", "F16", SET(m.stream.element_type, (Gradientd__ElementType)0));
    UNSUPPORTED(make_open_run, "element_type", "is 4", "F16", SET(m.stream.element_type, (Gradientd__ElementType)4));
    UNSUPPORTED(make_open_run, "element_type", "is 77", "F32", SET(m.stream.element_type, (Gradientd__ElementType)77));
    ACCEPTED(make_open_run, SET_OPTIONAL(m.stream, stride, 1));
    ACCEPTED(make_open_run, SET_OPTIONAL(m.stream, stride, UINT32_MAX));
    INVALID(make_open_run, "stride", "is 0", "1 and 4294967295", SET_OPTIONAL(m.stream, stride, 0));
    INVALID(make_open_run, "stride", "4294967296", "4294967295", SET_OPTIONAL(m.stream, stride, UINT32_MAX + 1ull));
    ACCEPTED(make_open_run, SET_OPTIONAL(m.stream, elements, 110));
    INVALID(make_open_run, "elements", "is 109", "110", SET_OPTIONAL(m.stream, elements, 109));
    INVALID(make_open_run, "elements", "is 0", "110", SET_OPTIONAL(m.stream, elements, 0));
}

static void set_rule(int rule, int maximum_of) { // maximum_of 0: not stated
    m.optimizer.rule = (Gradientd__Rule)rule;
    m.optimizer.has_maximum_of = maximum_of != 0;
    m.optimizer.maximum_of = (Gradientd__MaximumOf)maximum_of;
}

Test(decode_limits, limits_of_the_optimizer) {
    for (int rule = 1; rule <= 8; rule++)
        ACCEPTED(make_open_run, set_rule(rule, rule == GRADIENTD__RULE__AMSGRAD));
    INVALID(make_open_run, "rule", "is 0", "1 and 8", set_rule(0, 0));
    INVALID(make_open_run, "rule", "is 9", "1 and 8", set_rule(9, 0));
    INVALID(make_open_run, "rule", "rule is", "1 and 8", set_rule(-1, 0));
    for (int maximum_of = 1; maximum_of <= 3; maximum_of++)
        ACCEPTED(make_open_run, set_rule(GRADIENTD__RULE__AMSGRAD, maximum_of));
    INVALID(make_open_run, "maximum_of", "missing", "must state", set_rule(GRADIENTD__RULE__AMSGRAD, 0));
    INVALID(make_open_run, "maximum_of", "is 4", "1 and 3", set_rule(GRADIENTD__RULE__AMSGRAD, 4));
    INVALID(make_open_run, "maximum_of", "is set", "only amsgrad", set_rule(GRADIENTD__RULE__ADAM, 1));
    ACCEPTED(make_open_run, SET_OPTIONAL(m.optimizer, centred, false));
    UNSUPPORTED(make_open_run, "centred", "is true", "follow it as rule 8, other",
                SET_OPTIONAL(m.optimizer, centred, true));

    ACCEPTED(make_open_run, SET_OPTIONAL(m.optimizer, eps_root, 0.0));
    INVALID(make_open_run, "eps_root", "-1e-08", "not negative", SET_OPTIONAL(m.optimizer, eps_root, -1e-8));
    INVALID(make_open_run, "eps_root", "nan", "finite", SET_OPTIONAL(m.optimizer, eps_root, (double)NAN));
    INVALID(make_open_run, "eps_root", "inf", "finite", SET_OPTIONAL(m.optimizer, eps_root, (double)INFINITY));
    INVALID(make_open_run, "initial_accumulator", "is 0.1", "only adagrad",
            SET_OPTIONAL(m.optimizer, initial_accumulator, 0.1));
    INVALID(make_open_run, "learning_rate_decay", "0.5", "only adagrad",
            SET_OPTIONAL(m.optimizer, learning_rate_decay, 0.5));
    INVALID(make_open_run, "bias_correction", "is set", "only adam", set_rule(GRADIENTD__RULE__OTHER, 0),
            SET_OPTIONAL(m.optimizer, bias_correction, true));
    INVALID(make_open_run, "maximum_of", "is set", "only amsgrad", set_rule(GRADIENTD__RULE__OTHER, 1));
    INVALID(make_open_run, "initial_accumulator", "is 0.1", "only adagrad", set_rule(GRADIENTD__RULE__OTHER, 0),
            SET_OPTIONAL(m.optimizer, initial_accumulator, 0.1));
    ACCEPTED(make_open_run, set_rule(6, 0), SET_OPTIONAL(m.optimizer, initial_accumulator, 0.1));
    INVALID(make_open_run, "initial_accumulator", "-1", "not negative", set_rule(6, 0),
            SET_OPTIONAL(m.optimizer, initial_accumulator, -1.0));
    INVALID(make_open_run, "learning_rate_decay", "nan", "finite", set_rule(6, 0),
            SET_OPTIONAL(m.optimizer, learning_rate_decay, (double)NAN));
}

static void set_hparam_name(size_t n, size_t index, char *name) {
    put_hparams(n);
    m.hparam[index].name = name;
}

// A name or a text of `bytes` bytes of `c`.
static char *long_text(char c, size_t bytes) {
    char *text = m.text + 512; // behind those of make_open_run()
    memset(text, c, bytes);
    text[bytes] = '\0';
    return text;
}

static void set_hparam_text(size_t index, char *text) {
    put_hparams(3);
    m.hparam[index].value_case = GRADIENTD__HPARAM__VALUE_TEXT;
    m.hparam[index].text = text;
}

static void set_hparam_number(double number) {
    put_hparams(2);
    m.hparam[1].number = number;
}

static void set_hparam_nothing(void) {
    put_hparams(2);
    m.hparam[1].value_case = GRADIENTD__HPARAM__VALUE__NOT_SET;
}

Test(decode_limits, limits_of_hyperparameters) {
    ACCEPTED(make_open_run, put_hparams(256));
    INVALID(make_open_run, "hparams", "257 entries", "256", put_hparams(257));
    ACCEPTED(make_open_run, set_hparam_name(2, 1, long_text('x', 255)));
    INVALID(make_open_run, "hparams.name", "hparams[1].name has 256 bytes", "1 to 255",
            set_hparam_name(2, 1, long_text('x', 256)));
    INVALID(make_open_run, "hparams.name", "hparams[0].name has 0 bytes", "1 to 255",
            set_hparam_name(2, 0, strcpy(m.text + 512, "")));
    INVALID(make_open_run, "hparams.name", "hparams[1].name has 2 bytes", "control",
            set_hparam_name(2, 1, strcpy(m.text + 512, "a\n")));
    INVALID(make_open_run, "hparams.name", "hparams[1].name has 1 bytes", "UTF-8",
            set_hparam_name(2, 1, strcpy(m.text + 512, "\xff")));
    INVALID(make_open_run, "hparams.name", "hparams[255].name is that of hparams[3], 3", "once",
            set_hparam_name(256, 255, strcpy(m.text + 512, "3")));
    ACCEPTED(make_open_run, set_hparam_number(-1e308));
    INVALID(make_open_run, "hparams.number", "hparams[1].number is nan", "finite", set_hparam_number((double)NAN));
    INVALID(make_open_run, "hparams.number", "is -inf", "finite", set_hparam_number(-(double)INFINITY));
    INVALID(make_open_run, "hparams.value", "hparams[1] has no value", "number, text and flag", set_hparam_nothing());
    ACCEPTED(make_open_run, set_hparam_text(1, long_text('t', 1023)));
    ACCEPTED(make_open_run, set_hparam_text(2, long_text('t', 0)));
    INVALID(make_open_run, "hparams.text", "hparams[2].text has 1024 bytes", "1023",
            set_hparam_text(2, long_text('t', 1024)));
    INVALID(make_open_run, "hparams.text", "hparams[1].text has 2 bytes", "control",
            set_hparam_text(1, strcpy(m.text + 512, "a\x7f")));
    INVALID(make_open_run, "hparams.text", "hparams[1].text has 1 bytes", "UTF-8",
            set_hparam_text(1, strcpy(m.text + 512, "\xc3")));
    ACCEPTED(make_open_run, SET(m.open_run.hparams_group, long_text('g', 255)));
    INVALID(make_open_run, "hparams_group", "256 bytes", "255", SET(m.open_run.hparams_group, long_text('g', 256)));
    INVALID(make_open_run, "hparams_group", "0 bytes", "1 to 255", SET(m.open_run.hparams_group, long_text('g', 0)));
}

static void set_starts(int rule, size_t n, int first, int second) {
    set_rule(rule, rule == GRADIENTD__RULE__AMSGRAD);
    m.open_run.n_start_streams = n;
    m.start_streams[0] = (Gradientd__StreamKind)first;
    m.start_streams[1] = m.start_streams[2] = (Gradientd__StreamKind)second;
}

Test(decode_limits, limits_of_start_streams) {
    enum { V = GRADIENTD__STREAM_KIND__START_SECOND_MOMENT, MAX = GRADIENTD__STREAM_KIND__START_SECOND_MOMENT_MAX };
    for (int rule = GRADIENTD__RULE__ADAM; rule <= GRADIENTD__RULE__ADAFOM; rule++) {
        if (rule == GRADIENTD__RULE__AMSGRAD)
            continue;
        ACCEPTED(make_open_run, set_starts(rule, 1, V, 0));
        INVALID(make_open_run, "start_streams", "[0] is 6", "1 of", set_starts(rule, 1, MAX, 0));
        INVALID(make_open_run, "start_streams", "[1] is 6", "1 of", set_starts(rule, 2, V, MAX));
        INVALID(make_open_run, "start_streams", "5 twice", "", set_starts(rule, 2, V, V));
    }
    ACCEPTED(make_open_run, set_starts(GRADIENTD__RULE__AMSGRAD, 2, V, MAX));
    ACCEPTED(make_open_run, set_starts(GRADIENTD__RULE__AMSGRAD, 2, MAX, V));
    INVALID(make_open_run, "start_streams", "1 entries", "or none", set_starts(GRADIENTD__RULE__AMSGRAD, 1, V, 0));
    INVALID(make_open_run, "start_streams", "1 entries", "or none", set_starts(GRADIENTD__RULE__AMSGRAD, 1, MAX, 0));
    INVALID(make_open_run, "start_streams", "6 twice", "", set_starts(GRADIENTD__RULE__AMSGRAD, 3, V, MAX));
    INVALID(make_open_run, "start_streams", "[0] is 5", "0 of", set_starts(GRADIENTD__RULE__SGD, 1, V, 0));
    INVALID(make_open_run, "start_streams", "[0] is 5", "0 of", set_starts(GRADIENTD__RULE__OTHER, 1, V, 0));

    INVALID(make_open_run, "start_streams", "[0] is 1,", "", set_starts(GRADIENTD__RULE__ADAM, 1, 1, 0));
    INVALID(make_open_run, "start_streams", "[0] is 0,", "", set_starts(GRADIENTD__RULE__ADAM, 1, 0, 0));
    INVALID(make_open_run, "start_streams", "[0] is 99,", "", set_starts(GRADIENTD__RULE__ADAM, 1, 99, 0));
    INVALID(make_open_run, "start_streams", "[0] is 7", "must then have 3", set_starts(GRADIENTD__RULE__ADAM, 1, 7, 0));
    INVALID(make_open_run, "start_streams", "[1] is 8", "must then have 4", set_starts(GRADIENTD__RULE__ADAM, 2, V, 8));
}

static void set_shadows(int rule, size_t n, int first, int second) {
    set_rule(rule, rule == GRADIENTD__RULE__AMSGRAD);
    m.open_run.n_shadow_rules = n;
    m.shadow_rules[0] = (Gradientd__Rule)first;
    m.shadow_rules[1] = (Gradientd__Rule)second;
}

Test(decode_limits, limits_of_shadow_rules) {
    for (int rule = 1; rule <= 8; rule++) {
        for (int shadow = 1; shadow <= 7; shadow++)
            if (rule == shadow)
                INVALID(make_open_run, "shadow_rules", "[0] is", "the run's own", set_shadows(rule, 1, shadow, 0));
            else
                ACCEPTED(make_open_run, set_shadows(rule, 1, shadow, 0));
        INVALID(make_open_run, "shadow_rules", "is 8", "1 and 7", set_shadows(rule, 1, GRADIENTD__RULE__OTHER, 0));
    }
    ACCEPTED(make_open_run, set_shadows(1, 2, 3, 2));
    INVALID(make_open_run, "shadow_rules", "[1] is 2", "twice", set_shadows(1, 2, 2, 2));
    INVALID(make_open_run, "shadow_rules", "is 0", "1 and 7", set_shadows(1, 1, 0, 0));
    INVALID(make_open_run, "shadow_rules", "is 8", "1 and 7", set_shadows(1, 2, 2, 8));
    INVALID(make_open_run, "shadow_rules", "shadow_rules is", "1 and 7", set_shadows(1, 1, -1, 0));
}

Test(decode_limits, limits_of_a_start_vector) {
    ACCEPTED(make_start_vector, SET(m.start_vector.optimizer_step, 0)); // no step yet: the run compares it
    ACCEPTED(make_start_vector, SET(m.start_vector.optimizer_step, UINT64_MAX));
    for (int kind = 0; kind <= 9; kind++)
        if (kind < 5 || kind > 8)
            INVALID(make_start_vector, "start_streams", "elements.kind is", "one of OpenRun's",
                    SET(m.elements.kind, (Gradientd__StreamKind)kind));
    INVALID(make_start_vector, "streams.inline_bytes", "no slot", "the payload has 0", SET(m.elements.has_slot, false));
    REFUSED(make_start_vector, GD_ERROR_PROTOCOL, "payload_bytes", "is 4", "a slot", SET(m.table_bytes, 4));
}

Test(decode_limits, limits_of_parameter_groups) {
    INVALID(make_open_run, "parameter_groups", "is 0", "1 and 4096", SET(m.open_run.n_parameter_groups, 0));
    ACCEPTED(make_open_run, SET(m.open_run.n_parameter_groups, 4096));
    INVALID(make_open_run, "parameter_groups", "is 4097", "1 and 4096", SET(m.open_run.n_parameter_groups, 4097));
    ACCEPTED(make_open_run, SET(m.parameter_group[1].beta2, 0.0));
    ACCEPTED(make_open_run, SET(m.parameter_group[1].beta2, nextafter(1.0, 0.0)));
    INVALID(make_open_run, "beta2", "[1].beta2 is 1", "below 1", SET(m.parameter_group[1].beta2, 1.0));
    INVALID(make_open_run, "beta2", "-0.1", "at least 0", SET(m.parameter_group[1].beta2, -0.1));
    INVALID(make_open_run, "beta2", "nan", "at least 0", SET(m.parameter_group[0].beta2, (double)NAN));
    ACCEPTED(make_open_run, SET_OPTIONAL(m.parameter_group[1], start_learning_rate, 0.0));
    INVALID(make_open_run, "start_learning_rate", "[1].start_learning_rate is nan", "finite",
            SET_OPTIONAL(m.parameter_group[1], start_learning_rate, (double)NAN));
    INVALID(make_open_run, "start_learning_rate", "inf", "finite",
            SET_OPTIONAL(m.parameter_group[0], start_learning_rate, (double)INFINITY));
    ACCEPTED(make_open_run, SET(m.parameter_group[1].eps, 0.0));
    INVALID(make_open_run, "eps", "[0].eps is -1", "not negative", SET(m.parameter_group[0].eps, -1.0));
    INVALID(make_open_run, "eps", "nan", "finite", SET(m.parameter_group[0].eps, (double)NAN));
    INVALID(make_open_run, "eps", "inf", "finite", SET(m.parameter_group[0].eps, (double)INFINITY));
}

// ---- Which groups are shown -----------------------------------------------------------------------------------------

static void set_patterns(size_t *n_patterns, size_t n, char *text) {
    *n_patterns = n;
    for (size_t i = 0; i < n; i++)
        m.patterns[i] = i + 1 < n ? strcpy(m.text + 512, "*") : text;
}

static char *repeated(char c, size_t n) {
    memset(m.text + 1024, c, n);
    m.text[1024 + n] = '\0';
    return m.text + 1024;
}

static char *text_of(const char *text) {
    return strcpy(m.text + 1024, text);
}

static void limits_of_patterns(const char *field, size_t *n_patterns) {
    ACCEPTED(make_open_run, set_patterns(n_patterns, 64, text_of("*")));
    INVALID(make_open_run, field, "has 65 entries", "limit is 64", set_patterns(n_patterns, 65, text_of("*")));
    ACCEPTED(make_open_run, set_patterns(n_patterns, 1, repeated('x', 255)));
    INVALID(make_open_run, field, "[0] has 256 bytes", "1 to 255", set_patterns(n_patterns, 1, repeated('x', 256)));
    INVALID(make_open_run, field, "[1] has 0 bytes", "1 to 255", set_patterns(n_patterns, 2, text_of("")));
    INVALID(make_open_run, field, "[63] has 2 bytes", "UTF-8", set_patterns(n_patterns, 64, text_of("a\xff")));
    INVALID(make_open_run, field, "[0] has 3 bytes", "control", set_patterns(n_patterns, 1, text_of("a\nb")));
}

Test(decode_limits, limits_of_which_groups_are_shown) {
    limits_of_patterns("include", &m.open_run.n_include);
    limits_of_patterns("exclude", &m.open_run.n_exclude);
    for (int per_group = 0; per_group <= 1; per_group++)
        ACCEPTED(make_open_run, SET_OPTIONAL(m.open_run, per_group, per_group));
    ACCEPTED(make_open_run, SET_OPTIONAL(m.open_run, fold_depth, 1));
    ACCEPTED(make_open_run, SET_OPTIONAL(m.open_run, fold_depth, 255));
    INVALID(make_open_run, "fold_depth", "is 0", "1 and 255", SET_OPTIONAL(m.open_run, fold_depth, 0));
    INVALID(make_open_run, "fold_depth", "is 256", "1 and 255", SET_OPTIONAL(m.open_run, fold_depth, 256));
}

static void name_groups(uint32_t n) {
    m.table_bytes = 0;
    m.open_run.groups = n;
    for (uint32_t i = 0; i < n; i++) {
        char name[16];
        snprintf(name, sizeof(name), "%u.x", i / 2);
        put_group(1, 0, 0, i % 2 ? name : strcat(name, "y"));
    }
}

Test(decode_limits, limits_of_how_many_are_shown) {
    ACCEPTED(make_open_run, name_groups(4097));
    ACCEPTED(make_open_run, name_groups(4097), SET_OPTIONAL(m.open_run, per_group, false));
    ACCEPTED(make_open_run, name_groups(4096), SET_OPTIONAL(m.open_run, per_group, true));
    INVALID(make_open_run, "per_group", "4097 names", "limit is 4096", name_groups(4097),
            SET_OPTIONAL(m.open_run, per_group, true));
    ACCEPTED(make_open_run, name_groups(4097), SET_OPTIONAL(m.open_run, per_group, true),
             SET_OPTIONAL(m.open_run, fold_depth, 1));
    ACCEPTED(make_open_run, name_groups(4097), SET_OPTIONAL(m.open_run, per_group, true),
             set_patterns(&m.open_run.n_exclude, 1, text_of("?.x")));
}

// ---- The group table ------------------------------------------------------------------------------------------------

static void set_groups(uint32_t n, const char *name, uint64_t numel) {
    m.table_bytes = 0;
    m.open_run.groups = n;
    for (uint32_t i = 0; i < n; i++)
        put_group(numel, 0, 0, name);
}

static void set_sizes(uint64_t first, uint64_t second) {
    m.table_bytes = 0;
    put_group(first, 0, 0, "a");
    put_group(second, 0, 0, "b");
}

static void set_name(const char *name, uint8_t bytes) {
    m.table_bytes = 0;
    m.open_run.groups = 1;
    put_group(1, 0, 0, "");
    m.table[16] = bytes;
    memcpy(m.table + 17, name, bytes);
    m.table_bytes += bytes;
}

Test(decode_limits, limits_of_groups) {
    INVALID(make_open_run, "groups", "is 0", "1 and 65536", set_groups(0, "a", 1));
    ACCEPTED(make_open_run, set_groups(1, "a", 1));
    ACCEPTED(make_open_run, set_groups(65536, "a", 1));
    INVALID(make_open_run, "groups", "is 65537", "1 and 65536", set_groups(65537, "a", 1));
    INVALID(make_open_run, "groups", "4294967295", "1 and 65536", SET(m.open_run.groups, UINT32_MAX));

    INVALID(make_open_run, "group.numel", "of group 1 is 0", "at least 1", set_sizes(1, 0));
    ACCEPTED(make_open_run, set_sizes((UINT64_C(1) << 40) - 1, 1));
    INVALID(make_open_run, "group.numel", "of group 1 is 1;", "1099511627776", set_sizes(UINT64_C(1) << 40, 1));
    INVALID(make_open_run, "group.numel", "1099511627777", "1099511627776", set_sizes((UINT64_C(1) << 40) + 1, 1));
    INVALID(make_open_run, "group.numel", "18446744073709551615", "in all", set_sizes(1, UINT64_MAX));
    INVALID(make_open_run, "group.numel", "9223372036854775808", "in all",
            set_sizes(UINT64_C(1) << 63, UINT64_C(1) << 63));

    INVALID(make_open_run, "group.parameter_group", "of group 1 is 2", "there are 2", gd_write_u32le(m.table + 31, 2));
    INVALID(make_open_run, "group.parameter_group", "4294967295", "there are 2",
            gd_write_u32le(m.table + 31, UINT32_MAX));
    ACCEPTED(make_open_run, gd_write_u32le(m.table + 35, UINT32_MAX)); // a step_lag: the run compares it with a step
}

Test(decode_limits, limits_of_group_names) {
    ACCEPTED(make_open_run, set_name("x", 1));
    ACCEPTED(make_open_run, set_name(repeated('x', 255), 255));
    ACCEPTED(make_open_run, set_name("na\xc3\xafve", 6));
    INVALID(make_open_run, "group.name", "has 0 bytes", "1 to 255", set_name("", 0));
    INVALID(make_open_run, "group.name", "has 3 bytes", "control", set_name("a\nb", 3));
    INVALID(make_open_run, "group.name", "has 3 bytes", "control", set_name("a\0b", 3));
    INVALID(make_open_run, "group.name", "has 2 bytes", "UTF-8", set_name("\xc3(", 2));
    INVALID(make_open_run, "group.name", "has 1 bytes", "UTF-8", set_name("\xff", 1));
    INVALID(make_open_run, "group.name", "has 2 bytes", "control", set_name("\xc2\x85", 2));
}

Test(decode_limits, the_table_has_its_entries_and_nothing_else) {
    make_open_run();
    uint32_t whole = m.table_bytes;
    for (uint32_t bytes = 0; bytes < whole; bytes++) {
        char entry[32];
        snprintf(entry, sizeof(entry), "entry %d of 2", bytes < 23 ? 0 : 1); // 17 + strlen("weight")
        INVALID(make_open_run, "groups", "ends inside", entry, SET(m.table_bytes, bytes));
    }
    INVALID(make_open_run, "groups", "1 bytes after", "entry 2", SET(m.table_bytes, whole + 1));
    INVALID(make_open_run, "groups", "44 bytes after", "entry 2", put_group(1, 0, 0, "xxxxx"),
            put_group(1, 0, 0, "xxxxx"));
}

// ---- Limits of submissions ------------------------------------------------------------------------------------------

Test(decode_limits, limits_of_a_snapshot) {
    ACCEPTED(make_snapshot, SET(m.snapshot.step, 0));
    INVALID(make_snapshot, "step", "-1", "negative", SET(m.snapshot.step, -1));
    INVALID(make_snapshot, "wall_time", "nan", "finite", SET(m.snapshot.wall_time, (double)NAN));
    INVALID(make_snapshot, "wall_time", "inf", "finite", SET(m.snapshot.wall_time, (double)INFINITY));
    ACCEPTED(make_snapshot, SET_OPTIONAL(m.snapshot, optimizer_step, 1));
    INVALID(make_snapshot, "optimizer_step", "is 0", "from 1", SET_OPTIONAL(m.snapshot, optimizer_step, 0));

    UNSUPPORTED(make_snapshot, "streams", "has 0 entries", "no GRADIENT", SET(m.snapshot.n_streams, 0));
    INVALID(make_snapshot, "streams", "kind is 1", "once each", SET(m.snapshot.n_streams, 2)); // the same one twice
    UNSUPPORTED(make_snapshot, "streams", "streams", "GRADIENT",
                SET(m.elements.kind, GRADIENTD__STREAM_KIND__PARAMETERS));
    INVALID(make_snapshot, "streams.inline_bytes", "no slot", "the payload has 0", SET(m.elements.has_slot, false));
    INVALID(make_snapshot, "streams.inline_bytes", "inline_bytes 5", "the payload has 4",
            (SET(m.elements.has_slot, false), SET_OPTIONAL(m.elements, inline_bytes, 5), SET(m.table_bytes, 4)));
    INVALID(make_snapshot, "streams.inline_bytes", "slot, ", "inline", SET_OPTIONAL(m.elements, inline_bytes, 4));
    INVALID(make_snapshot, "streams.inline_bytes", "slot, ", "inline", SET_OPTIONAL(m.elements, deflated, true));
    REFUSED(make_snapshot, GD_ERROR_PROTOCOL, "payload_bytes", "is 4", "a slot", SET(m.table_bytes, 4));
    ACCEPTED(make_snapshot,
             (SET(m.elements.has_slot, false), SET_OPTIONAL(m.elements, inline_bytes, 4), SET(m.table_bytes, 4)));

    ACCEPTED(make_snapshot, SET(m.rates[1].learning_rate, 0.0));
    ACCEPTED(make_snapshot, SET(m.rates[1].learning_rate, -0.1));
    INVALID(make_snapshot, "learning_rate", "[1].learning_rate is nan", "finite",
            SET(m.rates[1].learning_rate, (double)NAN));
    INVALID(make_snapshot, "learning_rate", "inf", "finite", SET(m.rates[0].learning_rate, (double)INFINITY));
    ACCEPTED(make_snapshot, SET_OPTIONAL(m.rates[0], beta2, 0.0));
    INVALID(make_snapshot, "beta2", "[0].beta2 is 1", "below 1", SET_OPTIONAL(m.rates[0], beta2, 1.0));
    INVALID(make_snapshot, "beta2", "-0.5", "at least 0", SET_OPTIONAL(m.rates[0], beta2, -0.5));
    INVALID(make_snapshot, "beta2", "nan", "at least 0", SET_OPTIONAL(m.rates[0], beta2, (double)NAN));
    INVALID(make_snapshot, "eps", "[1].eps is -1", "not negative", SET_OPTIONAL(m.rates[1], eps, -1.0));
    INVALID(make_snapshot, "eps", "nan", "finite", SET_OPTIONAL(m.rates[1], eps, (double)NAN));
    INVALID(make_snapshot, "eps", "inf", "finite", SET_OPTIONAL(m.rates[1], eps, (double)INFINITY));
}

Test(decode_limits, limits_of_what_a_snapshot_says_of_its_batch) {
    ACCEPTED(make_snapshot, SET_OPTIONAL(m.snapshot, batch_size, 1e-300));
    ACCEPTED(make_snapshot, SET_OPTIONAL(m.snapshot, batch_size, 1e300));
    INVALID(make_snapshot, "batch_size", "is 0", "above 0", SET_OPTIONAL(m.snapshot, batch_size, 0.0));
    INVALID(make_snapshot, "batch_size", "is -8", "above 0", SET_OPTIONAL(m.snapshot, batch_size, -8.0));
    INVALID(make_snapshot, "batch_size", "is inf", "finite", SET_OPTIONAL(m.snapshot, batch_size, (double)INFINITY));
    INVALID(make_snapshot, "batch_size", "nan", "finite", SET_OPTIONAL(m.snapshot, batch_size, (double)NAN));
    ACCEPTED(make_snapshot, SET_OPTIONAL(m.snapshot, clip_factor, 0.25));
    ACCEPTED(make_snapshot, SET_OPTIONAL(m.snapshot, clip_factor, 4.0));
    INVALID(make_snapshot, "clip_factor", "is 0", "above 0", SET_OPTIONAL(m.snapshot, clip_factor, 0.0));
    INVALID(make_snapshot, "clip_factor", "is -1", "above 0", SET_OPTIONAL(m.snapshot, clip_factor, -1.0));
    INVALID(make_snapshot, "clip_factor", "nan", "finite", SET_OPTIONAL(m.snapshot, clip_factor, (double)NAN));
    INVALID(make_snapshot, "clip_factor", "is inf", "finite", SET_OPTIONAL(m.snapshot, clip_factor, (double)INFINITY));
}

Test(decode_limits, limits_of_squared_norms) {
    ACCEPTED(make_snapshot, put_squared_norms(1, 0));
    ACCEPTED(make_snapshot, put_squared_norms(64, 2));
    INVALID(make_snapshot, "squared_norms", "has 65 entries", "64", put_squared_norms(65, 0));
    INVALID(make_snapshot, "batch_size", "missing", "squared_norms, of which there are 3", put_squared_norms(3, 0),
            SET(m.snapshot.has_batch_size, false));
    ACCEPTED(make_snapshot, put_squared_norms(1, 65536));
    ACCEPTED(make_snapshot, put_squared_norms(64, 1024));
    INVALID(make_snapshot, "squared_norms.per_group", "has 65537 entries", "65536", put_squared_norms(1, 65537));
    INVALID(make_snapshot, "squared_norms.per_group", "has 65600 entries", "65536", put_squared_norms(64, 1025));

    INVALID(make_snapshot, "squared_norms.batch_size", "squared_norms[1].batch_size is 0", "above 0",
            put_squared_norms(2, 0), SET(m.squared_norm[1].batch_size, 0.0));
    INVALID(make_snapshot, "squared_norms.batch_size", "squared_norms[0].batch_size is -inf", "finite",
            put_squared_norms(2, 0), SET(m.squared_norm[0].batch_size, -(double)INFINITY));
    INVALID(make_snapshot, "squared_norms.batch_size", "nan", "finite", put_squared_norms(2, 0),
            SET(m.squared_norm[0].batch_size, (double)NAN));
    INVALID(make_snapshot, "squared_norms.value", "squared_norms[1].value is -1", "not be negative",
            put_squared_norms(2, 0), SET(m.squared_norm[1].value, -1.0));
    ACCEPTED(make_snapshot, put_squared_norms(2, 0), SET(m.squared_norm[1].value, 0.0));
    ACCEPTED(make_snapshot, put_squared_norms(2, 0), SET(m.squared_norm[1].value, (double)INFINITY));
    ACCEPTED(make_snapshot, put_squared_norms(2, 0), SET(m.squared_norm[1].value, (double)NAN));
    INVALID(make_snapshot, "squared_norms.per_group", "squared_norms[0].per_group[3] is -0.5", "not be negative",
            put_squared_norms(2, 4), SET(m.group_norms[3], -0.5));
    ACCEPTED(make_snapshot, put_squared_norms(2, 4), SET(m.group_norms[3], (double)NAN));
}

Test(decode_limits, limits_of_scalars) {
    ACCEPTED(make_snapshot, SET(m.snapshot.n_scalars, 0));
    ACCEPTED(make_snapshot, SET(m.snapshot.n_scalars, 1024));
    INVALID(make_snapshot, "scalars", "1025 entries", "1024", SET(m.snapshot.n_scalars, 1025));
    INVALID(make_snapshot, "scalars.tag", "[0].tag has 0 bytes", "1 to 255", SET(m.text[0], '\0'));
    ACCEPTED(make_snapshot, SET(m.scalar[0].tag, repeated('x', 255)));
    INVALID(make_snapshot, "scalars.tag", "has 256 bytes", "1 to 255", SET(m.scalar[0].tag, repeated('x', 256)));

    ACCEPTED(make_scalars, SET(m.scalars.n_scalars, 0));
    ACCEPTED(make_scalars, SET(m.scalars.n_scalars, 1024));
    INVALID(make_scalars, "scalars", "1025 entries", "1024", SET(m.scalars.n_scalars, 1025));
    INVALID(make_scalars, "scalars.tag", "[1].tag has 4 bytes", "control", SET(m.scalars.n_scalars, 2),
            SET(m.scalar[1].tag, strcpy(m.text + 100, "a\tbc")));
    INVALID(make_scalars, "scalars.tag", "has 2 bytes", "UTF-8", strcpy(m.text, "\xc3("));
    INVALID(make_scalars, "step", "-1", "negative", SET(m.scalars.step, -1));
    INVALID(make_scalars, "wall_time", "nan", "finite", SET(m.scalars.wall_time, (double)NAN));
}

Test(decode_limits, limits_of_close_run) {
    INVALID(make_close_run, "outcome", "is 0", "2 failure", SET(m.close_run.outcome, (Gradientd__Outcome)0));
    INVALID(make_close_run, "outcome", "is 3", "1 is success", SET(m.close_run.outcome, (Gradientd__Outcome)3));
}
