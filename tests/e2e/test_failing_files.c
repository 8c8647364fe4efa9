// Writes that fail, are cut short, or do not return: nothing of the file is lost, the log says it once, and other runs
// do not notice. The daemon runs with failing_files.c preloaded.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "event_values.h"
#include "failing_files.h"
#include "file_faults.h"
#include "fixture.h"
#include "trainer.h"

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

static struct failing_files *files;
static char path[512]; // of the run's event file

static void map_control(void) {
    char control[SCRATCH_PATH_BYTES + 16];
    snprintf(control, sizeof(control), "%s/control", directory);
    int fd = open(control, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    cr_assert(fd >= 0 && ftruncate(fd, sizeof(*files)) == 0);
    files = mmap(NULL, sizeof(*files), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    cr_assert_neq(files, MAP_FAILED);
    close(fd);
    strcpy(files->name, "/faulty/");
    cr_assert_eq(setenv("GRADIENTD_TEST_FAILING_FILES", control, 1), 0);
}

static void start_daemon(void) {
    cr_assert_eq(setenv("LD_PRELOAD", getenv("GRADIENTD_TEST_PRELOADED"), 1), 0);
    daemon_process_start(&daemon_process, directory);
    unsetenv("LD_PRELOAD");
}

static void set_up(void) {
    scratch_make(directory);
    map_control();
    start_daemon();
}

TestSuite(failing_files, .init = set_up, .fini = fixture_tear_down, .timeout = 120);

static struct gradientd_run *open_faulty(void) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "faulty", NULL);
    struct gradientd_run *run = trainer_open(&options);
    snprintf(path, sizeof(path), "%s", gradientd_event_path(run));
    return run;
}

static struct gradientd_run *train_until(int64_t last) {
    struct gradientd_run *run = open_faulty();
    faulty_submit(run, 1, last);
    faulty_wait_written(path, last);
    return run;
}

static bool has_written(const void *writes) {
    return files->writes >= *(const uint64_t *)writes;
}

// Waits until so many more writes have begun.
static void wait_writes(uint64_t more) {
    uint64_t writes = files->writes + more;
    cr_assert(scratch_wait_until(has_written, &writes, 30.0), "nothing is tried again");
}

Test(failing_files, an_error_that_goes_away_leaves_the_file_whole) {
    const int errors[] = {ENOSPC, EDQUOT, EROFS, EIO, EFBIG, ESTALE};
    for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
        struct gradientd_run *run = train_until(10);
        files->short_bytes = 4321;
        faulty_submit(run, 11, 15);
        files->error = errors[i];
        faulty_submit(run, 16, 25);
        faulty_wait_logged("run faulty: event file: not written", strerror(errors[i]));
        wait_writes(2);
        files->short_bytes = 0;
        files->error = 0;
        faulty_submit(run, 26, 30);
        trainer_close(run);
        faulty_expect_undisturbed(path, 30);
        faulty_expect_one_trouble("faulty", strerror(errors[i]));
        daemon_process_stop(&daemon_process);
        start_daemon();
    }
}

Test(failing_files, short_writes_are_no_trouble) {
    const uint32_t most[] = {1, 11, 12, 13, 4096};
    struct gradientd_run *run = train_until(2);
    for (size_t i = 0; i < ARRAY_SIZE(most); i++) {
        int64_t step = 3 + (int64_t)i;
        files->short_bytes = most[i];
        faulty_submit(run, step, step);
        faulty_wait_written(path, step);
    }
    trainer_close(run);
    faulty_expect_undisturbed(path, 2 + ARRAY_SIZE(most));
    cr_expect_eq(faulty_log_lines("run faulty: event file: ", ""), 0);
}

// However often the kind of error changes, the log does not fill up.
Test(failing_files, errors_that_take_turns_have_a_line_each) {
    const int errors[] = {ENOSPC, EIO};
    struct gradientd_run *run = train_until(10);
    files->error = errors[0];
    faulty_submit(run, 11, 20);
    for (size_t i = 0; i < 5; i++) {
        wait_writes(1);
        files->error = errors[i % 2];
    }
    for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
        faulty_wait_logged("run faulty: event file: not written", strerror(errors[i]));
    files->error = 0;
    trainer_close(run);
    faulty_expect_undisturbed(path, 20);
    cr_expect_eq(faulty_log_lines("run faulty: event file: not written", ""), ARRAY_SIZE(errors));
    cr_expect_eq(faulty_log_lines("run faulty: event file: writing again", ""), 1);
}

// The pauses grow: a disk that is full for an hour is asked 12 times a minute.
Test(failing_files, what_fails_is_tried_less_and_less_often) {
    struct gradientd_run *run = train_until(10);
    double start = scratch_now();
    files->error = ENOSPC;
    uint64_t writes = files->writes + 5;
    faulty_submit(run, 11, 11);
    cr_assert(scratch_wait_until(has_written, &writes, 30.0));
    cr_expect_geq(scratch_now() - start, 1.5, "the pauses are 0.1, 0.2, 0.4 and 0.8 s");
    files->error = 0;
    trainer_close(run);
    faulty_expect_undisturbed(path, 11);
}

// ---- Writes that do not return --------------------------------------------------------------------------------------

static bool hangs(const void *nothing) {
    (void)nothing;
    return files->waits;
}

static struct gradientd_run *train_and_hang(int64_t last) {
    struct gradientd_run *run = train_until(last);
    files->hangs = true;
    faulty_submit(run, last + 1, last + 1);
    cr_assert(scratch_wait_until(hangs, NULL, 30.0));
    return run;
}

Test(failing_files, a_write_that_hangs_holds_up_its_run_alone) {
    struct gradientd_run *run = train_and_hang(10);
    faulty_submit(run, 12, 20);
    faulty_reference(20); // begins, trains and ends meanwhile
    cr_expect(files->waits);
    files->hangs = false;
    faulty_submit(run, 21, 30);
    trainer_close(run);
    faulty_expect_undisturbed(path, 30);
    cr_expect_eq(faulty_log_lines("run faulty: event file: ", ""), 0);
}

Test(failing_files, a_daemon_whose_writer_hangs_still_ends) {
    struct gradientd_run *run = train_and_hang(10);
    double start = scratch_now();
    cr_assert_eq(kill(daemon_process.pid, SIGTERM), 0);
    int status = daemon_process_wait_end(&daemon_process);
    double seconds = scratch_now() - start;
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_FAILURE, "wait status 0x%x", (unsigned)status);
    cr_expect_leq(seconds, 20.0); // 11 of its own
    cr_expect_eq(faulty_log_lines("runs could not be written", ""), 1);

    files->hangs = false; // another daemon finds everything in the run's memory
    daemon_process_start(&daemon_process, directory);
    faulty_submit(run, 12, 20);
    trainer_close(run);
    faulty_expect_undisturbed(path, 20);
}

Test(failing_files, a_daemon_that_ends_gives_up_what_fails) {
    struct gradientd_run *run = train_until(10);
    files->error = EIO;
    faulty_submit(run, 11, 12);
    faulty_wait_logged("run faulty: event file: not written", strerror(EIO));
    cr_assert_eq(kill(daemon_process.pid, SIGTERM), 0);
    int status = daemon_process_wait_end(&daemon_process);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_FAILURE, "wait status 0x%x", (unsigned)status);
    files->error = 0;
    daemon_process_start(&daemon_process, directory);
    faulty_submit(run, 13, 20);
    trainer_close(run);
    faulty_expect_undisturbed(path, 20);
}
