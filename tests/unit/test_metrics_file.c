// The metrics file is whole at every moment, and a file system that does not take it, or does not answer, costs nobody
// anything. The calls of rename() pass through the test, which can hold them.
#include "metrics_file.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "metrics_text.h"

static char directory[] = "/tmp/gd-metrics-XXXXXX";
static char path[64], temporary[80];
static char given[64]; // the path, for as long as the file's owner has it

// ---- what the log is told

static int n_errors, n_infos;

void __wrap_gd_log(enum gd_log_level level, const char *format, ...);
void __wrap_gd_log(enum gd_log_level level, const char *format, ...) {
    (void)format;
    n_errors += level <= GD_LOG_WARNING;
    n_infos += level > GD_LOG_WARNING;
}

// ---- a rename that hangs

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool held;
static int renames; // that were begun

int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to) {
    pthread_mutex_lock(&mutex);
    renames++;
    pthread_cond_broadcast(&changed);
    while (held)
        pthread_cond_wait(&changed, &mutex);
    pthread_mutex_unlock(&mutex);
    return __real_rename(from, to);
}

static void hold(bool now) {
    pthread_mutex_lock(&mutex);
    held = now;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
}

static void wait_renames(int least) {
    pthread_mutex_lock(&mutex);
    while (renames < least)
        pthread_cond_wait(&changed, &mutex);
    pthread_mutex_unlock(&mutex);
}

// ---- the file

static struct gd_metrics_file *file;

static void set_up(void) {
    cr_assert(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/gradientd.prom", directory);
    snprintf(temporary, sizeof(temporary), "%s.tmp", path);
    memcpy(given, path, sizeof(given));
    cr_assert_eq(gd_metrics_file_new(given, &file), 0);
}

static void tear_down(void) {
    unlink(path);
    unlink(temporary);
    cr_expect_eq(rmdir(directory), 0, "something is left behind");
}

TestSuite(metrics_file, .init = set_up, .fini = tear_down, .timeout = 60);

static bool offer(const char *text) {
    struct gd_metrics_text metrics = {.bytes = strlen(text)};
    memcpy(metrics.text, text, metrics.bytes);
    return gd_metrics_file_write(file, &metrics);
}

static void write_text(const char *text) {
    while (!offer(text)) // the one before is still being written
        sched_yield();
}

static void finish_within(const char *text, int milliseconds) {
    struct gd_metrics_text metrics = {.bytes = strlen(text)};
    memcpy(metrics.text, text, metrics.bytes);
    gd_metrics_file_finish(file, &metrics, milliseconds);
}

static void finish(const char *text) {
    finish_within(text, 20000);
}

static void expect_content(const char *expected) {
    char text[64] = "";
    int fd = open(path, O_RDONLY);
    cr_assert_geq(fd, 0, "%s: %s", path, strerror(errno));
    ssize_t bytes = read(fd, text, sizeof(text) - 1);
    close(fd);
    cr_expect_geq(bytes, 0);
    cr_expect_str_eq(text, expected);
}

Test(metrics_file, holds_what_was_written_last) {
    write_text("first\n");
    write_text("second, which is longer\n");
    finish("last\n");
    expect_content("last\n");
    cr_expect_lt(access(temporary, F_OK), 0);
    cr_expect_eq(n_errors, 0);
}

Test(metrics_file, is_readable_to_all_whatever_the_umask) {
    struct stat status;
    umask(0077);
    finish("text\n");
    cr_assert_eq(stat(path, &status), 0);
    cr_expect_eq(status.st_mode & 07777, 0644, "0%o", status.st_mode & 07777);
}

Test(metrics_file, does_not_follow_what_lies_in_the_temporary_place) {
    char other[64];
    snprintf(other, sizeof(other), "%s/other", directory);
    cr_assert_eq(symlink(other, temporary), 0);
    finish("text\n");
    expect_content("text\n");
    cr_expect_lt(access(other, F_OK), 0, "it was written to");
}

Test(metrics_file, a_write_that_hangs_is_waited_for_by_nobody) {
    hold(true);
    cr_assert(offer("first\n"));
    wait_renames(1);
    cr_expect_not(offer("second\n"));
    cr_expect_not(offer("third\n"));
    cr_expect_lt(access(path, F_OK), 0);
    hold(false);
    write_text("fourth\n");
    wait_renames(2);
    finish("last\n");
    expect_content("last\n");
    cr_expect_eq(renames, 3);
}

Test(metrics_file, an_end_waits_a_bounded_time_for_it) {
    struct timespec begun, ended;
    hold(true);
    cr_assert(offer("first\n"));
    wait_renames(1);
    clock_gettime(CLOCK_MONOTONIC, &begun);
    finish_within("last\n", 50);
    clock_gettime(CLOCK_MONOTONIC, &ended);
    double seconds = (double)(ended.tv_sec - begun.tv_sec) + (double)(ended.tv_nsec - begun.tv_nsec) * 1e-9;
    cr_expect(seconds >= 0.05 && seconds < 5.0, "%f s", seconds);
    cr_expect_eq(n_errors, 1);
    memset(given, 0, sizeof(given)); // whoever gave it ends meanwhile
    hold(false);                     // the thread goes on by itself, with what it has
    while (access(path, F_OK) < 0)
        sched_yield();
    expect_content("first\n");
}

Test(metrics_file, tells_of_errors_once_until_they_go_away) {
    cr_assert_eq(mkdir(path, 0700), 0); // which no file replaces
    for (int i = 1; i <= 3; i++) {
        write_text("text\n");
        wait_renames(i);
    }
    write_text("text\n"); // the third has been told of by then
    wait_renames(4);
    cr_assert_eq(rmdir(path), 0);
    write_text("text\n");
    wait_renames(5);
    finish("last\n");
    cr_expect_eq(n_errors, 1);
    cr_expect_eq(n_infos, 1);
    expect_content("last\n");
}
