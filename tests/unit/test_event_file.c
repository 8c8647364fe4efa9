#include "event_file.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support.h"

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

// ---- Which files are taken ------------------------------------------------------------------------------------------

static int read_write(void) {
    return new_file(O_RDWR);
}

static int write_only(void) {
    return new_file(O_WRONLY);
}

static int append(void) {
    return new_file(O_WRONLY | O_APPEND);
}

static int read_append(void) {
    return new_file(O_RDWR | O_APPEND);
}

static int read_only(void) {
    return new_file(O_RDONLY);
}

static int path_only(void) {
    return new_file(O_PATH);
}

static int pipe_end(void) {
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    close(ends[0]);
    return ends[1];
}

static int directory(void) {
    return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int device(void) {
    return open("/dev/null", O_RDWR | O_CLOEXEC);
}

static int no_descriptor(void) {
    return -1;
}

Test(event_file, only_regular_files_open_for_plain_writing_are_taken) {
    const struct {
        const char *what;
        int (*open)(void);
        const char *text;   // NULL: taken
        bool resumed_taken; // where it is a resumed run's
    } cases[] = {
        {"read and write", read_write, NULL, true},
        {"write only", write_only, NULL, true},
        {"append", append, "O_APPEND", true},
        {"read and append", read_append, "O_APPEND", true},
        {"read only", read_only, "not open for writing", false},
        {"path only", path_only, "not open for writing", false},
        {"a pipe", pipe_end, "not a regular file", false},
        {"a directory", directory, "not a regular file", false},
        {"a device", device, "not a regular file", false},
        {"no descriptor", no_descriptor, "not a regular file", false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct gd_error error = {.field = "", .text = ""};
        int fd = cases[i].open();
        int result = gd_event_file_check(fd, false, 0, &error);
        cr_expect_eq(result, cases[i].text ? -EBADMSG : 0, "%s: %d %s", cases[i].what, result, error.text);
        if (cases[i].text) {
            cr_expect_eq(error.code, GD_ERROR_INVALID, "%s", cases[i].what);
            cr_expect_str_eq(error.field, "event_file", "%s", cases[i].what);
            cr_expect_not_null(strstr(error.text, cases[i].text), "%s: %s", cases[i].what, error.text);
        }
        result = gd_event_file_check(fd, true, 0, &error);
        cr_expect_eq(result, cases[i].resumed_taken ? 0 : -EBADMSG, "%s of a resumed run: %d", cases[i].what, result);
        if (fd >= 0)
            cr_expect_eq(close(fd), 0, "%s: the check must not close it", cases[i].what);
    }
}

Test(event_file, a_resumed_run_may_miss_a_gibibyte) {
    const uint64_t most = UINT64_C(1) << 30;
    struct gd_error error = {.text = ""};
    int fd = new_file(O_RDWR);
    cr_assert_eq(pwrite(fd, "records", 7, 0), 7);
    cr_expect_eq(gd_event_file_check(fd, true, 7, &error), 0);
    cr_expect_eq(gd_event_file_check(fd, true, most + 7, &error), 0);
    cr_expect_eq(gd_event_file_check(fd, true, most + 8, &error), -EBADMSG);
    cr_expect_str_eq(error.text,
                     "event_file has 7 bytes, the run has written 1073741832; at most 1073741824 may be missing");
    cr_expect_eq(gd_event_file_check(fd, true, UINT64_MAX, &error), -EBADMSG);
    close(fd);
}

// ---- The writer -----------------------------------------------------------------------------------------------------

enum { OUTBOX_BYTES = 1000 };

static uint8_t outbox[OUTBOX_BYTES];
static uint64_t written_word;
static sem_t notified;
static struct gd_event_file *file;
static int own_fd;  // the test's own descriptor of the file
static int file_fd; // the one the file took over

static void notify(void *context) {
    sem_post(context);
}

static void start(int fd) {
    struct gd_event_file_options options = {
        .fd = fd,
        .place = {.run = "run"},
        .outbox = outbox,
        .outbox_bytes = OUTBOX_BYTES,
        .step_records_max = OUTBOX_BYTES / 4,
        .written_word = &written_word,
        .notify = notify,
        .notify_context = &notified,
    };
    sem_init(&notified, 0, 0);
    file_fd = fd;
    cr_assert_eq(gd_event_file_new(&options, &file), 0);
}

// One batch or the end; a writer that never reports hangs the test, which its time limit ends.
static void wait_notified(void) {
    while (sem_wait(&notified) < 0 && errno == EINTR)
        ;
}

static void start_writer(void) {
    struct gd_error error;
    own_fd = new_file(O_RDWR);
    start(dup(own_fd));
    wait_notified();
    cr_assert_eq(gd_event_file_is_accepted(file, &error), 1);
}

static void wait_done(void) {
    while (!gd_event_file_is_done(file))
        wait_notified();
}

static uint8_t byte_at(uint64_t offset) {
    return (uint8_t)(offset * 31 + offset / 251 + 1);
}

// Records up to `end`, as a commit leaves them in the ring.
static void append_until(uint64_t *appended, uint64_t end) {
    for (; *appended < end; (*appended)++)
        outbox[*appended % OUTBOX_BYTES] = byte_at(*appended);
    gd_event_file_append(file, end);
}

static void expect_file(uint64_t bytes) {
    uint8_t *content = malloc(bytes + 1);
    cr_assert_not_null(content);
    ssize_t result = pread(own_fd, content, bytes + 1, 0);
    cr_assert_eq(result, (ssize_t)bytes, "the file has %zd bytes, not %lu", result, (unsigned long)bytes);
    for (uint64_t i = 0; i < bytes; i++)
        cr_assert_eq(content[i], byte_at(i), "byte %lu of %lu", (unsigned long)i, (unsigned long)bytes);
    free(content);
}

static void finish(void) {
    gd_event_file_finish(file);
    wait_done();
    gd_event_file_free(file);
}

Test(event_file, every_byte_lands_at_its_offset, .init = start_writer) {
    // up to the end of the ring, across it, from it, all of it, and more turns
    const uint64_t ends[] = {1, 70, 1000, 1001, 1900, 2300, 3000, 4000, 4999, 5999};
    uint64_t appended = 0;

    lseek(own_fd, 12345, SEEK_SET); // shared with the writer, who must not depend on it
    for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
        append_until(&appended, ends[i]);
        while (gd_event_file_written(file) < ends[i])
            wait_notified();
        expect_file(ends[i]);
        cr_expect_eq(gd_event_file_written(file), ends[i]);
        cr_expect_eq(written_word, ends[i]);
    }
    finish();
    expect_file(ends[ARRAY_SIZE(ends) - 1]);
}

Test(event_file, appends_that_gather_are_written_once, .init = start_writer) {
    uint64_t appended = 0;
    for (uint64_t end = 1; end <= 400; end++)
        append_until(&appended, end);
    finish();
    expect_file(400);
}

Test(event_file, finish_writes_what_is_left_and_closes, .init = start_writer) {
    uint64_t appended = 0;
    append_until(&appended, 321);
    gd_event_file_finish(file);
    wait_done();
    cr_expect_eq(gd_event_file_written(file), 321);
    cr_expect(fcntl(file_fd, F_GETFD) < 0 && errno == EBADF, "the descriptor is still open");
    expect_file(321);
    gd_event_file_free(file);
}

Test(event_file, a_file_without_records_finishes_empty, .init = start_writer) {
    int before = count_fds();
    finish();
    expect_file(0);
    cr_expect_eq(written_word, 0);
    cr_expect_eq(count_fds(), before - 1);
}

Test(event_file, what_was_not_appended_is_not_written, .init = start_writer) {
    uint64_t appended = 0;
    memset(outbox, 0xee, sizeof(outbox));
    append_until(&appended, 10);
    finish();
    expect_file(10);
}

// A write that fails is tried again from the same byte; only giving up ends it.
Test(event_file, giving_up_ends_a_file_that_cannot_be_written) {
    uint64_t appended = 0;
    own_fd = new_memfd(0, F_SEAL_WRITE);
    start(dup(own_fd));
    wait_notified(); // it is accepted
    append_until(&appended, 100);
    wait_notified(); // the first batch has failed
    cr_expect_eq(gd_event_file_written(file), 0);
    gd_event_file_finish(file);
    wait_notified(); // ... and another one
    cr_expect_not(gd_event_file_is_done(file));
    gd_event_file_abandon(file);
    wait_done();
    cr_expect_eq(gd_event_file_written(file), 0);
    cr_expect(fcntl(file_fd, F_GETFD) < 0 && errno == EBADF);
    gd_event_file_free(file);
}

Test(event_file, a_refused_file_is_closed_and_done) {
    struct gd_error error;
    uint64_t appended = 0;
    start(new_file(O_RDONLY));
    append_until(&appended, 100);
    wait_done();
    cr_expect_eq(gd_event_file_is_accepted(file, &error), -EBADMSG);
    cr_expect_str_eq(error.field, "event_file");
    cr_expect(fcntl(file_fd, F_GETFD) < 0 && errno == EBADF);
    cr_expect_eq(gd_event_file_written(file), 0);
    gd_event_file_free(file);
}

Test(event_file, null_can_be_freed) {
    gd_event_file_free(NULL);
}
