// Clients that break the protocol: each gets an Error that names the field and loses its connection, while healthy
// runs on the same daemon go on as if nothing had happened, and nothing is left behind.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "event_values.h"
#include "fixture.h"
#include "offences.h"
#include "raw_client.h"
#include "text.h"
#include "trainer.h"

enum {
    N_GROUPS = 3,
    WEIGHT_NUMEL = 300,
    BIAS_NUMEL = 5,
    HEAD_NUMEL = 70,
    NUMEL = WEIGHT_NUMEL + BIAS_NUMEL + HEAD_NUMEL
};

TestSuite(offences, .init = fixture_set_up, .fini = fixture_tear_down, .timeout = 120);

// ---- the healthy runs

struct victim {
    struct gradientd_run *run;
    struct trainer_warnings warnings;
    char path[512]; // of its event file
};

static void open_victim(const char *name, enum gradientd_transport transport, struct victim *victim) {
    static const struct gradientd_group groups[N_GROUPS] = {
        {.name = "layer/weight", .numel = WEIGHT_NUMEL},
        {.name = "layer/bias", .numel = BIAS_NUMEL, .parameter_group = 1},
        {.name = "head", .numel = HEAD_NUMEL},
    };
    static const struct gradientd_parameter_group rates[] = {{.beta2 = 0.99, .eps = 1e-8}, {.beta2 = 0.9, .eps = 1e-6}};
    static const enum gradientd_rule shadows[] = {GRADIENTD_ADAM, GRADIENTD_ADAGRAD};
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, name, &victim->warnings);
    options.transport = transport;
    options.groups = groups;
    options.n_groups = N_GROUPS;
    options.parameter_groups = rates;
    options.n_parameter_groups = 2;
    options.optimizer.rule = GRADIENTD_AMSGRAD;
    options.shadow_rules = shadows;
    options.n_shadow_rules = 2;
    options.per_group = GRADIENTD_PER_GROUP_ON;
    options.max_lag = 4;
    victim->run = trainer_open(&options);
    snprintf(victim->path, sizeof(victim->path), "%s", gradientd_event_path(victim->run));
}

// Step `i`: every fourth without the bias, every seventh not applied; each with a scalar, every third with one between.
static void train_victim(struct victim *victim, int64_t i) {
    const double learning_rates[] = {0.1 / (double)i, 0.01};
    const struct gradientd_scalar loss = {"train/loss", 1.0f / (float)i}, validation = {"validation/loss", (float)i};
    float gradient[NUMEL];
    struct gradientd_step step = trainer_step(i);
    for (int64_t k = 0; k < NUMEL; k++)
        gradient[k] = (float)((i * 7 + k * 3) % 11 - 5) + 0.25f;
    step.learning_rates = learning_rates;
    step.not_applied = i % 7 == 0;
    step.scalars = &loss;
    step.n_scalars = 1;
    const void *gradients[N_GROUPS] = {gradient, i % 4 ? gradient + WEIGHT_NUMEL : NULL,
                                       gradient + WEIGHT_NUMEL + BIAS_NUMEL};
    int result = gradientd_submit(victim->run, &step, gradients);
    cr_assert_eq(result, GRADIENTD_OK, "step %lld: %d %s", (long long)i, result, gradientd_last_error(victim->run));
    if (i % 3 == 0)
        cr_assert_eq(gradientd_scalars(victim->run, i, TRAINER_WALL_TIME + (double)i, &validation, 1), GRADIENTD_OK);
}

static void close_victim(struct victim *victim) {
    cr_assert_eq(gradientd_skipped(victim->run), 0);
    trainer_close(victim->run);
    cr_assert_eq(victim->warnings.count, 0, "%s", victim->warnings.text);
}

// ---- offences beside them

static void commit_offence(const struct offence *offence) {
    struct raw_client client = raw_client_connect(daemon_process.socket);
    raw_client_advance(&client, offence->stage, event_path);
    offence->commit(&client);
    Gradientd__DaemonMessage *message = raw_client_receive_error(&client, offence->name);
    cr_assert_eq(message->error->code, offence->code, "%s: code %d: %s", offence->name, (int)message->error->code,
                 message->error->text);
    cr_assert_str_eq(message->error->field, offence->field, "%s: field %s: %s", offence->name, message->error->field,
                     message->error->text);
    cr_assert(strstr(message->error->text, offence->says), "%s: \"%s\" does not say \"%s\"", offence->name,
              message->error->text, offence->says);
    cr_assert(gd_text_is_clean(message->error->text, strlen(message->error->text)), "%s: no UTF-8", offence->name);
    gradientd__daemon_message__free_unpacked(message, NULL);
    raw_client_expect_end(&client, offence->name);
    raw_client_close(&client);
}

// Trains one run in shared memory and one inline, side by side, with an offence of another client after each of their
// steps where there are any.
static void train_among(const char *name, struct offences offences, size_t steps, struct victim victims[2]) {
    char mapped_name[32], inline_name[32];
    snprintf(mapped_name, sizeof(mapped_name), "%s/mapped", name);
    snprintf(inline_name, sizeof(inline_name), "%s/inline", name);
    open_victim(mapped_name, GRADIENTD_SHARED_MEMORY, &victims[0]);
    open_victim(inline_name, GRADIENTD_INLINE, &victims[1]);
    size_t fds = scratch_count_fds(daemon_process.pid);
    for (size_t i = 0; i < steps; i++) {
        train_victim(&victims[0], (int64_t)i + 1);
        train_victim(&victims[1], (int64_t)i + 1);
        if (i < offences.n_offences)
            commit_offence(&offences.offences[i]);
    }
    daemon_process_expect_fds(&daemon_process, fds);
    close_victim(&victims[0]);
    close_victim(&victims[1]);
}

static void expect_harmless(struct offences offences) {
    enum { STEPS_AFTER = 3 };
    struct victim disturbed[2], alone[2];
    size_t steps = offences.n_offences + STEPS_AFTER;
    size_t fds = scratch_count_fds(daemon_process.pid);
    train_among("disturbed", offences, steps, disturbed);
    daemon_process_expect_fds(&daemon_process, fds);
    train_among("alone", (struct offences){0}, steps, alone);
    daemon_process_expect_fds(&daemon_process, fds);
    scratch_expect_same(disturbed[0].path, alone[0].path);
    scratch_expect_same(disturbed[1].path, alone[1].path);
    scratch_expect_same(disturbed[1].path, disturbed[0].path); // the way there is no part of it

    struct event_values values;
    event_values_read(alone[0].path, &values);
    cr_assert_eq(event_values_count(&values, "gradient/norm"), steps);
    cr_assert_eq(event_values_count(&values, "train/loss"), steps);
    cr_assert_gt(event_values_count(&values, "adam/A"), 0);
    cr_assert_gt(event_values_count(&values, "shadow_adagrad/A"), 0);
    cr_assert_gt(event_values_count(&values, "group_norm/layer/bias"), 0);
    event_values_free(&values);
}

Test(offences, wrong_frames) {
    expect_harmless(offences_framing());
}

Test(offences, wrong_openings) {
    expect_harmless(offences_opening());
}

Test(offences, wrong_selections) {
    expect_harmless(offences_selecting());
}

Test(offences, wrong_descriptors) {
    expect_harmless(offences_attaching(directory));
}

Test(offences, wrong_memory) {
    expect_harmless(offences_memory(directory));
}

Test(offences, memory_of_another_user) {
    if (geteuid() != 0)
        cr_skip("only root can give a file away");
    expect_harmless(offences_memory_of_another_user(directory));
}

Test(offences, memory_of_huge_pages) {
    int memory = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB);
    if (memory < 0)
        cr_skip("this kernel has no huge pages");
    close(memory);
    expect_harmless(offences_memory_of_huge_pages(directory));
}

Test(offences, wrong_submissions) {
    expect_harmless(offences_running(directory));
}

Test(offences, wrong_payloads) {
    expect_harmless(offences_inline());
}

Test(offences, wrong_start_vectors) {
    expect_harmless(offences_starting(directory));
}

// ---- memory that a run of the same daemon holds

static void expect_locked(const struct raw_client *holder) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    cr_assert_eq(fcntl(holder->memory_fd, F_GETLK, &whole), 0);
    cr_assert_eq(whole.l_type, F_WRLCK, "the daemon's lock is gone");
    cr_assert_eq(whole.l_pid, daemon_process.pid);
}

// Another client attaches the memory of `holder`.
static void expect_owned(const struct raw_client *holder) {
    struct raw_client client = raw_client_connect(daemon_process.socket);
    Gradientd__Attach attach = GRADIENTD__ATTACH__INIT;
    attach.has_memory = attach.memory = attach.has_event_file = attach.event_file = true;
    raw_client_advance(&client, RAW_LAID_OUT, NULL);
    int fds[2] = {holder->memory_fd, open(event_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)};
    raw_client_send_attach(&client, &attach, fds, 2);
    close(fds[1]);
    Gradientd__DaemonMessage *message = raw_client_receive_error(&client, "memory of a run");
    cr_assert_eq(message->error->code, GRADIENTD__ERROR_CODE__OWNED, "%s", message->error->text);
    cr_assert_str_eq(message->error->field, "memory");
    cr_assert(strstr(message->error->text, "held by another run of this daemon"), "%s", message->error->text);
    gradientd__daemon_message__free_unpacked(message, NULL);
    raw_client_expect_end(&client, "memory of a run");
    raw_client_close(&client);
}

// A run of six steps whose memory is attached a second time after each where it is `claimed`.
static void hold_memory(const char *path, bool claimed) {
    struct raw_client holder = raw_client_connect(daemon_process.socket);
    raw_client_advance(&holder, RAW_ATTACHED, path);
    expect_locked(&holder);
    for (uint32_t n = 1; n <= 6; n++) {
        raw_client_commit_step(&holder, n);
        if (claimed)
            expect_owned(&holder);
        expect_locked(&holder);
    }
    raw_client_close(&holder);
    cr_assert(scratch_wait_until(event_values_ended, path, 20.0));
}

Test(offences, memory_of_a_run_stays_that_runs) {
    char claimed[SCRATCH_PATH_BYTES + 16], alone[SCRATCH_PATH_BYTES + 16];
    snprintf(claimed, sizeof(claimed), "%s/claimed.events", directory);
    snprintf(alone, sizeof(alone), "%s/alone.events", directory);
    size_t fds = scratch_count_fds(daemon_process.pid);
    hold_memory(claimed, true);
    hold_memory(alone, false);
    scratch_expect_same(claimed, alone);
    daemon_process_expect_fds(&daemon_process, fds);
}
