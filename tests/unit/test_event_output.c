// A batch written to a file that somebody cuts off, deletes or sets O_APPEND on, between batches and within one.
#include "event_output.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <unistd.h>

#include "event.h"
#include "event_repair.h"
#include "support.h"

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

enum {
    OUTBOX_BYTES = 4000,
    STEP_BYTES_MAX = 600,
    STREAM_BYTES = 40000,
    STEP_RECORDS = 4, // of one size, which is no divisor of the ring's
};

// What is appended: records, of which the ring holds the last ones.
static uint8_t stream[STREAM_BYTES];
static uint64_t step_bytes, steps;

static uint8_t outbox[OUTBOX_BYTES];
static uint64_t written_word;
static struct gd_event_output output;
static int own_fd; // the test's own descriptor of the file, of the same open file

static void fill_stream(void) {
    struct gd_record_buffer buffer = {stream, sizeof(stream), 0};
    while (sizeof(stream) - buffer.used > STEP_BYTES_MAX) {
        size_t begin = buffer.used;
        for (int i = 0; i < STEP_RECORDS; i++) {
            struct gd_scalar scalar = gd_scalar_of("train/loss", (float)(steps * STEP_RECORDS) + (float)i, NULL);
            gd_event_append_scalars(&buffer, 1.7e9, 1000, &scalar, 1);
        }
        step_bytes = buffer.used - begin;
        steps++;
    }
}

static void set_up(void) {
    fill_stream();
    own_fd = new_file(O_RDWR);
    output = (struct gd_event_output){
        .fd = dup(own_fd),
        .run = "run",
        .outbox = outbox,
        .outbox_bytes = OUTBOX_BYTES,
        .step_records_max = STEP_BYTES_MAX,
        .written_word = &written_word,
        .wall_time = 1.7e9,
        .unlinked = true, // it has no name
    };
}

static void tear_down(void) {
    close(output.fd);
    close(own_fd);
}

TestSuite(event_output, .init = set_up, .fini = tear_down);

// The records of one step go into the ring, as by a commit that has not told of it yet.
static void put_step(void) {
    uint64_t at = output.appended_bytes;
    for (uint64_t i = at; i < at + step_bytes; i++)
        outbox[i % OUTBOX_BYTES] = stream[i];
}

// One step after another, as long as gd_run_next() would allow it, at most `n`.
static void append_steps(int n) {
    for (; n > 0; n--) {
        if (output.appended_bytes - output.written_bytes + STEP_BYTES_MAX > OUTBOX_BYTES)
            return;
        put_step();
        output.appended_bytes += step_bytes;
    }
}

static void write_steps(int n) {
    for (; n > 0; n--) {
        append_steps(1);
        cr_assert_eq(gd_event_output_write(&output), 0);
    }
}

// The file holds the stream, but for the bytes from `lost` up to `found`, which are records all the same.
static void expect_stream(uint64_t lost, uint64_t found) {
    static uint8_t content[STREAM_BYTES + 1];
    ssize_t bytes = pread(own_fd, content, sizeof(content), 0);
    cr_assert_eq(bytes, (ssize_t)output.appended_bytes, "%zd bytes", bytes);
    cr_expect_eq(output.written_bytes, output.appended_bytes);
    cr_expect_eq(written_word, output.appended_bytes);
    cr_assert_arr_eq(content, stream, lost);
    cr_assert_arr_eq(content + found, stream + found, (size_t)bytes - found);
    uint64_t end;
    cr_assert_eq(gd_event_repair_find_end(own_fd, (uint64_t)bytes, &end), 0);
    cr_expect_eq(end, (uint64_t)bytes, "it is not all records");
}

static void cut_off(uint64_t bytes) {
    cr_assert_eq(ftruncate(own_fd, (off_t)bytes), 0);
}

// ---- Between batches ------------------------------------------------------------------------------------------------

// The end of the last whole record in so many bytes of the stream.
static uint64_t whole_records(uint64_t bytes) {
    return bytes / (step_bytes / STEP_RECORDS) * (step_bytes / STEP_RECORDS);
}

// From which record on the ring holds what a commit under way does not overwrite. None is while the ring is full.
static uint64_t held(void) {
    uint64_t bytes = output.appended_bytes + STEP_BYTES_MAX - OUTBOX_BYTES;
    return whole_records((bytes < output.written_bytes ? bytes : output.written_bytes) + step_bytes / STEP_RECORDS - 1);
}

Test(event_output, what_the_ring_holds_is_written_again) {
    write_steps(20);
    const uint64_t lost[] = {1, step_bytes, step_bytes + 5, output.written_bytes - held()};
    for (size_t i = 0; i < ARRAY_SIZE(lost); i++) {
        cut_off(output.written_bytes - lost[i]);
        cr_assert_eq(gd_event_output_write(&output), 0); // also where nothing new has come
        expect_stream(output.appended_bytes, output.appended_bytes);
        write_steps(3);
    }
}

Test(event_output, a_file_that_fits_into_the_ring_is_written_again_whole) {
    write_steps(5);
    cut_off(0);
    append_steps(1);
    cr_assert_eq(gd_event_output_write(&output), 0);
    expect_stream(output.appended_bytes, output.appended_bytes);
}

// The room of a commit was counted before the file was cut off: it takes the oldest bytes of the ring meanwhile.
Test(event_output, a_commit_under_way_takes_nothing_that_is_written_again) {
    for (uint64_t lost = OUTBOX_BYTES - 2 * STEP_BYTES_MAX; lost <= OUTBOX_BYTES; lost += 7) {
        write_steps(30);
        uint64_t kept = output.written_bytes - lost;
        uint64_t end = whole_records(kept), found = end > held() ? end : held();
        put_step();
        cut_off(kept);
        cr_assert_eq(gd_event_output_write(&output), 0);
        output.appended_bytes += step_bytes;
        cr_assert_eq(gd_event_output_write(&output), 0);
        expect_stream(end, found);
        tear_down();
        steps = 0;
        set_up();
    }
}

Test(event_output, what_is_lost_for_good_is_filled_up_to_what_the_ring_holds) {
    const uint64_t record_bytes = step_bytes / STEP_RECORDS;
    const uint64_t kept[] = {0, 1, record_bytes, record_bytes + 1, 9 * record_bytes - 1, 9 * record_bytes};
    for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
        write_steps(30);
        append_steps(3);
        uint64_t found = held();
        cut_off(kept[i]);
        cr_assert_eq(gd_event_output_write(&output), 0);
        expect_stream(whole_records(kept[i]), found);
        write_steps(3);
        expect_stream(whole_records(kept[i]), found);
        tear_down();
        steps = 0;
        set_up();
    }
}

// The ring is full of what an error has kept out of the file: all of that is still there.
Test(event_output, a_full_ring_loses_nothing_that_was_not_written) {
    write_steps(20);
    uint64_t written = output.written_bytes;
    append_steps(100);
    cr_assert_eq(held(), written);
    cut_off(written - step_bytes);
    cr_assert_eq(gd_event_output_write(&output), 0);
    expect_stream(written - step_bytes, written);
}

// What fills a file is not in the ring, also where the ring holds other bytes of the same place.
Test(event_output, a_file_cut_off_again_in_what_fills_it_stays_whole) {
    write_steps(30);
    uint64_t written = output.written_bytes, found = held();
    cut_off(100);
    cr_assert_eq(gd_event_output_write(&output), 0);
    expect_stream(whole_records(100), found);
    for (uint64_t kept = found - 1; kept > 0; kept -= 97) {
        cut_off(kept);
        cr_assert_eq(gd_event_output_write(&output), 0);
        cr_expect_eq(output.appended_bytes, written);
        expect_stream(whole_records(kept < 100 ? kept : 100), found);
        if (kept < 97)
            break;
    }
}

// Filling ends early at a limit of the file's size, and the file is left within a filler.
Test(event_output, filling_that_fails_is_done_again) {
    const struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
    const uint64_t record_bytes = step_bytes / STEP_RECORDS;
    signal(SIGXFSZ, SIG_IGN);
    write_steps(30);
    for (uint64_t limit = record_bytes; limit < held(); limit += 61) {
        const struct rlimit limited = {limit, RLIM_INFINITY};
        uint64_t written = output.written_bytes, found = held();
        cut_off(record_bytes);
        cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limited), 0);
        cr_expect_eq(gd_event_output_write(&output), -EFBIG);
        cr_expect_eq(output.written_bytes, written, "the room of the next commit is counted from here");
        cr_assert_eq(setrlimit(RLIMIT_FSIZE, &unlimited), 0);
        cr_assert_eq(gd_event_output_write(&output), 0);
        expect_stream(record_bytes, found);
    }
}

// The daemon is killed while it fills a file, and a second one comes upon that.
Test(event_output, filling_that_was_killed_is_done_again) {
    write_steps(30);
    uint64_t found = held();
    for (uint64_t filled = 1; filled < found; filled += 61) {
        cut_off(0);
        cr_assert_eq(gd_event_repair_fill(own_fd, 0, found, 1.7e9), 0);
        cut_off(filled);
        cr_assert_eq(gd_event_output_write(&output), 0);
        expect_stream(0, found);
    }
}

// ---- Within a batch -------------------------------------------------------------------------------------------------

// What somebody does just before the next writes, and just after the last of them.
static struct {
    int64_t cut_before; // to this length; -1: nothing, like below
    int64_t cut_after;
    int64_t grow_before; // by so many bytes
    ssize_t short_bytes; // so much of it is written
    int fails;           // then with this error
    int writes;
} meddling = {.cut_before = -1, .cut_after = -1, .grow_before = -1, .short_bytes = -1};

ssize_t __real_pwritev64v2(int fd, const struct iovec *vector, int count, off_t offset, int flags);
ssize_t __wrap_pwritev64v2(int fd, const struct iovec *vector, int count, off_t offset, int flags);

ssize_t __wrap_pwritev64v2(int fd, const struct iovec *vector, int count, off_t offset, int flags) {
    static const char junk[100] = "junk";
    struct iovec part = *vector;
    meddling.writes++;
    if (meddling.cut_before >= 0)
        cut_off((uint64_t)meddling.cut_before);
    if (meddling.grow_before >= 0)
        cr_assert_eq(pwrite(own_fd, junk, sizeof(junk), lseek(own_fd, 0, SEEK_END)), (ssize_t)sizeof(junk));
    meddling.cut_before = meddling.grow_before = -1;
    if (meddling.fails && meddling.short_bytes < 0) {
        errno = meddling.fails;
        return -1;
    }
    if (meddling.short_bytes >= 0 && (size_t)meddling.short_bytes < part.iov_len)
        part.iov_len = (size_t)meddling.short_bytes;
    meddling.short_bytes = -1;
    ssize_t result = __real_pwritev64v2(fd, &part, count, offset, flags);
    if (meddling.cut_after >= 0)
        cut_off((uint64_t)meddling.cut_after);
    meddling.cut_after = -1;
    return result;
}

static void expect_mended(const char *what) {
    cr_expect_eq(gd_event_output_write(&output), GD_EVENT_OUTPUT_SPOILT, "%s", what);
    cr_expect_eq(gd_event_output_write(&output), 0, "%s", what);
    expect_stream(output.appended_bytes, output.appended_bytes);
}

Test(event_output, a_file_cut_off_within_a_batch_gets_no_hole) {
    write_steps(20);
    append_steps(2);
    meddling.cut_before = (int64_t)output.written_bytes - 70;
    expect_mended("before");
    append_steps(2);
    meddling.cut_after = (int64_t)output.written_bytes - 70;
    expect_mended("after");
    append_steps(2);
    meddling.cut_after = (int64_t)output.written_bytes + 70;
    expect_mended("in what was just written");
    append_steps(2);
    meddling.cut_before = (int64_t)output.written_bytes - 400;
    meddling.cut_after = (int64_t)output.written_bytes - 350;
    expect_mended("twice");
    append_steps(2);
    meddling.cut_before = (int64_t)output.written_bytes - 70;
    meddling.short_bytes = 10;
    expect_mended("before a short write");
}

Test(event_output, what_somebody_writes_at_the_end_is_written_over) {
    write_steps(20);
    append_steps(4);
    meddling.grow_before = 100;
    cr_expect_eq(gd_event_output_write(&output), GD_EVENT_OUTPUT_SPOILT);
    cr_expect_eq(gd_event_output_write(&output), 0);
    cut_off(output.appended_bytes); // what lies beyond is another's
    expect_stream(output.appended_bytes, output.appended_bytes);
}

Test(event_output, an_error_within_a_batch_is_gone_on_from) {
    write_steps(20);
    append_steps(4);
    uint64_t start = output.written_bytes;
    meddling.short_bytes = 33;
    meddling.fails = EIO;
    cr_expect_eq(gd_event_output_write(&output), -EIO);
    cr_expect_eq(output.written_bytes, start + 33);
    cr_expect_eq(written_word, start + 33);
    meddling.fails = 0;
    cut_off(start + 20); // and a cut-off meanwhile
    cr_expect_eq(gd_event_output_write(&output), 0);
    expect_stream(output.appended_bytes, output.appended_bytes);
}

Test(event_output, no_support_for_appending_is_done_without) {
    write_steps(2);
    append_steps(1);
    meddling.fails = EOPNOTSUPP;
    meddling.writes = 0;
    cr_expect_eq(gd_event_output_write(&output), -EOPNOTSUPP);
    cr_expect_eq(meddling.writes, 2, "once to append, once at the place");
}

// ---- O_APPEND, and the file's name ----------------------------------------------------------------------------------

Test(event_output, nothing_is_written_while_o_append_is_set) {
    write_steps(3);
    append_steps(2);
    uint64_t written = output.written_bytes;
    cr_assert_eq(fcntl(own_fd, F_SETFL, O_APPEND), 0);
    cr_expect_eq(gd_event_output_write(&output), GD_EVENT_OUTPUT_APPENDS);
    cr_expect_eq(output.written_bytes, written);
    cr_expect_eq(lseek(own_fd, 0, SEEK_END), (off_t)written);
    cr_assert_eq(fcntl(own_fd, F_SETFL, 0), 0);
    cr_expect_eq(gd_event_output_write(&output), 0);
    expect_stream(output.appended_bytes, output.appended_bytes);
}

Test(event_output, a_file_that_is_gone_is_an_error) {
    append_steps(1);
    close(output.fd);
    cr_expect_eq(gd_event_output_write(&output), -EBADF);
    output.fd = dup(own_fd);
}

Test(event_output, a_file_without_a_name_is_written_and_may_get_one) {
    char link[64], path[64];
    int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        cr_skip_test("skipped: this file system has no files without a name");
    close(output.fd);
    output.fd = fd;
    output.unlinked = false;
    write_steps(2);
    cr_expect(output.unlinked);
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    snprintf(path, sizeof(path), "/tmp/gradientd-test-%d", (int)getpid());
    cr_assert_eq(linkat(AT_FDCWD, link, AT_FDCWD, path, AT_SYMLINK_FOLLOW), 0);
    write_steps(2);
    cr_expect_not(output.unlinked);
    cr_assert_eq(unlink(path), 0);
    write_steps(2);
    cr_expect(output.unlinked);
    cr_expect_eq(lseek(fd, 0, SEEK_END), (off_t)output.appended_bytes);
}
