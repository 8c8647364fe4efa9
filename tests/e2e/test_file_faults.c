// Event files that cannot be written for a while, or that somebody deletes or cuts off: nothing of them is lost that
// need be, the log says it once, and other runs do not notice. Real faults: a full disk, a limit, truncate, unlink,
// fcntl.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bytes.h"
#include "event_values.h"
#include "file_faults.h"
#include "fixture.h"
#include "trainer.h"

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

TestSuite(file_faults, .init = fixture_set_up, .fini = fixture_tear_down, .timeout = 120);

static char path[512]; // of the run's event file

static struct gradientd_run *open_faulty(const char *logdir) {
    struct gradientd_options options = trainer_options(daemon_process.socket, logdir, "faulty", NULL);
    struct gradientd_run *run = trainer_open(&options);
    snprintf(path, sizeof(path), "%s", gradientd_event_path(run));
    return run;
}

static uint64_t file_bytes(void) {
    struct stat status;
    cr_assert_eq(stat(path, &status), 0, "%s: %s", path, strerror(errno));
    return (uint64_t)status.st_size;
}

// ---- A disk that is full --------------------------------------------------------------------------------------------

enum { DISK_BYTES = 8 << 20 };

static char disk[SCRATCH_PATH_BYTES + 8];
static char ballast[SCRATCH_PATH_BYTES + 24];

// A small disk that this test alone sees, and that goes with it; the daemon is given descriptors.
static void mount_disk(void) {
    char options[32];
    snprintf(disk, sizeof(disk), "%s/disk", directory);
    snprintf(ballast, sizeof(ballast), "%s/ballast", disk);
    snprintf(options, sizeof(options), "size=%d", DISK_BYTES);
    cr_assert_eq(mkdir(disk, 0700), 0);
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", disk, "tmpfs", 0, options) < 0)
        cr_skip_test("skipped: a file system cannot be mounted here: %s", strerror(errno));
}

static void unmount_disk(void) {
    cr_assert_eq(umount2(disk, MNT_DETACH), 0);
}

static void fill_disk(void) {
    static const uint8_t zeros[4096];
    int fd = open(ballast, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    while (write(fd, zeros, sizeof(zeros)) > 0)
        continue;
    cr_assert_eq(errno, ENOSPC);
    close(fd);
}

Test(file_faults, a_full_disk_is_waited_for) {
    mount_disk();
    struct gradientd_run *run = open_faulty(disk);
    faulty_submit(run, 1, 20);
    faulty_wait_written(path, 20);
    fill_disk();
    faulty_submit(run, 21, 40);
    faulty_wait_logged("run faulty: event file: not written", strerror(ENOSPC));
    faulty_submit(run, 41, 45);
    cr_assert_eq(unlink(ballast), 0);
    faulty_submit(run, 46, 60);
    trainer_close(run);
    faulty_expect_undisturbed(path, 60);
    faulty_expect_one_trouble("faulty", strerror(ENOSPC));
    unmount_disk();
}

// Offers steps from `step` on until one is taken. Returns its number.
static int64_t offer_until_taken(struct gradientd_run *run, int64_t step) {
    static const struct timespec pause = {.tv_nsec = 1000000};
    for (double deadline = scratch_now() + 30.0;; step++) {
        uint64_t skipped = gradientd_skipped(run);
        faulty_offer(run, step, step);
        if (gradientd_skipped(run) == skipped)
            return step;
        cr_assert_lt(scratch_now(), deadline, "the run does not go on");
        nanosleep(&pause, NULL);
    }
}

// The file holds every step that was not skipped, and says at step `last` how many that were.
static void expect_all_but_skipped(int64_t last, uint64_t skipped) {
    struct event_values values;
    event_values_read(path, &values);
    cr_expect(values.whole && values.stops == 1);
    cr_expect_eq(event_values_count(&values, "gradient/norm"), (uint64_t)last - skipped);
    const struct event_value *fraction = event_values_find(&values, "gradientd/observed_fraction", last);
    cr_assert_not_null(fraction);
    double expected = (double)((uint64_t)last - skipped) / (double)last;
    cr_expect_float_eq((double)fraction->value, expected, 1e-6);
    event_values_free(&values);
}

// With a disk that stays full the outbox fills up: then the run's steps are skipped, and counted, but no other's.
Test(file_faults, a_full_outbox_pauses_its_run_alone) {
    enum { FULL = 10, BESIDE = 300 };
    char beside_path[512];
    mount_disk();
    struct gradientd_options options = trainer_options(daemon_process.socket, disk, "faulty", NULL);
    options.max_stall = 0.0;
    options.inflight = 16; // so that the first steps find a slot each
    struct gradientd_run *run = trainer_open(&options);
    snprintf(path, sizeof(path), "%s", gradientd_event_path(run));
    faulty_submit(run, 1, FULL);
    faulty_wait_written(path, FULL);
    fill_disk();

    options = trainer_options(daemon_process.socket, directory, "beside", NULL);
    struct gradientd_run *beside = trainer_open(&options);
    snprintf(beside_path, sizeof(beside_path), "%s", gradientd_event_path(beside));
    for (int64_t step = 1; step <= BESIDE; step++) { // the one as fast as the other
        faulty_offer(run, FULL + step, FULL + step);
        faulty_submit(beside, step, step);
    }
    cr_expect_gt(gradientd_skipped(run), BESIDE / 2, "the outbox took %d steps",
                 (int)(BESIDE - gradientd_skipped(run)));
    faulty_wait_written(beside_path, BESIDE);
    trainer_close(beside);
    faulty_expect_undisturbed(beside_path, BESIDE);

    cr_assert_eq(unlink(ballast), 0);
    faulty_wait_logged("run faulty: event file: writing again", "");
    int64_t last = offer_until_taken(run, FULL + BESIDE + 1);
    uint64_t skipped = gradientd_skipped(run);
    trainer_close(run);
    expect_all_but_skipped(last, skipped);
    faulty_expect_one_trouble("faulty", strerror(ENOSPC));
    unmount_disk();
}

// ---- A limit, and O_APPEND ------------------------------------------------------------------------------------------

static void limit_file_bytes(uint64_t bytes) {
    struct rlimit limit;
    cr_assert_eq(prlimit(daemon_process.pid, RLIMIT_FSIZE, NULL, &limit), 0);
    limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
    cr_assert_eq(prlimit(daemon_process.pid, RLIMIT_FSIZE, &limit, NULL), 0);
}

static void set_limit(void) {
    limit_file_bytes(file_bytes() + 12345); // within a record; the log is far shorter
}

static void lift_limit(void) {
    limit_file_bytes(RLIM_INFINITY);
}

// The trainer's descriptor and the daemon's are of one open file.
static void set_append(void) {
    cr_assert_eq(fcntl(faulty_descriptor(path), F_SETFL, O_APPEND), 0);
}

static void clear_append(void) {
    cr_assert_eq(fcntl(faulty_descriptor(path), F_SETFL, 0), 0);
}

static const struct {
    const char *name;
    void (*begin)(void);
    void (*end)(void);
    const char *says;
} troubles[] = {
    {"a_file_size_limit", set_limit, lift_limit, "File too large"},
    {"o_append", set_append, clear_append, "O_APPEND is set"},
};

Test(file_faults, trouble_that_ends_leaves_the_file_whole) {
    for (size_t i = 0; i < ARRAY_SIZE(troubles); i++) {
        struct gradientd_run *run = open_faulty(directory);
        faulty_submit(run, 1, 20);
        faulty_wait_written(path, 20);
        troubles[i].begin();
        faulty_submit(run, 21, 40);
        faulty_wait_logged("run faulty: event file: not written", troubles[i].says);
        faulty_submit(run, 41, 50);
        troubles[i].end();
        faulty_submit(run, 51, 60);
        trainer_close(run);
        faulty_expect_undisturbed(path, 60);
        faulty_expect_one_trouble("faulty", troubles[i].says);
        daemon_process_stop(&daemon_process);
        daemon_process_start(&daemon_process, directory);
    }
}

// Refused by the daemon that goes on with it, the run would be lost for good.
Test(file_faults, a_run_goes_on_while_o_append_is_set) {
    struct gradientd_run *run = open_faulty(directory);
    faulty_submit(run, 1, 20);
    faulty_wait_written(path, 20);
    set_append();
    daemon_process_kill(&daemon_process);
    daemon_process_start(&daemon_process, directory);
    faulty_submit(run, 21, 40);
    faulty_wait_logged("run faulty: event file: not written", "O_APPEND is set");
    clear_append();
    trainer_close(run);
    faulty_expect_undisturbed(path, 40);
    faulty_expect_one_trouble("faulty", "O_APPEND is set");
}

// ---- A file that is deleted -----------------------------------------------------------------------------------------

Test(file_faults, a_deleted_file_is_written_to_its_end) {
    char kept[64];
    struct gradientd_run *run = open_faulty(directory);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    snprintf(kept, sizeof(kept), "/proc/self/fd/%d", fd);
    faulty_submit(run, 1, 20);
    faulty_wait_written(path, 20);
    cr_assert_eq(unlink(path), 0);
    faulty_submit(run, 21, 40);
    faulty_wait_logged("run faulty: event file: deleted", path);
    faulty_submit(run, 41, 60);
    trainer_close(run);
    faulty_expect_undisturbed(kept, 60);
    cr_expect_eq(faulty_log_lines("run faulty: event file:", ""), 1);
    close(fd);
}

// ---- A file that is cut off -----------------------------------------------------------------------------------------

enum {
    SMALL = 40,  // steps whose records the outbox holds all
    LARGE = 200, // steps of which it holds the last quarter
};

// Where the `n`th record ends, as the file is.
static uint64_t record_end(int n) {
    uint64_t end = 0;
    struct scratch_bytes file = scratch_read(path);
    for (; n > 0; n--)
        end += 16 + gd_read_u64le(file.data + end);
    cr_assert_leq(end, file.bytes);
    free(file.data);
    return end;
}

static void cut_off(uint64_t bytes) {
    cr_assert_lt(bytes, file_bytes());
    cr_assert_eq(truncate(path, (off_t)bytes), 0);
}

static struct gradientd_run *train_until(int64_t last) {
    struct gradientd_run *run = open_faulty(directory);
    faulty_submit(run, 1, last);
    faulty_wait_written(path, last);
    return run;
}

Test(file_faults, what_the_outbox_holds_is_written_again) {
    struct gradientd_run *run = train_until(SMALL);
    const uint64_t bytes[] = {
        0, 1, record_end(3), record_end(20), record_end(20) - 1, record_end(20) + 30, record_end(SMALL) - 1};
    for (size_t i = 0; i < ARRAY_SIZE(bytes); i++) {
        cut_off(bytes[i]);
        faulty_submit(run, SMALL + 1 + (int64_t)i, SMALL + 1 + (int64_t)i);
        faulty_wait_written(path, SMALL + 1 + (int64_t)i);
        cr_expect_eq(faulty_log_lines("run faulty: event file: cut off at byte", "written again"), i + 1);
    }
    cut_off(100); // ... and what comes last is the end
    trainer_close(run);
    faulty_expect_undisturbed(path, SMALL + ARRAY_SIZE(bytes));
    cr_expect_eq(faulty_log_lines("run faulty: event file: ", ""), ARRAY_SIZE(bytes) + 1);
}

// The file is cut off while no daemon looks after it.
static void cut_off_unseen(uint64_t bytes) {
    daemon_process_kill(&daemon_process);
    cut_off(bytes);
    daemon_process_start(&daemon_process, directory);
}

Test(file_faults, what_the_outbox_holds_is_written_again_by_another_daemon) {
    enum { MORE = 5 }; // than the client has slots: it waits until a daemon takes them
    struct gradientd_run *run = train_until(SMALL);
    const uint64_t bytes[] = {0, record_end(20), record_end(20) + 30};
    int64_t step = SMALL;
    for (size_t i = 0; i < ARRAY_SIZE(bytes); i++, step += MORE) {
        cut_off_unseen(bytes[i]);
        faulty_submit(run, step + 1, step + MORE);
        faulty_wait_written(path, step + 1);
        cr_expect_eq(faulty_log_lines("run faulty: event file: cut off at byte", "written again"), 1);
    }
    trainer_close(run);
    faulty_expect_undisturbed(path, step);
}

// Of a file that was cut off too far, what is left and what was written later is as in the undisturbed file: up to byte
// `left`, and from byte `later` on. Between them are records without a value, and none is torn.
static void expect_filled(uint64_t left, uint64_t later, int64_t last) {
    struct event_values values;
    struct scratch_bytes file = scratch_read(path), reference = scratch_read(faulty_reference(last));
    cr_assert_eq(file.bytes, reference.bytes, "%zu bytes, not %zu", file.bytes, reference.bytes);
    cr_assert_lt(later, file.bytes);
    cr_expect_eq(memcmp(file.data, reference.data, left), 0, "what was left is not the same");
    cr_expect_eq(memcmp(file.data + later, reference.data + later, file.bytes - later), 0,
                 "what came later is not the same");
    free(file.data);
    free(reference.data);
    event_values_read(path, &values);
    cr_expect(values.whole && values.stops == 1 && values.starts == (left > 0));
    cr_expect_null(event_values_find(&values, "loss", LARGE / 2));
    event_values_free(&values);
}

static void cut_off_too_far(void (*how)(uint64_t bytes), int records, uint64_t more_bytes) {
    struct gradientd_run *run = train_until(LARGE);
    uint64_t left = record_end(records), later = file_bytes();
    how(left + more_bytes);
    faulty_submit(run, LARGE + 1, LARGE + 20);
    trainer_close(run);
    expect_filled(left, later, LARGE + 20);
    cr_expect_eq(faulty_log_lines("run faulty: event file: ", "are lost"), 1);
    cr_expect_eq(faulty_log_lines("run faulty: event file: ", ""), 1);
}

Test(file_faults, a_file_emptied_beyond_the_outbox_is_filled) {
    cut_off_too_far(cut_off, 0, 0);
}

Test(file_faults, a_file_cut_off_beyond_the_outbox_keeps_its_records) {
    cut_off_too_far(cut_off, 10, 0);
}

Test(file_faults, a_file_cut_off_within_a_record_beyond_the_outbox_keeps_those_before) {
    cut_off_too_far(cut_off, 10, 17);
}

Test(file_faults, another_daemon_fills_what_the_outbox_does_not_hold) {
    cut_off_too_far(cut_off_unseen, 10, 17);
}
