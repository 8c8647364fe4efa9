// The daemon that a trainer starts for itself: it must not show in the trainer's process tree, session or descriptors.
#include <criterion/criterion.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon_process.h"
#include "event_values.h"
#include "scratch.h"
#include "trainer.h"

static char directory[SCRATCH_PATH_BYTES];
static char token[SCRATCH_PATH_BYTES + 32]; // in the daemon's environment, by which a test finds its own

static void set_up(void) {
    scratch_make(directory);
    snprintf(token, sizeof(token), "GRADIENTD_TEST_TOKEN=%s", directory);
    putenv(token);
    char nobody[SCRATCH_PATH_BYTES + 16];
    snprintf(nobody, sizeof(nobody), "%s/nobody", directory);
    setenv("GRADIENTD_SOCKET", nobody, 1); // a daemon of the machine must not answer instead
}

static void tear_down(void) {
    scratch_remove(directory);
}

TestSuite(private_daemon, .init = set_up, .fini = tear_down, .timeout = 120);

static struct gradientd_options private_options(const char *run) {
    struct gradientd_options options = trainer_options(NULL, directory, run, NULL);
    options.private_daemon = true;
    options.daemon_path = daemon_process_program();
    return options;
}

// Whether process `pid` has the token and is a daemon; processes come and go while this looks.
static bool is_ours(const char *pid) {
    char path[64], text[16384];
    snprintf(path, sizeof(path), "/proc/%s/cmdline", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t bytes = fd < 0 ? -1 : read(fd, text, sizeof(text));
    if (fd >= 0)
        close(fd);
    if (bytes <= 0 || !memmem(text, (size_t)bytes, "--connection-fd", 15))
        return false;
    snprintf(path, sizeof(path), "/proc/%s/environ", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    bytes = fd < 0 ? -1 : read(fd, text, sizeof(text));
    if (fd >= 0)
        close(fd);
    return bytes > 0 && memmem(text, (size_t)bytes, token, strlen(token));
}

// The private daemon's pid, 0 when there is none; more than one fails the test.
static pid_t find_daemon(void) {
    pid_t found = 0;
    DIR *processes = opendir("/proc");
    cr_assert(processes);
    for (struct dirent *entry; (entry = readdir(processes));) {
        if (!isdigit((unsigned char)entry->d_name[0]) || !is_ours(entry->d_name))
            continue;
        cr_assert_eq(found, 0, "more than one private daemon");
        found = atoi(entry->d_name);
    }
    closedir(processes);
    return found;
}

static int open_daemon(void) {
    pid_t pid = find_daemon();
    cr_assert_gt(pid, 0, "no private daemon");
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    cr_assert_geq(pidfd, 0);
    return pidfd;
}

Test(private_daemon, serves_the_run_and_ends_with_it) {
    struct gradientd_options options = private_options("served");
    struct gradientd_run *run = trainer_open(&options);
    char path[512];
    snprintf(path, sizeof(path), "%s", gradientd_event_path(run));
    int pidfd = open_daemon();
    trainer_submit_steps(run, 1, 30);
    trainer_close(run);
    cr_assert(scratch_wait_readable(pidfd, 1.0), "the daemon outlives the run by more than a second");
    close(pidfd);

    struct event_values values;
    event_values_read(path, &values);
    cr_assert_eq(event_values_count(&values, "gradient/norm"), 30);
    cr_assert_eq(values.stops, 1);
    event_values_free(&values);
}

// As where the terminal goes, or an administrator means all daemons of the machine.
Test(private_daemon, a_hangup_means_nothing_to_it) {
    char path[512], alone[512];
    struct gradientd_options options = private_options("hungup");
    struct gradientd_run *run = trainer_open(&options);
    snprintf(path, sizeof(path), "%s", gradientd_event_path(run));
    pid_t pid = find_daemon();
    for (int64_t step = 1; step <= 30; step++) {
        cr_assert_eq(kill(pid, SIGHUP), 0);
        trainer_submit_steps(run, step, step);
    }
    cr_expect_eq(find_daemon(), pid, "another daemon serves it");
    trainer_close(run);

    options = private_options("left_alone");
    run = trainer_open(&options);
    snprintf(alone, sizeof(alone), "%s", gradientd_event_path(run));
    trainer_submit_steps(run, 1, 30);
    trainer_close(run);
    scratch_expect_same(path, alone);
}

Test(private_daemon, is_started_again_when_it_dies) {
    struct trainer_warnings warnings;
    struct gradientd_options options = trainer_options(NULL, directory, "restarted", &warnings);
    options.private_daemon = true;
    options.daemon_path = daemon_process_program();
    char restarted_path[512], alone_path[512];
    struct gradientd_run *run = trainer_open(&options);
    snprintf(restarted_path, sizeof(restarted_path), "%s", gradientd_event_path(run));
    for (int64_t step = 1; step <= 30; step++) {
        trainer_submit_steps(run, step, step);
        if (step % 10 != 0)
            continue;
        int pidfd = open_daemon();
        cr_assert_eq(syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0), 0);
        cr_assert(scratch_wait_readable(pidfd, 20.0));
        close(pidfd);
    }
    trainer_close(run);
    cr_expect_eq(warnings.count, 1, "%u warnings", warnings.count);

    options = private_options("alone");
    run = trainer_open(&options);
    snprintf(alone_path, sizeof(alone_path), "%s", gradientd_event_path(run));
    trainer_submit_steps(run, 1, 30);
    trainer_close(run);
    scratch_expect_same(restarted_path, alone_path);
}

Test(private_daemon, writes_what_a_shared_one_writes) {
    struct daemon_process shared;
    char private_path[512], shared_path[512];
    struct gradientd_options options = private_options("private");
    struct gradientd_run *run = trainer_open(&options);
    snprintf(private_path, sizeof(private_path), "%s", gradientd_event_path(run));
    trainer_submit_steps(run, 1, 30);
    trainer_close(run);

    daemon_process_start(&shared, directory);
    options = trainer_options(shared.socket, directory, "shared", NULL);
    run = trainer_open(&options);
    snprintf(shared_path, sizeof(shared_path), "%s", gradientd_event_path(run));
    trainer_submit_steps(run, 1, 30);
    trainer_close(run);
    daemon_process_stop(&shared);
    scratch_expect_same(private_path, shared_path);
}

Test(private_daemon, is_no_child_and_in_no_session_of_the_trainer) {
    struct gradientd_options options = private_options("apart");
    struct gradientd_run *run = trainer_open(&options);
    errno = 0;
    cr_assert_eq(waitpid(-1, NULL, WNOHANG), -1, "the trainer has a child it did not start");
    cr_assert_eq(errno, ECHILD);

    pid_t pid = find_daemon();
    cr_assert_gt(pid, 0);
    cr_assert_neq(getsid(pid), getsid(0));
    cr_assert_neq(getpgid(pid), getpgid(0)); // Ctrl-C goes to the trainer's group alone
    cr_assert_neq(getsid(pid), pid);         // no session leader: it can never get a terminal
    trainer_close(run);
}

static bool links_to(const char *path, const char *target) {
    struct stat here, there;
    return stat(path, &here) == 0 && stat(target, &there) == 0 && here.st_dev == there.st_dev &&
           here.st_ino == there.st_ino;
}

Test(private_daemon, has_none_of_the_trainers_descriptors) {
    char path[512], marker[SCRATCH_PATH_BYTES + 16];
    int pipe_ends[2];
    snprintf(marker, sizeof(marker), "%s/marker", directory);
    int file = open(marker, O_RDWR | O_CREAT, 0600); // without O_CLOEXEC, as many a trainer's files
    cr_assert(file >= 0 && pipe(pipe_ends) == 0);
    int high = fcntl(file, F_DUPFD, 200);
    cr_assert_geq(high, 200);
    struct gradientd_options options = private_options("closed");
    struct gradientd_run *run = trainer_open(&options);
    trainer_submit_steps(run, 1, 5);

    char fds[64], own_pipe[64];
    pid_t pid = find_daemon();
    snprintf(fds, sizeof(fds), "/proc/%d/fd", pid);
    snprintf(own_pipe, sizeof(own_pipe), "/proc/self/fd/%d", pipe_ends[0]);
    DIR *entries = opendir(fds);
    cr_assert(entries);
    unsigned seen = 0;
    for (struct dirent *entry; (entry = readdir(entries));) {
        snprintf(path, sizeof(path), "%s/%s", fds, entry->d_name);
        cr_assert_not(links_to(path, marker), "%s is the trainer's file", path);
        cr_assert_not(links_to(path, own_pipe), "%s is the trainer's pipe", path);
        if (isdigit((unsigned char)entry->d_name[0]) && atoi(entry->d_name) < 3)
            cr_assert(links_to(path, "/dev/null"), "%s is not /dev/null", path);
        seen += links_to(path, gradientd_event_path(run));
    }
    closedir(entries);
    cr_assert_eq(seen, 1, "the look at %s finds not even the event file", fds);
    trainer_close(run);
}

// A trainer whose output somebody captures: says that it runs, closes its output and stays until `stay` ends.
static _Noreturn void train_captured(int output, int stay) {
    char byte;
    struct gradientd_run *run;
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
    close(output);
    struct gradientd_options options = private_options("captured");
    if (gradientd_open(&options, &run, NULL) < 0)
        _exit(1);
    close(STDOUT_FILENO);
    close(STDERR_FILENO);
    _exit(read(stay, &byte, 1) == 0 ? 0 : 2);
}

Test(private_daemon, does_not_hold_a_captured_output_open) {
    int output[2], stay[2], status;
    char byte;
    cr_assert(pipe(output) == 0 && pipe(stay) == 0);
    pid_t trainer = fork();
    cr_assert_geq(trainer, 0);
    if (trainer == 0) {
        close(stay[1]);
        train_captured(output[1], stay[0]);
    }
    close(output[1]);
    cr_assert(scratch_wait_readable(output[0], 20.0), "the captured output stays open");
    cr_assert_eq(read(output[0], &byte, 1), 0, "something was printed");
    cr_assert_gt(find_daemon(), 0, "the daemon is gone before the trainer");
    int pidfd = open_daemon();
    close(stay[1]);
    cr_assert_eq(waitpid(trainer, &status, 0), trainer);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    cr_assert(scratch_wait_readable(pidfd, 1.0), "the daemon outlives the trainer by more than a second");
}

// A trainer that is killed in the middle of its run.
static _Noreturn void train_until_killed(int report) {
    struct gradientd_run *run;
    struct gradientd_options options = private_options("cut");
    if (gradientd_open(&options, &run, NULL) < 0)
        _exit(1);
    trainer_submit_steps(run, 1, 20);
    const char *path = gradientd_event_path(run);
    if (write(report, path, strlen(path) + 1) < 0)
        _exit(2);
    pause();
    _exit(3);
}

Test(private_daemon, ends_the_file_of_a_killed_trainer) {
    int report[2];
    char path[512];
    cr_assert_eq(pipe(report), 0);
    pid_t trainer = fork();
    cr_assert_geq(trainer, 0);
    if (trainer == 0)
        train_until_killed(report[1]);
    cr_assert_gt(read(report[0], path, sizeof(path)), 0);
    int pidfd = open_daemon();
    kill(trainer, SIGKILL);
    cr_assert_eq(waitpid(trainer, NULL, 0), trainer);
    cr_assert(scratch_wait_readable(pidfd, 1.0), "the daemon outlives the trainer by more than a second");

    struct event_values values;
    event_values_read(path, &values);
    cr_assert_eq(event_values_count(&values, "gradient/norm"), 20);
    cr_assert_eq(values.stops, 1);
    event_values_free(&values);
}

Test(private_daemon, starts_from_the_environment) {
    struct gradientd_options options = private_options("environment");
    options.daemon_path = NULL;
    setenv("GRADIENTD_DAEMON", daemon_process_program(), 1);
    struct gradientd_run *run = trainer_open(&options);
    trainer_submit_steps(run, 1, 5);
    trainer_close(run);
}

Test(private_daemon, works_where_the_trainer_ignores_its_children) {
    signal(SIGCHLD, SIG_IGN); // waitpid() fails with ECHILD then
    struct gradientd_options options = private_options("ignored");
    struct gradientd_run *run = trainer_open(&options);
    trainer_submit_steps(run, 1, 5);
    trainer_close(run);
}

Test(private_daemon, program_that_never_gets_on_is_given_connect_timeout) {
    char program[SCRATCH_PATH_BYTES + 16];
    struct gradientd_run *run;
    struct gradientd_error error;
    snprintf(program, sizeof(program), "%s/hangs", directory);
    FILE *script = fopen(program, "w");
    cr_assert(script && fputs("#!/bin/sh\nexec sleep 2\n", script) > 0 && fclose(script) == 0);
    cr_assert_eq(chmod(program, 0700), 0);

    struct gradientd_options options = private_options("hangs");
    options.daemon_path = program;
    options.connect_timeout = 0.2;
    cr_assert_eq(gradientd_open(&options, &run, &error), -ETIMEDOUT, "%s", error.text);
    cr_assert(strstr(error.text, "did not send Welcome within connect_timeout"), "%s", error.text);
    errno = 0;
    cr_assert(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD, "the program is still there");
}

Test(private_daemon, program_that_does_not_start_is_named) {
    static const struct {
        const char *program;
        const char *says;
    } cases[] = {
        {"/nowhere/gradientd", "/nowhere/gradientd"}, // not there
        {"/dev/null", "/dev/null"},                   // no program
        {"/bin/false", "before it sent Welcome"},     // fails
        {"/bin/true", "before it sent Welcome"},      // no daemon
    };
    size_t fds = scratch_count_fds(0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct gradientd_options options = private_options("failed");
        struct gradientd_run *run;
        struct gradientd_error error;
        options.daemon_path = cases[i].program;
        cr_assert_lt(gradientd_open(&options, &run, &error), 0);
        cr_assert_null(run);
        cr_assert(strstr(error.text, cases[i].says), "%s", error.text);
        cr_assert_eq(scratch_count_fds(0), fds, "%s: a descriptor leaked", cases[i].program);
        errno = 0;
        cr_assert(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD, "%s left a child", cases[i].program);
    }
}

static atomic_uint child_signals;
static atomic_bool looking;
static atomic_uint children_seen;

static void count_child_signal(int number) {
    (void)number;
    atomic_fetch_add(&child_signals, 1);
}

// A thread of the trainer that waits for children of its own, as a data loader's does.
static void *look_for_children(void *context) {
    while (atomic_load(&looking))
        if (waitpid(-1, NULL, WNOHANG) >= 0 || errno != ECHILD)
            atomic_fetch_add(&children_seen, 1);
    return context;
}

Test(private_daemon, is_no_child_for_a_moment_either) {
    struct sigaction action = {.sa_handler = count_child_signal};
    pthread_t thread;
    sigaction(SIGCHLD, &action, NULL);
    atomic_store(&looking, true);
    cr_assert_eq(pthread_create(&thread, NULL, look_for_children, NULL), 0);
    for (int i = 0; i < 20; i++) {
        char name[16];
        snprintf(name, sizeof(name), "run%d", i);
        struct gradientd_options options = private_options(name);
        trainer_close(trainer_open(&options));
    }
    atomic_store(&looking, false);
    pthread_join(thread, NULL);
    cr_expect_eq(children_seen, 0);
    cr_expect_eq(child_signals, 0);
}

Test(private_daemon, leaves_closed_standard_descriptors_closed) {
    struct gradientd_options options = private_options("closed");
    trainer_expect_standard_descriptors_left(&options);
}
