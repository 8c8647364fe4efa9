// A daemon with nothing to do does nothing and takes next to nothing.
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "fixture.h"
#include "process_usage.h"
#include "raw_client.h"
#include "trainer.h"

enum {
    QUIET_SECONDS = 6, // longer than any pause of the daemon's
    RESIDENT_KIB_MAX = 10 << 10,
    LARGE_NUMEL = 300000,
    LARGE_STEPS = 10,
    LARGE_RUNS = 6,
    COSTLY_SCALARS = 115000, // 9 bytes each: a message just below its limit
};

TestSuite(idle, .init = fixture_set_up, .fini = fixture_tear_down, .timeout = 120);

static void expect_idle(void) {
    struct process_usage usage = process_usage_at_rest(daemon_process.pid, QUIET_SECONDS);
    cr_assert_lt(usage.resident_kib, RESIDENT_KIB_MAX, "%llu KiB", (unsigned long long)usage.resident_kib);
}

// Runs that take more memory than an idle daemon may, and all its threads.
static void train_large_runs(void) {
    static const struct gradientd_group group = {.name = "large", .numel = LARGE_NUMEL};
    float *gradient = calloc(LARGE_NUMEL, sizeof(*gradient));
    cr_assert(gradient);
    const void *gradients[] = {gradient};
    for (int i = 0; i < LARGE_RUNS; i++) {
        char name[16];
        snprintf(name, sizeof(name), "large%d", i);
        struct gradientd_options options = trainer_options(daemon_process.socket, directory, name, NULL);
        options.groups = &group;
        options.n_groups = 1;
        struct gradientd_run *run = trainer_open(&options);
        for (int64_t number = 1; number <= LARGE_STEPS; number++) {
            struct gradientd_step step = trainer_step(number);
            gradient[number] = 1.0f;
            cr_assert_eq(gradientd_submit(run, &step, gradients), GRADIENTD_OK);
        }
        trainer_close(run);
    }
    free(gradient);
}

Test(idle, without_a_run) {
    expect_idle();
}

Test(idle, with_an_attached_run) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "idle", NULL);
    struct gradientd_run *run = trainer_open(&options);
    trainer_submit_steps(run, 1, 20);
    expect_idle();
    trainer_close(run);
}

// The messages that take most to unpack, on several connections.
static void send_costly_messages(void) {
    static Gradientd__Scalar scalar = GRADIENTD__SCALAR__INIT;
    static Gradientd__Scalar *scalars[COSTLY_SCALARS];
    scalar.tag = (char[]){""};
    for (size_t i = 0; i < COSTLY_SCALARS; i++)
        scalars[i] = &scalar;
    Gradientd__Scalars body = GRADIENTD__SCALARS__INIT;
    body.n_scalars = COSTLY_SCALARS;
    body.scalars = scalars;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_SCALARS;
    message.scalars = &body;
    for (int i = 0; i < 8; i++) {
        struct raw_client client = raw_client_connect(daemon_process.socket);
        raw_client_advance(&client, RAW_WELCOME, NULL);
        raw_client_send(&client, &message, NULL, 0);
        Gradientd__DaemonMessage *answer = raw_client_receive(&client);
        cr_assert(answer && answer->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_ERROR);
        gradientd__daemon_message__free_unpacked(answer, NULL);
        raw_client_close(&client);
    }
}

Test(idle, after_costly_messages) {
    send_costly_messages();
    expect_idle();
}

Test(idle, after_large_runs) {
    train_large_runs();
    expect_idle();
}
