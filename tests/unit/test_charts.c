// The layout of Custom Scalars, whatever a run shows.
#include <criterion/criterion.h>
#include <ctype.h>
#include <string.h>

#include "charts.h"
#include "shown.h"
#include "tags.h"
#include "tensorboard.pb-c.h"

static Tensorboard__Layout *layout_of(uint32_t shown) {
    static uint8_t bytes[GD_CHARTS_BYTES_MAX];
    size_t used = gd_charts_pack(shown, bytes);
    cr_assert_leq(used, sizeof(bytes));
    cr_assert_eq(gd_charts_pack(shown, NULL), used);
    Tensorboard__Layout *layout = tensorboard__layout__unpack(NULL, used, bytes);
    cr_assert_not_null(layout);
    return layout;
}

static void free_layout(Tensorboard__Layout *layout) {
    tensorboard__layout__free_unpacked(layout, NULL);
}

static const Tensorboard__Layout__Category *category_of(const Tensorboard__Layout *layout, const char *title) {
    for (size_t i = 0; i < layout->n_category; i++)
        if (strcmp(layout->category[i]->title, title) == 0)
            return layout->category[i];
    return NULL;
}

// What the expressions here are made of: literal letters, [a-z]+, \d+ and .+, and the end.
static bool matches(const char *expression, const char *tag) {
    for (; *expression && *expression != '$'; expression++) {
        if (strncmp(expression, "\\d+", 3) == 0 || strncmp(expression, "[a-z]+", 6) == 0) {
            bool digits = *expression == '\\';
            const char *begin = tag;
            while (digits ? isdigit((unsigned char)*tag) : islower((unsigned char)*tag))
                tag++;
            if (tag == begin)
                return false;
            expression += digits ? 2 : 5;
        } else if (strncmp(expression, ".+", 2) == 0) {
            return *tag != '\0';
        } else if (*expression != *tag++) {
            return false;
        }
    }
    return *expression == '$' && *tag == '\0';
}

static bool is_charted(const Tensorboard__Layout *layout, const char *tag) {
    for (size_t i = 0; i < layout->n_category; i++)
        for (size_t j = 0; j < layout->category[i]->n_chart; j++)
            for (size_t k = 0; k < layout->category[i]->chart[j]->multiline->n_tag; k++)
                if (matches(layout->category[i]->chart[j]->multiline->tag[k], tag))
                    return true;
    return false;
}

static void expect_well_formed(const Tensorboard__Layout__Category *category) {
    cr_expect_gt(category->n_chart, 0, "%s", category->title);
    for (size_t i = 0; i < category->n_chart; i++) {
        const Tensorboard__Layout__Chart *chart = category->chart[i];
        cr_expect(*chart->title && chart->multiline && chart->multiline->n_tag > 0, "%s", chart->title);
        for (size_t j = 0; j < i; j++)
            cr_expect_str_neq(chart->title, category->chart[j]->title);
        for (size_t j = 0; j < chart->multiline->n_tag; j++) {
            const char *tag = chart->multiline->tag[j], *dot = strchr(tag, '.');
            cr_expect_eq(tag[strlen(tag) - 1], '$', "%s", tag);
            cr_expect(!dot || dot[1] == '+' || dot[-1] == '\\', "a dot that means any character: %s", tag);
        }
    }
}

Test(charts, every_layout_is_well_formed) {
    for (uint32_t shown = 0; shown <= GD_SHOWN_ALL; shown++) {
        Tensorboard__Layout *layout = layout_of(shown);
        for (size_t i = 0; i < layout->n_category; i++) {
            expect_well_formed(layout->category[i]);
            for (size_t j = 0; j < i; j++)
                cr_expect_str_neq(layout->category[i]->title, layout->category[j]->title);
        }
        free_layout(layout);
    }
}

Test(charts, what_is_read_together_is_there) {
    static const char *const tags[] = {
        "coherence/cosine_lag1",
        "coherence/cosine_lag32",
        "coherence/ratio_lag5",
        "adam/B_over_A",
        "adam/C_over_A",
        "adam/oscillation",
        "noise/B_simple",
        "noise_single/S",
        "fisher/trace",
        "fisher/trace_empirical",
        "gradient/norm",
        "gradient/norm_max",
        "gradient/max_abs",
        "gradient/zero_fraction",
        "gradient/non_finite",
        "function/l2_step",
        "parameters/l2_step",
        "function/l2_from_start",
        "parameters/l2_from_start",
        "shadow_amsgrad/oscillation",
        "shadow_adafom/B_over_A",
        "group_norm/a.weight",
        "group_cosine_lag1/a.weight",
        "adam/rms",
        "function/per_parameter_step",
        "function/per_parameter_from_start",
        "coherence_probe/cosine_lag2",
    };
    Tensorboard__Layout *layout = layout_of(GD_SHOWN_ALL);
    for (size_t i = 0; i < sizeof(tags) / sizeof(*tags); i++)
        cr_expect(is_charted(layout, tags[i]), "%s", tags[i]);
    cr_expect_not(is_charted(layout, "gradient/norm_maximum"));
    cr_expect_not(is_charted(layout, "coherence/cosine_lag"));
    cr_expect_not(is_charted(layout, "a/gradient/norm"));
    free_layout(layout);
}

Test(charts, a_run_has_those_it_can_fill) {
    static const struct {
        const char *tag;
        uint32_t needs;
    } cases[] = {
        {"adam/slope_B_over_A", GD_SHOWN_EFFECTIVE_STEP},
        {"adam/rms", GD_SHOWN_EFFECTIVE_STEP | GD_SHOWN_SECOND_MOMENT},
        {"shadow_adagrad/C_over_A", GD_SHOWN_SHADOWS},
        {"group_norm/a", GD_SHOWN_GROUPS},
        {"coherence_probe/mu", GD_SHOWN_PROBE},
        {"parameters/update_ratio", GD_SHOWN_PARAMETERS},
        {"function/per_parameter_step", GD_SHOWN_OUTPUTS},
        {"gradient/norm", GD_SHOWN_ALWAYS},
    };
    for (uint32_t shown = 0; shown <= GD_SHOWN_ALL; shown++) {
        Tensorboard__Layout *layout = layout_of(shown);
        for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
            cr_expect_eq(is_charted(layout, cases[i].tag), (shown & cases[i].needs) == cases[i].needs, "%s of %x",
                         cases[i].tag, shown);
        cr_expect_eq(is_charted(layout, "function/l2_step"), (shown & (GD_SHOWN_PARAMETERS | GD_SHOWN_OUTPUTS)) != 0,
                     "%x", shown);
        free_layout(layout);
    }
}

Test(charts, what_may_stay_empty_is_closed) {
    Tensorboard__Layout *layout = layout_of(GD_SHOWN_ALL);
    const Tensorboard__Layout__Category *noise = category_of(layout, "Noise scale and Fisher information");
    const Tensorboard__Layout__Category *health = category_of(layout, "Gradient health");
    cr_assert(noise && health);
    cr_expect(noise->closed);
    cr_expect_not(health->has_closed);
    free_layout(layout);
}
