#include "hparams.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "tags.h"
#include "tensorboard.pb-c.h"

enum { KNOWN_MAX = 5 };

// A SessionStartInfo and all that it points to.
struct start_info {
    Tensorboard__HParamsPluginData__SessionStartInfo info;
    Tensorboard__HParamsPluginData__HParam hparams[KNOWN_MAX + GRADIENTD_HPARAMS_MAX];
    Tensorboard__HParamsPluginData__HParam *pointers[KNOWN_MAX + GRADIENTD_HPARAMS_MAX];
    Tensorboard__HParamsPluginData__Value values[KNOWN_MAX + GRADIENTD_HPARAMS_MAX];
};

struct gd_known_hparams gd_hparams_known(enum gd_rule rule, const struct gd_adam_rates *rates) {
    bool has_eps = rule != GD_RULE_SGD && rule != GD_RULE_OTHER;
    bool decays = has_eps && rule != GD_RULE_ADAGRAD && rule != GD_RULE_ADAFOM;
    return (struct gd_known_hparams){
        .rule = rule,
        .learning_rate = rates->learning_rate,
        .beta2 = decays ? rates->beta2 : (double)NAN,
        .eps = has_eps ? rates->eps : (double)NAN,
        .batch_size = (double)NAN,
    };
}

// protobuf-c's structs hold char *, also for messages that are only packed.
static char *borrow(const char *text) {
    return (char *)(uintptr_t)text;
}

// The value is the caller's to fill.
static Tensorboard__HParamsPluginData__Value *add(struct start_info *start, const char *name) {
    size_t index = start->info.n_hparams++;
    Tensorboard__HParamsPluginData__HParam *hparam = start->pointers[index] = &start->hparams[index];
    tensorboard__hparams_plugin_data__hparam__init(hparam);
    hparam->key = borrow(name);
    hparam->value = &start->values[index];
    tensorboard__hparams_plugin_data__value__init(hparam->value);
    return hparam->value;
}

static void add_number(struct start_info *start, const char *name, double number) {
    Tensorboard__HParamsPluginData__Value *value = add(start, name);
    value->kind_case = TENSORBOARD__HPARAMS_PLUGIN_DATA__VALUE__KIND_NUMBER_VALUE;
    value->number_value = number;
}

static void add_text(struct start_info *start, const char *name, const char *text) {
    Tensorboard__HParamsPluginData__Value *value = add(start, name);
    value->kind_case = TENSORBOARD__HPARAMS_PLUGIN_DATA__VALUE__KIND_STRING_VALUE;
    value->string_value = borrow(text);
}

static void add_flag(struct start_info *start, const char *name, bool flag) {
    Tensorboard__HParamsPluginData__Value *value = add(start, name);
    value->kind_case = TENSORBOARD__HPARAMS_PLUGIN_DATA__VALUE__KIND_BOOL_VALUE;
    value->bool_value = flag;
}

static bool trainer_has(const struct gd_hparams *trainers, const char *name) {
    for (uint32_t i = 0; i < trainers->n_hparams; i++)
        if (strcmp(trainers->hparam[i].name, name) == 0)
            return true;
    return false;
}

static void add_known(struct start_info *start, const struct gd_hparams *trainers,
                      const struct gd_known_hparams *known) {
    const struct {
        const char *name;
        double number;
    } numbers[] = {
        {"learning_rate", known->learning_rate},
        {"beta2", known->beta2},
        {"eps", known->eps},
        {"batch_size", known->batch_size},
    };
    _Static_assert(sizeof(numbers) / sizeof(numbers[0]) + 1 == KNOWN_MAX, "the rule and these");
    if (!trainer_has(trainers, "optimizer"))
        add_text(start, "optimizer", gd_rule_name(known->rule));
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        if (!isnan(numbers[i].number) && !trainer_has(trainers, numbers[i].name))
            add_number(start, numbers[i].name, numbers[i].number);
}

static void add_trainers(struct start_info *start, const struct gd_hparams *trainers) {
    for (uint32_t i = 0; i < trainers->n_hparams; i++) {
        const struct gd_hparam *hparam = &trainers->hparam[i];
        if (hparam->kind == GD_HPARAM_TEXT)
            add_text(start, hparam->name, hparam->text);
        else if (hparam->kind == GD_HPARAM_FLAG)
            add_flag(start, hparam->name, hparam->flag);
        else
            add_number(start, hparam->name, hparam->number);
    }
}

static size_t pack(const Tensorboard__HParamsPluginData *data, uint8_t *ret_content) {
    return ret_content ? tensorboard__hparams_plugin_data__pack(data, ret_content)
                       : tensorboard__hparams_plugin_data__get_packed_size(data);
}

size_t gd_hparams_pack_start(const struct gd_hparams *trainers, const struct gd_known_hparams *known, double start_time,
                             uint8_t *ret_content) {
    struct start_info start; // 24 KiB
    Tensorboard__HParamsPluginData data = TENSORBOARD__HPARAMS_PLUGIN_DATA__INIT;

    assert(trainers->n_hparams <= GRADIENTD_HPARAMS_MAX);
    tensorboard__hparams_plugin_data__session_start_info__init(&start.info);
    start.info.hparams = start.pointers;
    add_known(&start, trainers, known);
    add_trainers(&start, trainers);
    start.info.group_name = trainers->group ? borrow(trainers->group) : NULL;
    start.info.has_start_time_secs = true;
    start.info.start_time_secs = start_time;
    data.session_start_info = &start.info;
    return pack(&data, ret_content);
}

size_t gd_hparams_start_bytes_max(const struct gd_hparams *trainers) {
    // All that can be known, and the longest of rules' names; numbers have one size.
    return gd_hparams_pack_start(trainers, &(struct gd_known_hparams){.rule = GD_RULE_AMSGRAD}, 0.0, NULL);
}

size_t gd_hparams_pack_end(bool failed, double end_time, uint8_t ret_content[static GD_HPARAMS_END_BYTES_MAX]) {
    Tensorboard__HParamsPluginData__SessionEndInfo end = TENSORBOARD__HPARAMS_PLUGIN_DATA__SESSION_END_INFO__INIT;
    Tensorboard__HParamsPluginData data = TENSORBOARD__HPARAMS_PLUGIN_DATA__INIT;
    end.has_status = true;
    end.status = failed ? TENSORBOARD__HPARAMS_PLUGIN_DATA__STATUS__STATUS_FAILURE
                        : TENSORBOARD__HPARAMS_PLUGIN_DATA__STATUS__STATUS_SUCCESS;
    end.has_end_time_secs = true;
    end.end_time_secs = end_time;
    data.session_end_info = &end;
    assert(pack(&data, NULL) <= GD_HPARAMS_END_BYTES_MAX);
    return pack(&data, ret_content);
}
