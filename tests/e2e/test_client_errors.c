// Wrong steps and scalars: each answer names the field, the value and the limit, and costs the trainer nothing else.
#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "event_values.h"
#include "fixture.h"
#include "trainer.h"

TestSuite(client_errors, .init = fixture_set_up, .fini = fixture_tear_down, .timeout = 120);

static void expect_parts(const char *text, const char *const parts[3]) {
    for (int i = 0; i < 3 && parts[i]; i++)
        cr_assert(strstr(text, parts[i]), "\"%s\" does not say \"%s\"", text, parts[i]);
}

Test(client_errors, run_takes_four_descriptors_and_gives_them_back) {
    size_t fds = scratch_count_fds(0);
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "descriptors", NULL);
    struct gradientd_run *run = trainer_open(&options);
    cr_assert_eq(scratch_count_fds(0), fds + 4, "others than socket, memory, event file and pidfd are open");
    trainer_submit_steps(run, 1, 5);
    trainer_close(run);
    cr_assert_eq(scratch_count_fds(0), fds, "a descriptor leaked");
}

Test(client_errors, error_may_be_left_out) {
    struct gradientd_options options = trainer_options(daemon_process.socket, "", "wrong", NULL);
    struct gradientd_run *run;
    cr_assert_eq(gradientd_open(&options, &run, NULL), -EINVAL);
    cr_assert_null(run);
}

Test(client_errors, nobody_at_the_socket) {
    char path[SCRATCH_PATH_BYTES + 16];
    snprintf(path, sizeof(path), "%s/nobody", directory);
    struct gradientd_options options = trainer_options(path, directory, "alone", NULL);
    options.private_daemon = true; // an explicit path is the only one tried
    options.daemon_path = daemon_process_program();
    struct gradientd_run *run;
    struct gradientd_error error;
    size_t fds = scratch_count_fds(0);
    cr_assert_eq(gradientd_open(&options, &run, &error), -ENOENT);
    cr_assert_null(run);
    expect_parts(error.text, (const char *const[3]){path, strerror(ENOENT)});
    cr_assert_eq(scratch_count_fds(0), fds);

    struct gradientd_step step = trainer_step(1);
    float gradient[TRAINER_NUMEL];
    trainer_gradient(1, gradient);
    cr_assert_eq(trainer_submit(run, &step, gradient), GRADIENTD_DETACHED);
    cr_assert_eq(gradientd_close(run, GRADIENTD_SUCCESS), GRADIENTD_DETACHED);
}

// A listener that has as many connections as it lets wait.
static int listen_in_vain(const char *path, int *ret_waiting) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    cr_assert(bind(listener, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(listener, 0) == 0);
    *ret_waiting = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(*ret_waiting, (struct sockaddr *)&address, sizeof(address)), 0);
    return listener;
}

// Takes the one that waits and the trainer, after a while, and says nothing.
static pid_t accept_late(int listener) {
    static const struct timespec a_while = {.tv_nsec = 100000000};
    pid_t child = fork();
    if (child != 0)
        return child;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    nanosleep(&a_while, NULL);
    accept(listener, NULL, NULL);
    accept(listener, NULL, NULL);
    for (;;)
        pause();
}

Test(client_errors, full_backlog_is_waited_for) {
    char path[SCRATCH_PATH_BYTES + 16];
    int waiting;
    snprintf(path, sizeof(path), "%s/full", directory);
    int listener = listen_in_vain(path, &waiting);
    struct gradientd_options options = trainer_options(path, directory, "late", NULL);
    struct gradientd_run *run;
    struct gradientd_error error;
    options.connect_timeout = 0.2;
    double start = scratch_now();
    cr_assert_eq(gradientd_open(&options, &run, &error), -EAGAIN);
    cr_assert_geq(scratch_now() - start, 0.2);
    expect_parts(error.text, (const char *const[3]){path, strerror(EAGAIN)});

    options.connect_timeout = 2.0;
    pid_t child = accept_late(listener);
    cr_assert_eq(gradientd_open(&options, &run, &error), -ETIMEDOUT);
    expect_parts(error.text, (const char *const[3]){"did not send Welcome within connect_timeout"});
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    close(waiting);
    close(listener);
}

// ---- steps

static const double rate_nan[] = {(double)NAN};
static const double rate_infinite[] = {(double)INFINITY};
static const double one[] = {1.0};
static const double negative[] = {-1.0};
static const struct gradientd_scalar bad_tags[] = {{"good", 1.0f}, {"", 2.0f}};
static const struct gradientd_scalar no_utf8_tag[] = {{"loss\xe2\x82", 1.0f}};
static const struct gradientd_scalar null_tag[] = {{NULL, 1.0f}};
static const struct gradientd_scalar own_tag[] = {{"gradient/norm", 1.0f}};
static const struct gradientd_scalar twice[] = {{"good", 1.0f}, {"good", 2.0f}};
static const struct gradientd_scalar old_tag[] = {{"old", 1.0f}};

static void set_norms(struct gradientd_step *step, const struct gradientd_squared_norm *norms, size_t n) {
    step->batch_size = 64.0;
    step->squared_norms = norms;
    step->n_squared_norms = n;
}

static const struct gradientd_squared_norm many_norms[65] = {{8.0, 2.0, NULL}};
static const struct gradientd_squared_norm no_batch_size[] = {{8.0, 2.0, NULL}, {0.0, 2.0, NULL}};
static const struct gradientd_squared_norm negative_norm[] = {{8.0, 2.0, NULL}, {8.0, -2.0, NULL}};
static const struct gradientd_squared_norm negative_group_norm[] = {{8.0, 2.0, negative}};

struct step_spoiling {
    void (*apply)(struct gradientd_step *step);
    const char *parts[3];
};

#define SPOIL_STEP(name, assignment)                                                                                   \
    static void name(struct gradientd_step *step) {                                                                    \
        assignment;                                                                                                    \
    }

SPOIL_STEP(step_same, step->step--)
SPOIL_STEP(step_back, step->step -= 3)
SPOIL_STEP(optimizer_step_same, step->optimizer_step = 10)
SPOIL_STEP(step_time_nan, step->wall_time = (double)INFINITY)
SPOIL_STEP(rates_missing, step->learning_rates = NULL)
SPOIL_STEP(step_time_infinite, step->wall_time = -(double)INFINITY)
SPOIL_STEP(rates_infinite, step->learning_rates = rate_infinite)
SPOIL_STEP(rates_nan, step->learning_rates = rate_nan)
SPOIL_STEP(step_beta2_one, step->beta2 = one)
SPOIL_STEP(step_eps_negative, step->eps = negative)
SPOIL_STEP(batch_negative, step->batch_size = -1.0)
SPOIL_STEP(batch_nan, step->batch_size = (double)NAN)
SPOIL_STEP(clip_negative, step->clip_factor = -0.5)
SPOIL_STEP(clip_infinite, step->clip_factor = (double)INFINITY)
SPOIL_STEP(norms_missing, step->batch_size = 64.0; step->n_squared_norms = 1)
SPOIL_STEP(norms_many, set_norms(step, many_norms, 65))
SPOIL_STEP(norm_batch_zero, set_norms(step, no_batch_size, 2))
SPOIL_STEP(norm_negative, set_norms(step, negative_norm, 2))
SPOIL_STEP(group_norm_negative, set_norms(step, negative_group_norm, 1))
SPOIL_STEP(norms_without_batch, norm_negative(step); step->batch_size = 0.0)
SPOIL_STEP(tag_empty, step->scalars = bad_tags; step->n_scalars = 2)
SPOIL_STEP(tag_not_utf8, step->scalars = no_utf8_tag; step->n_scalars = 1)
SPOIL_STEP(tag_null, step->scalars = null_tag; step->n_scalars = 1)
SPOIL_STEP(tag_own, step->scalars = own_tag; step->n_scalars = 1)
SPOIL_STEP(tag_twice, step->scalars = twice; step->n_scalars = 2)
SPOIL_STEP(tag_old, step->scalars = old_tag; step->n_scalars = 1)
SPOIL_STEP(tags_missing, step->n_scalars = 1)
SPOIL_STEP(tags_many, step->scalars = old_tag; step->n_scalars = 1025)

static const struct step_spoiling step_spoilings[] = {
    {step_same, {"step is 10", "above the last one, 10"}},
    {step_back, {"step is 8", "above the last one, 10"}},
    {optimizer_step_same, {"optimizer_step is 10", "above the last applied one, 10"}},
    {step_time_nan, {"wall_time is inf", "finite"}},
    {step_time_infinite, {"wall_time is -inf", "finite"}},
    {rates_infinite, {"learning_rates[0] is inf", "finite"}},
    {rates_missing, {"learning_rates is missing"}},
    {rates_nan, {"learning_rates[0] is nan", "finite"}},
    {step_beta2_one, {"beta2[0] is 1", "below 1"}},
    {step_eps_negative, {"eps[0] is -1", "not negative"}},
    {batch_negative, {"batch_size is -1", "0 or above"}},
    {batch_nan, {"batch_size is", "nan", "finite"}},
    {clip_negative, {"clip_factor is -0.5", "0 or above"}},
    {clip_infinite, {"clip_factor is inf", "finite"}},
    {norms_missing, {"squared_norms is missing", "n_squared_norms is 1"}},
    {norms_many, {"n_squared_norms is 65", "64"}},
    {norm_batch_zero, {"squared_norms[1].batch_size is 0", "above 0"}},
    {norm_negative, {"squared_norms[1].value is -2", "not be negative"}},
    {group_norm_negative, {"squared_norms[0].per_group[0] is -1", "not be negative"}},
    {norms_without_batch, {"batch_size is 0", "above 0"}},
    {tag_empty, {"scalars[1].tag has 0 bytes", "255"}},
    {tag_not_utf8, {"scalars[0].tag has 6 bytes, \"loss??\"", "UTF-8"}},
    {tag_null, {"scalars[0].tag is missing", "255"}},
    {tag_own, {"scalars[0]", "gradient/norm", "the daemon writes itself"}},
    {tag_twice, {"scalars[1]", "step 11", "not above its last one, 11"}},
    {tag_old, {"scalars[0]", "step 11", "not above its last one, 20"}},
    {tags_missing, {"scalars is missing"}},
    {tags_many, {"n_scalars is 1025", "1024"}},
};

// Steps 1 to 11 and the scalar `good` at 11, in spite of all the wrong ones.
static void submit_among_wrong(struct gradientd_run *run,
                               int (*submit)(struct gradientd_run *, const struct gradientd_step *)) {
    trainer_submit_steps(run, 1, 10);
    cr_assert_eq(gradientd_scalars(run, 20, TRAINER_WALL_TIME, old_tag, 1), GRADIENTD_OK);
    for (size_t i = 0; i < sizeof(step_spoilings) / sizeof(step_spoilings[0]); i++) {
        struct gradientd_step step = trainer_step(11);
        step_spoilings[i].apply(&step);
        int result = submit(run, &step);
        cr_assert_eq(result, -EINVAL, "%s: %d", step_spoilings[i].parts[0], result);
        expect_parts(gradientd_last_error(run), step_spoilings[i].parts);
    }
    struct gradientd_step step = trainer_step(11);
    step.scalars = bad_tags; // the first of them alone is good
    step.n_scalars = 1;
    int result = submit(run, &step);
    cr_assert_eq(result, GRADIENTD_OK, "%d: %s", result, gradientd_last_error(run));
}

static int submit_copied(struct gradientd_run *run, const struct gradientd_step *step) {
    float gradient[TRAINER_NUMEL];
    trainer_gradient(11, gradient);
    return trainer_submit(run, step, gradient);
}

static int commit_in_place(struct gradientd_run *run, const struct gradientd_step *step) {
    float *elements = gradientd_acquire(run);
    cr_assert(elements);
    trainer_gradient(11, elements);
    return gradientd_commit(run, step, NULL);
}

static void read_good(struct gradientd_run *run) {
    char path[512];
    struct event_values values;
    snprintf(path, sizeof(path), "%s", gradientd_event_path(run));
    cr_assert_eq(gradientd_skipped(run), 0);
    trainer_close(run);
    event_values_read(path, &values);
    cr_assert_eq(event_values_count(&values, "gradient/norm"), 11);
    const struct event_value *good = event_values_find(&values, "good", 11);
    cr_assert(good && good->value == 1.0f);
    event_values_free(&values);
}

Test(client_errors, wrong_step_leaves_the_run_as_it_was) {
    struct trainer_warnings warnings;
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "submit", &warnings);
    struct gradientd_run *run = trainer_open(&options);
    submit_among_wrong(run, submit_copied);
    read_good(run);
    cr_assert_eq(warnings.count, 0, "%s", warnings.text);
}

Test(client_errors, submit_without_gradients) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "missing", NULL);
    struct gradientd_run *run = trainer_open(&options);
    struct gradientd_step step = trainer_step(1);
    cr_assert_eq(gradientd_submit(run, &step, NULL), -EINVAL);
    cr_assert_str_eq(gradientd_last_error(run), "gradients is missing");
    trainer_submit_steps(run, 1, 11);
    trainer_close(run);
}

Test(client_errors, wrong_commit_keeps_the_slot) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "commit", NULL);
    struct gradientd_run *run = trainer_open(&options);
    submit_among_wrong(run, commit_in_place);
    read_good(run);
}

Test(client_errors, submit_between_acquire_and_commit) {
    const struct gradientd_scalar good = {"good", 1.0f};
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "busy", NULL);
    struct gradientd_run *run = trainer_open(&options);
    trainer_submit_steps(run, 1, 10);
    struct gradientd_step step = trainer_step(11);
    step.scalars = &good;
    step.n_scalars = 1;
    float *elements = gradientd_acquire(run);
    trainer_gradient(11, elements);
    cr_assert_eq(submit_copied(run, &step), -EBUSY);
    cr_assert(strstr(gradientd_last_error(run), "acquired"));
    cr_assert_eq(gradientd_commit(run, &step, NULL), GRADIENTD_OK, "%s", gradientd_last_error(run));
    read_good(run);
}

Test(client_errors, wrong_scalars_leave_the_run_as_it_was) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "between", NULL);
    struct gradientd_run *run = trainer_open(&options);
    trainer_submit_steps(run, 1, 11);
    cr_assert_eq(gradientd_scalars(run, -1, 0.0, bad_tags, 1), -EINVAL);
    expect_parts(gradientd_last_error(run), (const char *const[3]){"step is -1", "negative"});
    cr_assert_eq(gradientd_scalars(run, 11, (double)NAN, bad_tags, 1), -EINVAL);
    expect_parts(gradientd_last_error(run), (const char *const[3]){"wall_time", "nan", "finite"});
    cr_assert_eq(gradientd_scalars(run, 11, 0.0, bad_tags, 2), -EINVAL);
    expect_parts(gradientd_last_error(run), (const char *const[3]){"scalars[1].tag"});
    cr_assert_eq(gradientd_scalars(run, 11, 0.0, bad_tags, 1), GRADIENTD_OK, "%s", gradientd_last_error(run));
    cr_assert_eq(gradientd_scalars(run, 11, 0.0, bad_tags, 1), -EINVAL);
    expect_parts(gradientd_last_error(run), (const char *const[3]){"step 11", "not above its last one, 11"});
    read_good(run);
}
