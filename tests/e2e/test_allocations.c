// Every allocation of the daemon fails: at start it ends with a message or starts all the same; later the client
// that caused it is told, or served all the same, and nobody else notices. The daemon runs with failing_allocations.c
// preloaded. $GRADIENTD_TEST_STRIDE makes it skip some: n takes every n-th allocation.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon_process.h"
#include "failing_allocations.h"
#include "gradientd/protocol.h"
#include "raw_client.h"
#include "scratch.h"
#include "trainer.h"

enum { RUNS = 40, ALLOCATIONS_MAX = 5000, SESSION_STEPS = 3, PATH_BYTES = SCRATCH_PATH_BYTES + 32 };

static char directory[SCRATCH_PATH_BYTES];
static struct daemon_process daemon_process;
static struct failing_allocations *allocations;
static size_t daemon_fds; // at rest

// ---- The daemon -----------------------------------------------------------------------------------------------------

// With quotas for RUNS runs, their descriptors, and those that one more Attach may bring. Returns whether it takes
// connections.
static bool launch(void) {
    char socket[DAEMON_PATH_BYTES], state[DAEMON_PATH_BYTES];
    snprintf(socket, sizeof(socket), "%s/socket", directory);
    snprintf(state, sizeof(state), "%s/state", directory);
    const char *const arguments[] = {"--socket",           socket,
                                     "--workers",          "2",
                                     "--runs-per-user=40", "--connections-per-user=40",
                                     "--fds-per-user=123", NULL};
    cr_assert_eq(setenv("STATE_DIRECTORY", state, 1), 0);
    cr_assert_eq(setenv("CONFIGURATION_DIRECTORY", directory, 1), 0);
    cr_assert_eq(setenv("LD_PRELOAD", getenv("GRADIENTD_TEST_PRELOADED"), 1), 0);
    daemon_process_launch(&daemon_process, directory, arguments, NULL);
    unsetenv("LD_PRELOAD");
    return daemon_process_comes_up(&daemon_process);
}

// From now on the n-th allocation fails, and those after it.
static void arm(int64_t n, int64_t in_a_row) {
    allocations->in_a_row = in_a_row;
    atomic_store(&allocations->left, n);
}

// Whether it has come to that.
static bool disarm(void) {
    return atomic_exchange(&allocations->left, INT64_MAX) <= 0;
}

static void set_up(void) {
    char path[PATH_BYTES];
    scratch_make(directory);
    snprintf(path, sizeof(path), "%s/allocations", directory);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    cr_assert(fd >= 0 && ftruncate(fd, sizeof(*allocations)) == 0);
    allocations = mmap(NULL, sizeof(*allocations), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    cr_assert_neq(allocations, MAP_FAILED);
    close(fd);
    disarm();
    cr_assert_eq(setenv("GRADIENTD_TEST_ALLOCATIONS", path, 1), 0);
}

static void tear_down(void) {
    if (daemon_process.pid > 0)
        daemon_process_stop(&daemon_process);
    scratch_remove(directory);
}

TestSuite(allocations, .init = set_up, .fini = tear_down, .timeout = 600);

static int64_t stride(void) {
    const char *given = getenv("GRADIENTD_TEST_STRIDE");
    return given ? strtol(given, NULL, 10) : 1;
}

static void expect_daemon_lives(const char *kind, int64_t n) {
    if (scratch_wait_readable(daemon_process.pidfd, 0.0)) {
        int status = daemon_process_wait_end(&daemon_process);
        struct scratch_bytes log = scratch_read(daemon_process.log);
        cr_assert_fail("%s, allocation %lld: the daemon's wait status is 0x%x\n%.*s", kind, (long long)n,
                       (unsigned)status, (int)log.bytes, (char *)log.data);
    }
}

// ---- A client -------------------------------------------------------------------------------------------------------

struct kind {
    const char *name;
    enum gradientd_transport transport;
    bool logdir; // else the file is the daemon's
};

static struct trainer_warnings warnings;

// What is said of a client that was refused, or of a daemon that went.
static bool is_told(const char *text) {
    return strstr(text, "refused") || strstr(text, "went away") || strstr(text, "memory") || strstr(text, "thread");
}

static bool is_over_limit(const struct gradientd_error *error) {
    return strstr(error->text, "the limit is");
}

static const double PATIENT = 20.0;

// One with all that a run may have. Whether it was served from beginning to end.
static bool run_session(const struct kind *kind, int64_t n, double close_timeout) {
    static const enum gradientd_rule shadows[] = {GRADIENTD_ADAFOM};
    static const float second_moment[TRAINER_NUMEL] = {0.5f, 0.25f, 1.0f, 2.0f, 4.0f};
    static const float *const start[] = {second_moment, second_moment + TRAINER_FIRST_NUMEL};
    static const struct gradientd_parameter_group adam = {.beta2 = 0.999, .eps = 1e-8};
    static const char *const patterns[] = {"layer/*"};
    struct gradientd_error error;
    struct gradientd_run *run;
    char name[64];

    snprintf(name, sizeof(name), "%s%lld", kind->name, (long long)n);
    struct gradientd_options options =
        trainer_options(daemon_process.socket, kind->logdir ? directory : NULL, name, &warnings);
    options.transport = kind->transport;
    options.close_timeout = close_timeout;
    options.parameter_groups = &adam;
    options.optimizer.rule = GRADIENTD_ADAM;
    options.shadow_rules = shadows, options.n_shadow_rules = 1;
    options.include = patterns, options.n_include = 1;
    options.start_second_moment = start, options.start_optimizer_step = 10;
    int opened = gradientd_open(&options, &run, &error);
    // what the ones before held is given back a moment after their descriptors
    for (double since = scratch_now(); opened < 0 && is_over_limit(&error) && scratch_now() - since < PATIENT;)
        opened = gradientd_open(&options, &run, &error);
    if (opened < 0) {
        cr_expect(is_told(error.text), "%s, allocation %lld: %s", kind->name, (long long)n, error.text);
        cr_expect_not(is_over_limit(&error), "%s, allocation %lld: something was not given back: %s", kind->name,
                      (long long)n, error.text);
        return false;
    }
    for (int64_t i = 1; i <= SESSION_STEPS; i++) {
        const struct gradientd_scalar loss = {"train/loss", (float)i};
        float gradient[TRAINER_NUMEL];
        struct gradientd_step step = trainer_step(i);
        trainer_gradient(i, gradient);
        step.scalars = &loss, step.n_scalars = 1;
        trainer_submit(run, &step, gradient);
    }
    bool served = gradientd_close(run, GRADIENTD_SUCCESS) == GRADIENTD_OK;
    cr_expect(warnings.count == 0 || !strstr(warnings.text, "timeout"), "%s, allocation %lld: %s", kind->name,
              (long long)n, warnings.text);
    return served;
}

// ---- Later ----------------------------------------------------------------------------------------------------------

static const struct kind kinds[] = {
    {"memory", GRADIENTD_SHARED_MEMORY, true},
    {"inline", GRADIENTD_INLINE, false},
    {"deflated", GRADIENTD_INLINE_DEFLATED, true},
};

static struct gradientd_run *open_victim(const char *name, char path[512]) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, name, NULL);
    struct gradientd_run *run = trainer_open(&options);
    snprintf(path, 512, "%s", gradientd_event_path(run));
    return run;
}

// Fails one allocation after the other in a client's session, or all from there on, until a session passes without.
// Between them a step of another run is taken, whose number is *step.
static void fail_all(const struct kind *kind, int64_t in_a_row, struct gradientd_run *victim, int64_t *step) {
    unsigned served = 0;
    int64_t n = 1;
    bool failed = true;

    for (; failed; n += stride()) {
        cr_assert_lt(n, ALLOCATIONS_MAX);
        arm(n, in_a_row);
        bool is_served = run_session(kind, n, in_a_row == 1 ? PATIENT : 1.0); // where all fail, it does not come back
        failed = disarm();
        daemon_process_expect_fds(&daemon_process, daemon_fds);
        served += is_served;
        cr_expect(failed || is_served, "%s: not served, and no allocation failed", kind->name);
        expect_daemon_lives(kind->name, n);
        ++*step;
        trainer_submit_steps(victim, *step, *step);
    }
    cr_log_info("%s: %lld allocations, %u sessions were served all the same", kind->name, (long long)n - 1, served);
}

// Whether there is room for all the runs that the quotas allow, next to the victim.
static bool is_all_given_back(const void *context) {
    struct gradientd_run *runs[RUNS - 1];
    size_t opened = 0;
    (void)context;
    for (; opened < RUNS - 1; opened++) {
        char name[16];
        snprintf(name, sizeof(name), "full%zu", opened);
        struct gradientd_options options = trainer_options(daemon_process.socket, directory, name, &warnings);
        if (gradientd_open(&options, &runs[opened], NULL) < 0)
            break;
    }
    for (size_t i = 0; i < opened; i++)
        trainer_close(runs[i]);
    return opened == RUNS - 1;
}

Test(allocations, one_that_a_client_causes_ends_that_client_alone) {
    char path[512], alone[512];
    int64_t step = 0;
    cr_assert(launch());
    struct gradientd_run *victim = open_victim("victim", path);
    daemon_fds = scratch_count_fds(daemon_process.pid);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        for (int all = 0; all < 2; all++)
            fail_all(&kinds[i], all ? INT64_MAX : 1, victim, &step);
    cr_expect(scratch_wait_until(is_all_given_back, NULL, 20.0), "something is charged that nobody holds");
    trainer_close(victim);

    struct gradientd_run *other = open_victim("alone", alone);
    trainer_submit_steps(other, 1, step);
    trainer_close(other);
    scratch_expect_same(path, alone);
}

// The daemon's first client brings about what is put off until there is one.
Test(allocations, one_that_the_first_client_causes) {
    bool failed = true;
    int64_t n = 1;
    for (; failed; n += stride()) {
        cr_assert_lt(n, ALLOCATIONS_MAX);
        cr_assert(launch());
        daemon_fds = scratch_count_fds(daemon_process.pid);
        arm(n, 1);
        run_session(&kinds[0], n, PATIENT);
        failed = disarm();
        expect_daemon_lives("first", n);
        cr_expect(run_session(&kinds[1], n, PATIENT), "allocation %lld: the next client is not served", (long long)n);
        daemon_process_stop(&daemon_process);
    }
    cr_log_info("%lld allocations", (long long)n - 1);
}

// A run comes back to a daemon that was started anew. Returns whether it was served to its end, and its file's path.
static bool come_back(int64_t n, char path[512]) {
    char name[64];
    snprintf(name, sizeof(name), "back%lld", (long long)n);
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, name, &warnings);
    struct gradientd_run *run = trainer_open(&options);
    snprintf(path, 512, "%s", gradientd_event_path(run));
    trainer_submit_steps(run, 1, SESSION_STEPS);
    daemon_process_kill(&daemon_process);
    cr_assert(launch());
    arm(n, 1);
    for (int64_t i = SESSION_STEPS + 1; i <= 2 * SESSION_STEPS; i++) {
        float gradient[TRAINER_NUMEL];
        struct gradientd_step step = trainer_step(i);
        trainer_gradient(i, gradient);
        trainer_submit(run, &step, gradient);
    }
    bool served = gradientd_close(run, GRADIENTD_SUCCESS) == GRADIENTD_OK;
    cr_expect_leq(warnings.count, 1);
    return served;
}

static bool has_attached_a_run(void) {
    struct scratch_bytes log = scratch_read(daemon_process.log);
    bool attached = memmem(log.data, log.bytes, "attached by", 11) != NULL;
    free(log.data);
    return attached;
}

// A daemon that has no memory for a run that comes back may have it a moment later. Once it is attached, it is a client
// like any other.
Test(allocations, one_on_the_way_back_costs_no_run) {
    char path[512], alone[512];
    bool failed = true;
    cr_assert(launch());
    struct gradientd_run *run = open_victim("alone", alone);
    trainer_submit_steps(run, 1, 2 * SESSION_STEPS);
    trainer_close(run);
    for (int64_t n = 1; failed; n += stride()) {
        cr_assert_lt(n, ALLOCATIONS_MAX);
        bool is_served = come_back(n, path);
        failed = disarm();
        expect_daemon_lives("back", n);
        cr_expect(is_served || has_attached_a_run(), "allocation %lld: the run is lost: %s", (long long)n,
                  warnings.text);
        if (is_served)
            scratch_expect_same(path, alone);
    }
}

// Whether the daemon greets it.
static bool greet(struct raw_client *client) {
    *client = raw_client_connect(daemon_process.socket);
    raw_client_say_hello(client, GRADIENTD_PROTOCOL_VERSION);
    Gradientd__DaemonMessage *welcome = raw_client_receive(client);
    if (!welcome)
        return false;
    gradientd__daemon_message__free_unpacked(welcome, NULL);
    return true;
}

// What grows with the number of clients: libuv's own table among it, without which it would abort.
Test(allocations, one_for_another_client) {
    enum { CLIENTS = RUNS };
    struct raw_client clients[CLIENTS];
    cr_assert(launch());
    daemon_fds = scratch_count_fds(daemon_process.pid);
    for (size_t i = 0; i < CLIENTS; i++)
        for (int64_t n = 1;; n++) {
            cr_assert_lt(n, ALLOCATIONS_MAX);
            arm(n, 1);
            bool is_served = greet(&clients[i]);
            if (!disarm() && is_served)
                break;
            raw_client_close(&clients[i]);
            daemon_process_expect_fds(&daemon_process, daemon_fds + i);
            expect_daemon_lives("another", n);
        }
    for (size_t i = 0; i < CLIENTS; i++)
        raw_client_close(&clients[i]);
}

// ---- While the configuration is read again --------------------------------------------------------------------------

static bool has_reloaded(const void *context) {
    const int64_t *times = context;
    struct scratch_bytes log = scratch_read(daemon_process.log);
    int64_t found = 0;
    const uint8_t *end = log.data + log.bytes;
    for (const uint8_t *at = log.data; (at = memmem(at, (size_t)(end - at), ": configuration", 15)); at++)
        found++;
    for (const uint8_t *at = log.data; (at = memmem(at, (size_t)(end - at), "cannot be read again", 20)); at++)
        found++;
    free(log.data);
    return found >= *times;
}

static void write_config(const char *metrics_file, const char *admin_group) {
    char path[PATH_BYTES];
    snprintf(path, sizeof(path), "%s/gradientd.conf", directory);
    FILE *stream = fopen(path, "w");
    cr_assert_not_null(stream);
    fprintf(stream, "[access]\nadmin-group =%s\n[metrics]\nmetrics-file = %s\n", admin_group, metrics_file);
    fclose(stream);
}

static bool is_there(const void *path) {
    return access(path, F_OK) == 0;
}

// A reload for which there is no memory says so, and holds nothing afterwards.
Test(allocations, one_of_a_reload_leaves_what_was) {
    char metrics_file[PATH_BYTES];
    bool failed = true;
    snprintf(metrics_file, sizeof(metrics_file), "%s/metrics.prom", directory);
    write_config(metrics_file, "");
    cr_assert(launch());
    write_config(metrics_file, " 1");
    cr_assert(scratch_wait_until(is_there, metrics_file, PATIENT)); // written, and so no descriptor any more
    daemon_fds = scratch_count_fds(daemon_process.pid);
    int64_t n = 1;
    for (; failed; n++) {
        cr_assert_lt(n, ALLOCATIONS_MAX);
        arm(n, 1);
        cr_assert_eq(kill(daemon_process.pid, SIGHUP), 0);
        cr_assert(scratch_wait_until(has_reloaded, &n, PATIENT), "allocation %lld: the log does not say", (long long)n);
        failed = disarm();
        expect_daemon_lives("reload", n);
        daemon_process_expect_fds(&daemon_process, daemon_fds);
    }
    cr_log_info("%lld allocations", (long long)n - 1);
    cr_expect_gt(n, 5);
    struct scratch_bytes log = scratch_read(daemon_process.log);
    cr_expect(memmem(log.data, log.bytes, "the one before stays: Cannot allocate memory", 44));
    free(log.data);
    cr_expect(run_session(&kinds[1], n, PATIENT), "it does not serve");
}

// ---- At start -------------------------------------------------------------------------------------------------------

static void expect_said_why(int64_t n) {
    int status = daemon_process_wait_end(&daemon_process);
    struct scratch_bytes log = scratch_read(daemon_process.log);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_FAILURE, "allocation %lld: wait status 0x%x\n%.*s",
              (long long)n, (unsigned)status, (int)log.bytes, (char *)log.data);
    cr_expect(memmem(log.data, log.bytes, "gradientd", 9), "allocation %lld: it says \"%.*s\"", (long long)n,
              (int)log.bytes, (char *)log.data);
    free(log.data);
}

Test(allocations, one_at_start_ends_it_with_a_message) {
    unsigned started = 0;
    bool failed = true;
    int64_t n = 1;
    for (; failed; n++) {
        cr_assert_lt(n, ALLOCATIONS_MAX);
        arm(n, 1);
        bool is_up = launch();
        failed = disarm();
        if (!is_up) {
            expect_said_why(n);
            continue;
        }
        started++;
        cr_expect(run_session(&kinds[1], n, PATIENT), "allocation %lld: it started, and does not serve", (long long)n);
        daemon_process_stop(&daemon_process);
    }
    cr_log_info("%lld allocations, it started %u times", (long long)n - 1, started);
}
