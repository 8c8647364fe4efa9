// What the HParams dashboard is told. The vectors come from TensorBoard's own generated classes.
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hparams.h"
#include "tensorboard.pb-c.h"

#define NONE ((double)NAN)

static const struct gd_hparams no_hparams;
static const struct gd_known_hparams all_known = {
    .rule = GD_RULE_AMSGRAD,
    .learning_rate = 0.5,
    .beta2 = 0.75,
    .eps = 1e-8,
    .batch_size = 32.0,
};

static Tensorboard__HParamsPluginData *start_of(const struct gd_hparams *trainers,
                                                const struct gd_known_hparams *known) {
    size_t bytes = gd_hparams_pack_start(trainers, known, 1700000000.5, NULL);
    uint8_t *content = malloc(bytes);
    cr_assert_not_null(content);
    cr_assert_eq(gd_hparams_pack_start(trainers, known, 1700000000.5, content), bytes);
    Tensorboard__HParamsPluginData *data = tensorboard__hparams_plugin_data__unpack(NULL, bytes, content);
    cr_assert(data && data->session_start_info);
    free(content);
    return data;
}

static void free_data(Tensorboard__HParamsPluginData *data) {
    tensorboard__hparams_plugin_data__free_unpacked(data, NULL);
}

static const Tensorboard__HParamsPluginData__Value *find(const Tensorboard__HParamsPluginData *data, const char *name) {
    const Tensorboard__HParamsPluginData__Value *found = NULL;
    for (size_t i = 0; i < data->session_start_info->n_hparams; i++) {
        if (strcmp(data->session_start_info->hparams[i]->key, name) != 0)
            continue;
        cr_assert_null(found, "%s twice", name);
        found = data->session_start_info->hparams[i]->value;
    }
    return found;
}

static void assert_hex(const uint8_t *bytes, size_t n, const char *expected) {
    char hex[1024];
    cr_assert_lt(2 * n, sizeof(hex));
    for (size_t i = 0; i < n; i++)
        snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
    cr_assert_str_eq(hex, expected);
}

Test(hparams, start_byte_for_byte) {
    struct gd_hparam own[] = {
        {.name = "seed", .number = 7.0},
        {.name = "name", .kind = GD_HPARAM_TEXT, .text = "größe"},
        {.name = "on", .kind = GD_HPARAM_FLAG, .flag = true},
        {.name = "off", .kind = GD_HPARAM_FLAG},
    };
    const struct gd_hparams trainers = {.hparam = own, .n_hparams = 4, .group = "g"};
    const struct gd_known_hparams known = {GD_RULE_ADAM, 0.5, 0.75, 0.0, NONE};
    uint8_t content[512];
    size_t bytes = gd_hparams_pack_start(&trainers, &known, 1700000000.5, content);
    assert_hex(
        content, bytes,
        "1a9e010a130a096f7074696d697a657212061a046164616d0a1a0a0d6c6561726e696e675f72617465120911000000000000e0"
        "3f0a120a056265746132120911000000000000e83f0a100a0365707312091100000000000000000a110a047365656412091100"
        "00000000001c400a110a046e616d6512091a076772c3b6c39f650a080a026f6e120220010a090a036f6666120220002201672900"
        "002040fc54d941");
}

Test(hparams, end_byte_for_byte) {
    uint8_t content[GD_HPARAMS_END_BYTES_MAX];
    assert_hex(content, gd_hparams_pack_end(false, 1700000000.5, content), "220b08011100002040fc54d941");
    assert_hex(content, gd_hparams_pack_end(true, 1700000000.5, content), "220b08021100002040fc54d941");
}

Test(hparams, a_rule_has_the_rates_that_it_uses) {
    static const struct gd_adam_rates rates = {0.5, 0.75, 1e-8};
    for (enum gd_rule rule = GD_RULE_SGD; rule <= GD_RULE_OTHER; rule++) {
        struct gd_known_hparams known = gd_hparams_known(rule, &rates);
        bool has_none = rule == GD_RULE_SGD || rule == GD_RULE_OTHER;
        bool decays =
            rule == GD_RULE_ADAM || rule == GD_RULE_ADAMW || rule == GD_RULE_RMSPROP || rule == GD_RULE_AMSGRAD;
        cr_expect_eq(known.rule, rule);
        cr_expect_eq(known.learning_rate, 0.5);
        cr_expect(decays ? known.beta2 == 0.75 : isnan(known.beta2), "rule %d", (int)rule);
        cr_expect(has_none ? isnan(known.eps) : known.eps == 1e-8, "rule %d", (int)rule);
        cr_expect(isnan(known.batch_size));
    }
}

Test(hparams, what_is_known_is_there) {
    Tensorboard__HParamsPluginData *data = start_of(&no_hparams, &all_known);
    cr_expect_eq(data->session_start_info->n_hparams, 5);
    cr_expect_str_eq(find(data, "optimizer")->string_value, "amsgrad");
    cr_expect_eq(find(data, "learning_rate")->number_value, 0.5);
    cr_expect_eq(find(data, "beta2")->number_value, 0.75);
    cr_expect_eq(find(data, "eps")->number_value, 1e-8);
    cr_expect_eq(find(data, "batch_size")->number_value, 32.0);
    cr_expect_null(data->session_start_info->group_name);
    cr_expect_eq(data->session_start_info->start_time_secs, 1700000000.5);
    free_data(data);
}

Test(hparams, what_the_trainer_says_takes_its_place) {
    static const char *const names[] = {"optimizer", "learning_rate", "beta2", "eps", "batch_size"};
    for (unsigned replaced = 0; replaced < 1 << 5; replaced++) {
        struct gd_hparam own[5];
        struct gd_hparams trainers = {.hparam = own};
        for (unsigned i = 0; i < 5; i++)
            if (replaced >> i & 1)
                own[trainers.n_hparams++] =
                    (struct gd_hparam){.name = names[i], .kind = GD_HPARAM_TEXT, .text = "the trainer's"};
        Tensorboard__HParamsPluginData *data = start_of(&trainers, &all_known);
        cr_expect_eq(data->session_start_info->n_hparams, 5);
        for (unsigned i = 0; i < 5; i++) {
            const Tensorboard__HParamsPluginData__Value *value = find(data, names[i]);
            bool is_text = value->kind_case == TENSORBOARD__HPARAMS_PLUGIN_DATA__VALUE__KIND_STRING_VALUE;
            bool is_trainers = is_text && strcmp(value->string_value, "the trainer's") == 0;
            cr_expect_eq(is_trainers, replaced >> i & 1, "%s of %x", names[i], replaced);
        }
        free_data(data);
    }
}

Test(hparams, the_largest_fits_its_bound) {
    static char names[GRADIENTD_HPARAMS_MAX][GRADIENTD_NAME_BYTES_MAX + 1], text[GRADIENTD_HPARAM_TEXT_BYTES_MAX + 1];
    static struct gd_hparam own[GRADIENTD_HPARAMS_MAX];
    memset(text, 't', sizeof(text) - 1);
    for (int i = 0; i < GRADIENTD_HPARAMS_MAX; i++) {
        snprintf(names[i], sizeof(names[i]), "%0*d", GRADIENTD_NAME_BYTES_MAX, i);
        own[i] = (struct gd_hparam){.name = names[i], .kind = GD_HPARAM_TEXT, .text = text};
    }
    for (uint32_t n = 0; n <= GRADIENTD_HPARAMS_MAX; n += 64) {
        const struct gd_hparams trainers = {.hparam = own, .n_hparams = n, .group = names[0]};
        size_t bound = gd_hparams_start_bytes_max(&trainers);
        for (enum gd_rule rule = GD_RULE_SGD; rule <= GD_RULE_OTHER; rule++) {
            struct gd_known_hparams known = all_known;
            known.rule = rule;
            size_t bytes = gd_hparams_pack_start(&trainers, &known, -1e300, NULL);
            cr_expect(bytes <= bound && bytes + 8 > bound, "rule %d: %zu of %zu", (int)rule, bytes, bound);
        }
        Tensorboard__HParamsPluginData *data = start_of(&trainers, &all_known);
        cr_expect_eq(data->session_start_info->n_hparams, n + 5);
        free_data(data);
    }
}
