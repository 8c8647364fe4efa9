#include "page.h"

#include <assert.h>
#include <string.h>

#include "shown.h"

static const char introduction[] =
    "# How to read this run\n\n"
    "gradientd computed the charts below from the gradients the trainer handed over, as the optimiser consumes them. "
    "The (i) of a chart has its formula; the tab **Custom Scalars** puts side by side what is read together; what "
    "looks healthy here is a first orientation, and the trend says more than the level.\n\n";

static const char coherence[] =
    "## coherence/: do successive gradients agree?\n\n"
    "`cosine_lag1` compares a gradient with the one before it, `cosine_lag5` with the one five steps ago.\n\n"
    "- **Healthy:** near 1 far from a minimum, falling as training proceeds; near 0, often slightly below, once noise "
    "is all that is left.\n"
    "- **Clearly negative for long** (below -0.3): steps undo one another. The learning rate is too large.\n"
    "- **0 from the start:** each minibatch says something else. Larger batches or more momentum help.\n\n"
    "`ratio_lag` is the paper's form of the same and has heavy tails; `mu` is the least of these ratios, and "
    "`tolerable_staleness` how many steps old a gradient may be and still point downhill: what asynchronous training "
    "lives on.\n\n";

static const char probe[] =
    "`coherence_probe/` is the same on a fixed set of samples, without the noise of minibatches: the gradient that the "
    "paper's theorem is about.\n\n";

static const char ratios[] =
    "## adam/: are the step sizes calm?\n\n"
    "The effective step of a coordinate is its learning rate, divided by the root of the second moment where the rule "
    "keeps one. A sums them, B the squared updates they make, C how much they change.\n\n"
    "- **`B_over_A` and `C_over_A`** go to 0 where the convergence proof holds. At a constant learning rate `B_over_A` "
    "settles above 0, which is normal; it has the units of the loss, so compare runs of one model only.\n"
    "- **`slope_B_over_A` and `slope_C_over_A`** say how fast: -0.5 is a fall like 1/sqrt(n), 0 is none.\n"
    "- **`oscillation`** is the share of the step size that changes in a step. Healthy Adam: about (1 - b2)/2, so "
    "0.0005 at b2 = 0.999. Above 0.1, Adam is in the trouble that AMSGrad was made for.\n";

static const char second_moment[] =
    "- **`rms`** compares gradients with the second moment: near 1 is healthy; above 2.3 the second moment is out of "
    "date, and a loss spike is likely soon. Lower b2, or warm up.\n";

static const char step_sizes[] =
    "- **`step_size_min`** far below **`step_size_mean`**: a few coordinates hardly learn. `log2_step_size` under "
    "Histograms shows all of them.\n\n";

static const char shadows[] =
    "## shadow_.../: what would another rule do?\n\n"
    "The `adam/` charts again, for the rule in the name, on the very same gradients and without moving the model. "
    "Where "
    "`shadow_amsgrad/C_over_A` falls and `adam/C_over_A` does not, the fix helps; where both look alike, it is not "
    "what is wrong.\n\n";

static const char shadows_alone[] =
    "## shadow_.../: what would another rule do?\n\n"
    "The effective step of this run's own optimiser has none of the forms that are followed here. These charts are of "
    "the rule in the name, on the very same gradients, with this run's learning rates and without moving the model. A "
    "sums its effective steps, B the squared updates they make, C how much they change.\n\n"
    "- **`B_over_A` and `C_over_A`** go to 0 where the rule's convergence proof holds.\n"
    "- **`oscillation`** is the share of the step size that changes in a step. Healthy Adam: about (1 - b2)/2. Above "
    "0.1, Adam would be in trouble.\n\n";

static const char noise[] =
    "## noise/, noise_single/ and fisher/: is the batch the right size?\n\n"
    "Shown once the trainer states batch sizes. `B_simple` is the batch at which noise and signal are equal: far below "
    "it, a larger batch saves steps nearly one for one; far above it, examples are wasted. It grows during healthy "
    "training. `noise/` is from two batch sizes in one step, `noise_single/` from two steps of one, which is biased "
    "while the parameters move fast.\n\n"
    "`fisher/` is how strongly the examples pull. It rises early and falls: until it has fallen is the critical "
    "period, in which bad data does lasting harm.\n\n";

static const char subspace[] =
    "## subspace/: in how many directions does training move?\n\n"
    "`effective_rank` of the last gradients: 1 where all point the same way, as many as there are where they are "
    "unrelated. `top_share` near 1: one direction has nearly all, so gradients compress well.\n\n";

static const char parameters[] =
    "## parameters/: how far did the step go?\n\n"
    "`update_ratio` is a step relative to the parameters: about 0.001 is usual, 0.1 a jump, 0.000001 standing still. "
    "Healthy: `l2_step` falls with the learning rate, and `l2_from_start` flattens.\n\n";

static const char function[] =
    "## function/: how far did the network's answers go?\n\n"
    "The outputs on a fixed set of examples, compared with those of the step before and of the start. Parameters can "
    "move far while the function hardly does, and the other way about. Healthy: `l2_step` falls; where it does not "
    "while the parameters' step does (`per_parameter_step` grows), the model gets more sensitive, and smaller steps "
    "are due.\n\n";

static const char curvature[] =
    "## curvature/: how sharp is the loss?\n\n"
    "From gradients on fixed samples at two parameter vectors. `secant` is a lower bound of the sharpest direction's "
    "curvature. For sgd, `step_times_secant` near 2 is the edge of stability; above it, the step is too large.\n\n";

static const char groups[] =
    "## group_.../: which layer is it?\n\n"
    "The same per slice of the parameters. Healthy layers keep their order; one whose norm runs away or goes to 0 is "
    "the one to look at.\n\n";

static const char health[] =
    "## gradient/: is the gradient sane?\n\n"
    "- **`norm`**: falls, or stays level with noise. `norm_max` keeps spikes visible once long runs are thinned.\n"
    "- **`max_abs`** close to `norm`: one coordinate is all there is. Near 65504: half precision overflows.\n"
    "- **`zero_fraction`**: high with sparse embeddings and dead units; rising under half precision, small gradients "
    "underflow.\n"
    "- **`non_finite`**: 0. Anything else is an overflow or an invalid operation; now and then is normal under loss "
    "scaling.\n\n";

static const char histograms[] =
    "## Histograms: log2\n\n"
    "`gradient/log2_abs` is log2 of each gradient element's size: one hump that drifts left is healthy, a second hump "
    "is a layer on its own scale, and a wall at the left (half precision: -24) is underflow.";

static const char step_size_histogram[] =
    " `adam/log2_step_size` is log2 of each effective step: the wider, the more the rule does that plain sgd would "
    "not.";

static const char paragraph[] = "\n\n";

static const char alerts[] =
    "## alerts/: what a rule has seen\n\n"
    "Texts, each where a rule's condition began or was over: numbers that are not finite, a spike of the norm, a "
    "second "
    "moment out of date, gradients that undo one another, step sizes that oscillate, a slice without any gradient. "
    "Healthy: there are none.\n\n";

static const char gaps[] =
    "## What is not there\n\n"
    "A chart begins when what it needs is known: lag m after m steps, slopes after 16. Past step 10,000 our own series "
    "keep four digits of the step; the trainer's own values are never thinned. `gradientd/observed_fraction` below 1: "
    "steps were skipped, because the trainer does not wait for gradientd.\n";

static const struct {
    const char *text;
    uint32_t needs; // enum gd_shown: all of them ...
    uint32_t lacks; // ... and none of these
} pieces[] = {
    {introduction, GD_SHOWN_ALWAYS, 0},
    {coherence, GD_SHOWN_ALWAYS, 0},
    {probe, GD_SHOWN_PROBE, 0},
    {ratios, GD_SHOWN_EFFECTIVE_STEP, 0},
    {second_moment, GD_SHOWN_SECOND_MOMENT | GD_SHOWN_EFFECTIVE_STEP, 0},
    {step_sizes, GD_SHOWN_EFFECTIVE_STEP, 0},
    {shadows, GD_SHOWN_SHADOWS | GD_SHOWN_EFFECTIVE_STEP, 0},
    {shadows_alone, GD_SHOWN_SHADOWS, GD_SHOWN_EFFECTIVE_STEP},
    {noise, GD_SHOWN_ALWAYS, 0},
    {subspace, GD_SHOWN_ALWAYS, 0},
    {parameters, GD_SHOWN_PARAMETERS, 0},
    {function, GD_SHOWN_OUTPUTS, 0},
    {curvature, GD_SHOWN_PROBE | GD_SHOWN_PARAMETERS, 0},
    {groups, GD_SHOWN_GROUPS, 0},
    {health, GD_SHOWN_ALWAYS, 0},
    {histograms, GD_SHOWN_ALWAYS, 0},
    {step_size_histogram, GD_SHOWN_EFFECTIVE_STEP, 0},
    {paragraph, GD_SHOWN_ALWAYS, 0},
    {alerts, GD_SHOWN_ALWAYS, 0},
    {gaps, GD_SHOWN_ALWAYS, 0},
};

size_t gd_page_write(uint32_t shown, char *ret_text) {
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        if ((pieces[i].needs & shown) != pieces[i].needs || pieces[i].lacks & shown)
            continue;
        size_t piece_bytes = strlen(pieces[i].text);
        assert(bytes + piece_bytes <= GD_PAGE_BYTES_MAX);
        if (ret_text)
            memcpy(ret_text + bytes, pieces[i].text, piece_bytes);
        bytes += piece_bytes;
    }
    return bytes;
}
