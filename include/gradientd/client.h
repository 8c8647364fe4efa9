// clang-format off
// gradientd: the C client.
//
// A trainer hands each step's gradient to the daemon, which writes gradient coherence, Adam-type convergence ratios and
// the trainer's own scalars into a TensorBoard event file:
//
//     struct gradientd_group groups[] = {
//         {.name = "layer1/weight", .numel = 8192},
//         {.name = "layer1/bias", .numel = 128},
//     };
//     struct gradientd_parameter_group rates[] = {{.beta2 = 0.999, .eps = 1e-8}};
//     struct gradientd_options options = gradientd_options_default();
//     options.logdir = "runs";
//     options.run = "adam";
//     options.groups = groups;
//     options.n_groups = 2;
//     options.parameter_groups = rates;
//     options.n_parameter_groups = 1;
//     options.optimizer.rule = GRADIENTD_ADAM;
//
//     struct gradientd_run *run;
//     struct gradientd_error error;
//     if (gradientd_open(&options, &run, &error) < 0)
//         fprintf(stderr, "training goes on without gradientd: %s\n", error.text); // run is NULL, and may stay so
//
//     for (int64_t number = 1; number <= steps; number++) {
//         ...
//         const void *gradients[] = {grad_weight, grad_bias}; // NULL: no gradient this step
//         double learning_rate = 1e-3;
//         struct gradientd_scalar scalars[] = {{"train/loss", loss}};
//         struct gradientd_step step = {0};
//         step.step = number;
//         step.learning_rates = &learning_rate;
//         step.scalars = scalars;
//         step.n_scalars = 1;
//         gradientd_submit(run, &step, gradients);
//     }
//     gradientd_close(run, GRADIENTD_SUCCESS);
//
// Nothing here raises a signal, aborts, or blocks longer than the options allow. A daemon that goes away costs one
// warning (see `warn`): the run waits in shared memory until a daemon is back at its place, or is started again where it
// is the run's own, and goes on where it was; until then steps are kept while slots are free, and skipped and counted
// after that. A run that cannot be served any more (the daemon refused it; an inline run whose daemon is gone) costs one
// warning too, and every call on it then returns GRADIENTD_DETACHED. All calls take a NULL run and return
// GRADIENTD_DETACHED for it (gradientd_next_alert() 0). There is no global state; a run is used by one thread at a time.
// After fork() the child's handle does nothing. An open run takes four descriptors: socket, memory, event file and a
// pidfd of this process.
//
// Results: 0 done; a positive gradientd_result is an outcome a trainer may want to know; a negative errno says the
// arguments are wrong (gradientd_last_error() names what).
// clang-format on
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GRADIENTD_API __attribute__((visibility("default")))

struct gradientd_run; // one training run as TensorBoard shows it, as seen by this process

enum gradientd_result {
    GRADIENTD_OK = 0,
    GRADIENTD_SKIPPED = 1,  // no free slot within max_stall: this step was dropped, and counted
    GRADIENTD_DETACHED = 2, // no daemon serves this run, or ever will
};

// What is submitted is the gradient as the optimiser consumes it: with coupled weight decay (PyTorch's Adam, Adagrad,
// SGD) that is g + wd x, with `maximize` negated; decoupled decay (AdamW) changes nothing.
//
// The optimiser's update rule: it decides what the effective step a / (sqrt(vhat) + eps) is. One whose step none of
// these has (centred RMSprop, which subtracts a mean that is not kept here, RAdam, Adafactor, Lion, ...) is
// GRADIENTD_OTHER: the run then shows everything but the adam/ and step_sums/ tags.
enum gradientd_rule {
    GRADIENTD_SGD = 1, // with or without momentum
    GRADIENTD_ADAM,
    GRADIENTD_ADAMW,
    GRADIENTD_RMSPROP,
    GRADIENTD_AMSGRAD,
    GRADIENTD_ADAGRAD,
    GRADIENTD_ADAFOM, // AdaGrad with first-order momentum (Chen et al., arXiv 1808.02941)
    GRADIENTD_OTHER,  // any other optimiser; it cannot be a shadow rule
};

// Of what AMSGrad keeps the running maximum.
enum gradientd_maximum_of {
    GRADIENTD_RAW_THEN_CORRECTED = 1, // max of v, bias-corrected when used (PyTorch)
    GRADIENTD_CORRECTED,              // max of v / (1 - b2^t) (optax)
    GRADIENTD_UNCORRECTED,            // max of v, never corrected (the paper)
};

enum gradientd_bias_correction {
    GRADIENTD_RULE_DEFAULT = 0, // adam, adamw: corrected; rmsprop: none
    GRADIENTD_BIAS_CORRECTED,   // vhat = v / (1 - b2^t)
    GRADIENTD_NO_BIAS_CORRECTION,
};

// What the trainer's gradients are made of. It is also what travels, but for F64.
enum gradientd_element_type {
    GRADIENTD_F32 = 0,
    GRADIENTD_BF16,
    GRADIENTD_F16,
    GRADIENTD_F64, // rounded to float on the way, ties to even; what is beyond float's range counts as not finite
};

// How elements reach the daemon. Inline, at most 1 GiB of them a step, the client keeps one step's elements until the
// socket has taken them: that is the one slot, and what is said of slots below is said of it. A socket takes some 200
// KB at once and nothing is sent between the calls: after a step of many MB most of the next ones are skipped, unless
// the option max_stall lets a submit wait until it has left (measured: 25 M floats leave within 50 to 150 ms).
enum gradientd_transport {
    GRADIENTD_SHARED_MEMORY = 0,
    // Through the socket: where memory cannot be shared, or the socket is forwarded (ssh -L, -R), which no descriptor
    // passes: there, leave out the logdir, so that the daemon makes the event file where it runs. That a trainer
    // without a logdir has died shows when all copies of its socket are closed: a forked child that lives may hold one.
    GRADIENTD_INLINE,
    GRADIENTD_INLINE_DEFLATED, // the same as a zlib stream, deflated by the submit, for a slow connection
};

// Whether the slices get tags of their own, under group_norm/, group_cosine_lag1/ and so on.
enum gradientd_per_group {
    GRADIENTD_PER_GROUP_AUTO = 0, // when at most 8 names are left of include, exclude and fold_depth
    GRADIENTD_PER_GROUP_ON,       // and more tags for each; at most 4,096 names
    GRADIENTD_PER_GROUP_OFF,
};

struct gradientd_optimizer {
    enum gradientd_rule rule;
    enum gradientd_bias_correction bias_correction; // adam, adamw, rmsprop
    enum gradientd_maximum_of maximum_of;           // amsgrad; 0: RAW_THEN_CORRECTED
    double eps_root;            // added to vhat under the root (optax's eps_root, optax.rmsprop's eps)
    double initial_accumulator; // adagrad
    double learning_rate_decay; // adagrad: rate a / (1 + (t - 1) decay)
};

enum gradientd_hparam_kind {
    GRADIENTD_HPARAM_NUMBER = 0,
    GRADIENTD_HPARAM_TEXT,
    GRADIENTD_HPARAM_FLAG,
};

// One of the run's hyperparameters, by which TensorBoard's HParams tab compares runs.
struct gradientd_hparam {
    const char *name; // UTF-8, 1 to 255 bytes, no control characters
    const char *text; // of kind TEXT: UTF-8, at most 1,023 bytes, no control characters
    double number;    // of kind NUMBER, finite
    enum gradientd_hparam_kind kind;
    bool flag; // of kind FLAG
};

static inline struct gradientd_hparam gradientd_hparam_number(const char *name, double number) {
    struct gradientd_hparam hparam;
    memset(&hparam, 0, sizeof(hparam));
    hparam.name = name;
    hparam.number = number;
    return hparam;
}

static inline struct gradientd_hparam gradientd_hparam_text(const char *name, const char *text) {
    struct gradientd_hparam hparam;
    memset(&hparam, 0, sizeof(hparam));
    hparam.name = name;
    hparam.kind = GRADIENTD_HPARAM_TEXT;
    hparam.text = text;
    return hparam;
}

static inline struct gradientd_hparam gradientd_hparam_flag(const char *name, bool flag) {
    struct gradientd_hparam hparam;
    memset(&hparam, 0, sizeof(hparam));
    hparam.name = name;
    hparam.kind = GRADIENTD_HPARAM_FLAG;
    hparam.flag = flag;
    return hparam;
}

// One named slice of the parameter vector: a tensor or a layer. Slices follow one another in the order of the table.
struct gradientd_group {
    const char *name;         // UTF-8, 1 to 255 bytes, no control characters
    uint64_t numel;           // elements, at least 1
    uint32_t parameter_group; // index into the optimiser's parameter groups
    uint32_t step_lag;        // how many optimiser steps this slice is behind the others (it was added later)
};

// What the slices of one of the optimiser's parameter groups share. The learning rate comes with each step.
struct gradientd_parameter_group {
    double beta2;               // decay of the second moment, in [0, 1): adam, adamw, rmsprop (its alpha), amsgrad
    double eps;                 // added to the root
    double start_learning_rate; // with start vectors: of the step before the first one; 0: the first one's
};

// A stream beside the gradient. It takes shared memory of its own; runs that go inline have none.
struct gradientd_stream_options {
    uint32_t stride; // steps between its snapshots, 0: the stream is not sent
    enum gradientd_element_type element_type;
};

// When the rules that watch a run raise an alert (see gradientd_next_alert()). 0: the default. An infinite value, of
// the cosine a negative one, and UINT64_MAX steps switch a rule off.
struct gradientd_thresholds {
    double norm_spike_sd;      // |g_t| above the mean of the 128 steps before and so many standard deviations; 6
    double rms;                // adam/rms above; 2.3
    double cosine_mean;        // the mean of coherence/cosine_lag1 over 100 steps below; -0.3
    double oscillation;        // adam/oscillation above, after 1,000 applied steps; 0.1
    uint64_t zero_group_steps; // a slice without any gradient but 0 for so many steps; 100
    double silence_intervals;  // no step for so many median intervals, at least 1, and for 1 second; 10
};

// Start from gradientd_options_default(). Everything is borrowed for the call alone.
struct gradientd_options {
    size_t options_bytes; // of this struct, as the caller was compiled
    // Directory of event files, created if missing; the run's file is <logdir>/<run>/events... NULL: the daemon puts
    // the file into its own state directory; gradientd_event_path() tells where.
    const char *logdir;
    const char *run; // relative path of components [A-Za-z0-9._=,+-], no ".."; NULL or "": logdir itself
    const struct gradientd_group *groups;
    size_t n_groups; // 1 to 65,536
    const struct gradientd_parameter_group *parameter_groups;
    size_t n_parameter_groups; // at least 1
    enum gradientd_element_type element_type;
    enum gradientd_transport transport;
    struct gradientd_optimizer optimizer;
    // Other rules, what they would do with the same gradients: the adam/ tags again, as shadow_<rule>/, with the
    // learning rates of the steps and beta2 and eps of the parameter groups.
    const enum gradientd_rule *shadow_rules;
    size_t n_shadow_rules;

    // Tags per slice. The patterns (* and ?, on whole names; * takes '/' too) say whose: those of `include`, all where
    // it is empty, without those of `exclude`. Slices whose names agree in their first `fold_depth` components, which
    // end at '/' or '.', share their tags; 0: none do.
    enum gradientd_per_group per_group;
    uint32_t fold_depth;
    const char *const *include;
    size_t n_include; // at most 64, as of `exclude`
    const char *const *exclude;
    size_t n_exclude;

    // For TensorBoard's HParams tab: at most 256, each name once. optimizer, learning_rate, beta2, eps and batch_size
    // are there by themselves, as far as the run has them, unless one of these has the name. Runs of the same
    // hparams_group (NULL: none) are shown as one, averaged: those that differ in their seed alone.
    const struct gradientd_hparam *hparams;
    size_t n_hparams;
    const char *hparams_group;

    // A start in mid-training: what the optimiser's state holds before the first step, so that the adam/ tags are exact
    // from there; without it they wait until their second moment has forgotten the start, or stay absent. One pointer a
    // slice, to numel floats; a NULL entry is all zeros. For adam, adamw, rmsprop, adagrad and amsgrad the elements of
    // the state's own array (exp_avg_sq, sum), for adafom the mean of g^2. amsgrad needs its maximum beside it.
    const float *const *start_second_moment;
    const float *const *start_second_moment_max;
    uint64_t start_optimizer_step; // steps the optimiser has taken before the first one, with or without these vectors

    // The first step that will be submitted, at least 0; a later one after a restart from a checkpoint. It must be
    // true: TensorBoard drops what earlier files of the run have from this step on.
    int64_t first_step;
    uint32_t stride;  // lag m is the step m strides earlier; where all steps are sent, every stride-th has all lags
                      // Above 1, each step should state its optimizer_step.
    double wall_time; // seconds since the epoch, of the file's first records; 0: now

    // Streams beside the gradient, see gradientd_step. Lags and distances are taken between snapshots `stride` steps
    // apart; those of two streams, such as function against parameter distance, where both have the same stride.
    struct gradientd_stream_options probe_gradients, parameters, outputs;
    uint64_t output_examples;     // of `outputs`: how many fixed examples there are ...
    uint64_t outputs_per_example; // ... and the network's outputs on each
    // After a restart from a checkpoint, what distances from the start are measured from: the parameters, a pointer a
    // slice, and the outputs that the run began with, in the types of their streams. NULL: the first snapshot of each,
    // and the tags say at which step that was.
    const void *const *start_parameters;
    const void *start_outputs;

    uint32_t max_lag;   // M: coherence is computed for lags 1..M; 1 to 32
    uint32_t inflight;  // steps the trainer may be ahead of the daemon; 1 to 64
    bool no_thinning;   // write every step; by default steps past 10,000 are thinned to 4 significant digits
    bool absent_counts; // a slice's own step count runs on while it has no gradient (optax)
    // The squared norms of steps are of gradients at labels drawn from the model's predictions, not at the data's: they
    // then tell the Fisher information, fisher/trace, and else the empirical one.
    bool labels_from_model;

    struct gradientd_thresholds thresholds;

    // Where the daemon is: this path alone if given, else $GRADIENTD_SOCKET, $XDG_RUNTIME_DIR/gradientd/socket,
    // /run/gradientd/socket. If none answers and `private_daemon` is set, one is started that serves this run alone and
    // ends with it: `daemon_path`, else $GRADIENTD_DAEMON, else the installed one, else gradientd in $PATH.
    const char *socket;
    bool private_daemon;
    const char *daemon_path;

    double connect_timeout; // seconds gradientd_open() may take for the daemon's answers
    double max_stall; // seconds a submit may wait for a free slot, and all submits for a daemon that is away; 0: none
    double close_timeout; // seconds gradientd_close() may wait until everything submitted is in the file

    uint32_t copy_threads; // that copy a step at once, 1 to 16; 1: the submitting thread alone. More are started by
                           // gradientd_open() and sleep between steps; each step then takes system calls to wake them
                           // and to wait. For models of many MB where one core does not fill the memory's bandwidth.

    // Called with one line when the daemon goes away or the run is lost; NULL: the line goes to stderr.
    void (*warn)(void *context, const char *text);
    void *warn_context;
};

// The defaults; set what differs.
static inline struct gradientd_options gradientd_options_default(void) {
    struct gradientd_options options;
    memset(&options, 0, sizeof(options));
    options.options_bytes = sizeof(options);
    options.optimizer.rule = GRADIENTD_SGD;
    options.first_step = 1;
    options.stride = 1;
    options.max_lag = 5;
    options.inflight = 2;
    options.copy_threads = 1;
    options.connect_timeout = 5.0;
    options.close_timeout = 10.0;
    return options;
}

struct gradientd_error {
    int code;       // errno of the failure
    char text[512]; // names the field, the value and the limit
};

// One of the trainer's own values. `tag` is UTF-8, 1 to 255 bytes; at most 1,024 tags a run; steps rise per tag.
struct gradientd_scalar {
    const char *tag;
    float value;
};

// Shown in the HParams tab. A trainer that goes without gradientd_close() has none there.
enum gradientd_outcome {
    GRADIENTD_SUCCESS = 1,
    GRADIENTD_FAILURE = 2,
};

// The squared norm of a gradient averaged over fewer examples than the step's own, before clipping, with all slices: a
// worker's before the all-reduce, or a microbatch's. Several of one batch size count as their mean.
struct gradientd_squared_norm {
    double batch_size;       // examples; positive and finite
    double value;            // not negative; Inf or NaN where that gradient is not finite, which then tells nothing
    const double *per_group; // of each slice, n_groups values; NULL: not known
};

// One step. Zero-initialise; what is 0 or NULL takes the default named here.
struct gradientd_step {
    int64_t step;                 // strictly increasing
    const double *learning_rates; // one per parameter group; required
    const double *beta2;          // one per parameter group, when they change; NULL: as before
    const double *eps;            // likewise
    uint64_t optimizer_step;      // t of the bias correction, from 1; 0: one after the last applied (or start's) one
    bool not_applied;             // the optimiser did not move (a skipped AMP step): its state stays untouched
    double wall_time;             // seconds since the epoch; 0: now
    const struct gradientd_scalar *scalars;
    size_t n_scalars;

    // The step whose parameters this gradient was computed at, where another worker's copy was older; 0 to `step`.
    bool has_model_version;
    int64_t model_version;

    // Streams beside the gradient, of the types that the options say, each in a slot of its own: without a free one
    // for each of them the whole step is skipped. NULL: none this step. With all three at the same parameters, those
    // the gradient was computed at, their charts fit together.
    const void *const *probe_gradients; // on fixed samples: a pointer a slice, none of them NULL
    const void *const *parameters;      // likewise
    const void *outputs; // on fixed examples, after the softmax: output_examples x outputs_per_example, row by row

    // For the noise/, noise_single/ and fisher/ tags, which look at gradients as they were before clipping.
    double batch_size;  // examples averaged in this step's gradient; 0: unknown, and none of these tags
    double clip_factor; // what the gradient was multiplied with by clipping, positive and finite; 0: it was not clipped
    const struct gradientd_squared_norm *squared_norms; // with batch_size
    size_t n_squared_norms;                             // at most 64, with at most 65,536 values per_group in all
};

// Checks options without a daemon: returns 0, or the negative errno that gradientd_open() would return for them, with
// *ret_error (may be NULL) as it would set it. What only a daemon judges (sizes, rates, the optimiser's variants) is
// left to gradientd_open(). Any thread.
GRADIENTD_API int gradientd_check(const struct gradientd_options *options, struct gradientd_error *ret_error);

// Connects, describes the run, shares memory with the daemon and opens the event file. On success *ret_run is a new run
// that gradientd_close() frees. On failure returns a negative errno, *ret_run is NULL and *ret_error (may be NULL) says
// why. Waits at most connect_timeout for the daemon, plus the time to touch the memory
// ((max_lag + 1 + inflight) x elements x 4 bytes (2 for BF16 and F16), and 8 more an element for the optimiser's
// state; probe gradients take as many slots again, parameters and outputs 3 + inflight each), and to copy or send start
// vectors. Where a daemon goes away meanwhile, as in an upgrade, it is opened once more, with the one that follows.
GRADIENTD_API int gradientd_open(const struct gradientd_options *options, struct gradientd_run **ret_run,
                                 struct gradientd_error *ret_error);

// Copies one step's gradient into a free slot and hands it over. `gradients[i]` points to groups[i].numel elements of
// the option element_type, or is NULL when the slice has no gradient this step (absent, which is not zero). Gradients
// are as the optimiser consumes them. One system call when a slot is free (with one copy thread).
GRADIENTD_API int gradientd_submit(struct gradientd_run *run, const struct gradientd_step *step,
                                   const void *const *gradients);

// The same without the copy: gradientd_acquire() gives the elements of a free slot, all groups one after the other
// (group i starts at the sum of the numel before it), valid and writable until gradientd_commit() hands them over. They
// are of the option element_type, but floats where that is F64. NULL: no slot is free within max_stall; compute into a
// buffer of your own and still call gradientd_commit(), which then counts the step as skipped. After a commit the
// elements are read-only for the trainer until the slot comes back. `present`, where not NULL, has one flag per group.
GRADIENTD_API void *gradientd_acquire(struct gradientd_run *run);
GRADIENTD_API int gradientd_commit(struct gradientd_run *run, const struct gradientd_step *step, const bool *present);

// Values between steps, such as a validation loss. `wall_time` in seconds, 0: now.
GRADIENTD_API int gradientd_scalars(struct gradientd_run *run, int64_t step, double wall_time,
                                    const struct gradientd_scalar *scalars, size_t n_scalars);

// What a rule of the daemon's has found, or that it is over. The run has it as text under alerts/<rule>, but not
// silence.
struct gradientd_alert {
    int64_t step;
    char rule[31];   // non_finite, norm_spike, rms, cosine, oscillation, zero_group, silence
    bool onset;      // false: it has cleared, there were 16 steps without it
    char text[512];  // one sentence, markdown; may be cut
    char group[256]; // the first slice at fault, "": the rule names none
};

// The next alert that has come: returns 1 and *ret_alert, 0 when there is none, -EINVAL without ret_alert. Never waits;
// in shared memory it costs no system call when none has come, inline one. The last 16 are kept. Alerts are best
// effort: those of a trainer that never asks are dropped in time, and one may come again when the daemon was started
// again. In a forked child, and for a NULL run, there is none.
GRADIENTD_API int gradientd_next_alert(struct gradientd_run *run, struct gradientd_alert *ret_alert);

// Ends the run and frees it, waiting at most close_timeout until its event file is complete. Returns 0 when it is,
// GRADIENTD_DETACHED otherwise. NULL is allowed.
GRADIENTD_API int gradientd_close(struct gradientd_run *run, enum gradientd_outcome outcome);

// Steps dropped so far because no slot was free.
GRADIENTD_API uint64_t gradientd_skipped(const struct gradientd_run *run);

// The path of the run's event file, owned by the run; NULL for a NULL run. It is another one after an upgrade of the
// daemon that cannot go on with the run's memory: the run then goes on in a new file, from the next step on.
GRADIENTD_API const char *gradientd_event_path(const struct gradientd_run *run);

// What the last negative result or lost run was about; owned by the run, "" when nothing.
GRADIENTD_API const char *gradientd_last_error(const struct gradientd_run *run);

#ifdef __cplusplus
}
#endif
