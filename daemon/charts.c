#include "charts.h"

#include <assert.h>
#include <stdbool.h>

#include "shown.h"
#include "tensorboard.pb-c.h"

// TensorBoard anchors an expression at a tag's start only. It merges the layouts of all runs and takes charts for one
// where they are equal: so a chart is the same in every run that has it, however many lags and shadow rules there are.
enum { CHART_TAGS_MAX = 3, CATEGORY_CHARTS_MAX = 6 };

struct chart {
    const char *title;
    uint32_t needs; // enum gd_shown: at least one of them; 0: nothing
    const char *tags[CHART_TAGS_MAX];
};

struct category {
    const char *title;
    uint32_t needs;
    bool closed;
    struct chart charts[CATEGORY_CHARTS_MAX];
};

static const struct category categories[] = {
    {"Gradient coherence, by lag",
     GD_SHOWN_ALWAYS,
     false,
     {
         {"Cosine with the gradient m steps ago", GD_SHOWN_ALWAYS, {"coherence/cosine_lag\\d+$"}},
         {"Ratio to the current gradient (the paper's form)", GD_SHOWN_ALWAYS, {"coherence/ratio_lag\\d+$"}},
         {"mu, the least of these ratios", GD_SHOWN_ALWAYS, {"coherence/mu$", "coherence/mu_past$"}},
         {"Tolerable staleness", GD_SHOWN_ALWAYS, {"coherence/tolerable_staleness$"}},
         {"Cosine on the fixed samples", GD_SHOWN_PROBE, {"coherence_probe/cosine_lag\\d+$"}},
         {"mu on the fixed samples", GD_SHOWN_PROBE, {"coherence_probe/mu$", "coherence_probe/mu_past$"}},
     }},
    {"Adam convergence ratios",
     GD_SHOWN_EFFECTIVE_STEP,
     false,
     {
         {"B/A: squared updates to step sizes", GD_SHOWN_ALWAYS, {"adam/B_over_A$"}},
         {"C/A: oscillation of step sizes since the start", GD_SHOWN_ALWAYS, {"adam/C_over_A$"}},
         {"Oscillation over the later half", GD_SHOWN_ALWAYS, {"adam/oscillation$"}},
         {"Slopes of B/A and C/A", GD_SHOWN_ALWAYS, {"adam/slope_B_over_A$", "adam/slope_C_over_A$"}},
         {"Gradient to second moment", GD_SHOWN_SECOND_MOMENT, {"adam/rms$"}},
     }},
    {"What another rule would give",
     GD_SHOWN_SHADOWS,
     false,
     {
         {"B/A, own and others", GD_SHOWN_ALWAYS, {"adam/B_over_A$", "shadow_[a-z]+/B_over_A$"}},
         {"C/A, own and others", GD_SHOWN_ALWAYS, {"adam/C_over_A$", "shadow_[a-z]+/C_over_A$"}},
         {"Oscillation, own and others", GD_SHOWN_ALWAYS, {"adam/oscillation$", "shadow_[a-z]+/oscillation$"}},
     }},
    {"Noise scale and Fisher information",
     GD_SHOWN_ALWAYS,
     true, // has values once the trainer states batch sizes, which it may do at any step
     {
         {"Noise scale, in examples", GD_SHOWN_ALWAYS, {"noise/B_simple$", "noise_single/B_simple$"}},
         {"S, the gradient's variance per example", GD_SHOWN_ALWAYS, {"noise/S$", "noise_single/S$"}},
         {"G2, the squared norm of the true gradient", GD_SHOWN_ALWAYS, {"noise/G2$", "noise_single/G2$"}},
         {"Trace of the Fisher information", GD_SHOWN_ALWAYS, {"fisher/.+$"}},
     }},
    {"Function against parameters",
     GD_SHOWN_PARAMETERS | GD_SHOWN_OUTPUTS,
     false,
     {
         {"Distance of one step", GD_SHOWN_ALWAYS, {"function/l2_step$", "parameters/l2_step$"}},
         {"Distance from the start", GD_SHOWN_ALWAYS, {"function/l2_from_.+$", "parameters/l2_from_.+$"}},
         {"Function distance per parameter distance",
          GD_SHOWN_OUTPUTS,
          {"function/per_parameter_step$", "function/per_parameter_from_.+$"}},
         {"Update to parameters", GD_SHOWN_PARAMETERS, {"parameters/update_ratio$"}},
     }},
    {"Gradient health",
     GD_SHOWN_ALWAYS,
     false,
     {
         {"Norm", GD_SHOWN_ALWAYS, {"gradient/norm$", "gradient/norm_max$"}},
         {"Largest element", GD_SHOWN_ALWAYS, {"gradient/max_abs$"}},
         {"Share of zeros", GD_SHOWN_ALWAYS, {"gradient/zero_fraction$"}},
         {"Elements that are not finite", GD_SHOWN_ALWAYS, {"gradient/non_finite$"}},
     }},
    {"Groups",
     GD_SHOWN_GROUPS,
     true,
     {
         {"Norm of each group", GD_SHOWN_ALWAYS, {"group_norm/.+$"}},
         {"Cosine of each group, lag 1", GD_SHOWN_ALWAYS, {"group_cosine_lag1/.+$"}},
     }},
};

enum { CATEGORIES = sizeof(categories) / sizeof(categories[0]) };

// A category and all that it points to.
struct packed_category {
    Tensorboard__Layout__Category category;
    Tensorboard__Layout__Chart charts[CATEGORY_CHARTS_MAX];
    Tensorboard__Layout__Chart *chart_pointers[CATEGORY_CHARTS_MAX];
    Tensorboard__Layout__MultilineChart multilines[CATEGORY_CHARTS_MAX];
    char *tags[CATEGORY_CHARTS_MAX][CHART_TAGS_MAX];
};

// protobuf-c's structs hold char *, also for messages that are only packed.
static char *borrow(const char *text) {
    return (char *)(uintptr_t)text;
}

static bool is_shown(uint32_t needs, uint32_t shown) {
    return needs == GD_SHOWN_ALWAYS || needs & shown;
}

static void add_chart(const struct chart *chart, struct packed_category *packed) {
    size_t index = packed->category.n_chart++;
    Tensorboard__Layout__Chart *added = packed->chart_pointers[index] = &packed->charts[index];
    tensorboard__layout__chart__init(added);
    added->title = borrow(chart->title);
    added->multiline = &packed->multilines[index];
    tensorboard__layout__multiline_chart__init(added->multiline);
    added->multiline->tag = packed->tags[index];
    for (size_t i = 0; i < CHART_TAGS_MAX && chart->tags[i]; i++)
        packed->tags[index][added->multiline->n_tag++] = borrow(chart->tags[i]);
}

static void fill_category(const struct category *category, uint32_t shown, struct packed_category *ret_packed) {
    tensorboard__layout__category__init(&ret_packed->category);
    ret_packed->category.title = borrow(category->title);
    ret_packed->category.has_closed = category->closed; // false is left out, as Python's writer does
    ret_packed->category.closed = category->closed;
    ret_packed->category.chart = ret_packed->chart_pointers;
    for (size_t i = 0; i < CATEGORY_CHARTS_MAX && category->charts[i].title; i++)
        if (is_shown(category->charts[i].needs, shown))
            add_chart(&category->charts[i], ret_packed);
}

size_t gd_charts_pack(uint32_t shown, uint8_t *ret_layout) {
    struct packed_category packed[CATEGORIES];
    Tensorboard__Layout__Category *pointers[CATEGORIES];
    Tensorboard__Layout layout = TENSORBOARD__LAYOUT__INIT;

    layout.category = pointers;
    for (size_t i = 0; i < CATEGORIES; i++) {
        if (!is_shown(categories[i].needs, shown))
            continue;
        fill_category(&categories[i], shown, &packed[layout.n_category]);
        pointers[layout.n_category] = &packed[layout.n_category].category;
        layout.n_category++;
    }
    size_t bytes = tensorboard__layout__get_packed_size(&layout);
    assert(bytes <= GD_CHARTS_BYTES_MAX);
    if (ret_layout)
        tensorboard__layout__pack(&layout, ret_layout);
    return bytes;
}
