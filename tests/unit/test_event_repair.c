// Files that were cut off: where their whole records end, and what fills the place of the others.
#include "event_repair.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "event.h"
#include "record.h"
#include "support.h"
#include "tensorboard.pb-c.h"

static const double wall_time = 1700000000.25;

enum { RECORDS = 20, RECORDS_BYTES_MAX = 4096 };

static uint8_t content[RECORDS_BYTES_MAX];
static uint64_t ends[RECORDS + 1]; // of so many records
static int fd;

// A file of RECORDS records.
static void set_up(void) {
    struct gd_record_buffer buffer = {content, sizeof(content), 0};
    for (int i = 0; i < RECORDS; i++) {
        struct gd_scalar scalar = gd_scalar_of("train/loss", (float)i, i % 3 == 0 ? "what it says" : NULL);
        gd_event_append_scalars(&buffer, wall_time + i, i * 100, &scalar, 1);
        ends[i + 1] = buffer.used;
    }
    fd = new_file(O_RDWR);
    cr_assert_eq(pwrite(fd, content, buffer.used, 0), (ssize_t)buffer.used);
}

static void tear_down(void) {
    close(fd);
}

TestSuite(event_repair, .init = set_up, .fini = tear_down);

static void expect_end(int file, uint64_t bytes, uint64_t expected, const char *what) {
    uint64_t end;
    cr_assert_eq(gd_event_repair_find_end(file, bytes, &end), 0);
    cr_assert_eq(end, expected, "%lu bytes, %s: %lu", (unsigned long)bytes, what, (unsigned long)end);
}

Test(event_repair, the_end_is_that_of_the_last_whole_record) {
    int whole = 0;
    for (uint64_t bytes = 0; bytes <= ends[RECORDS]; bytes++) {
        if (whole < RECORDS && bytes == ends[whole + 1])
            whole++;
        expect_end(fd, bytes, ends[whole], "a part");
    }
    expect_end(fd, ends[RECORDS] + 100, ends[RECORDS], "past the file's own end");
}

Test(event_repair, records_end_where_a_header_is_none) {
    for (uint64_t at = ends[3]; at < ends[3] + 12; at++) {
        uint8_t spoilt = content[at] ^ 0x40;
        cr_assert_eq(pwrite(fd, &spoilt, 1, (off_t)at), 1);
        expect_end(fd, ends[RECORDS], ends[3], "one of a header's spoilt");
        cr_assert_eq(pwrite(fd, &content[at], 1, (off_t)at), 1);
    }
}

Test(event_repair, a_file_that_is_not_open_for_reading_has_no_end_but_its_beginning) {
    int write_only = new_file(O_WRONLY);
    cr_assert_eq(pwrite(write_only, content, ends[RECORDS], 0), (ssize_t)ends[RECORDS]);
    expect_end(write_only, ends[RECORDS], 0, "not open for reading");
    close(write_only);
}

Test(event_repair, an_error_is_no_end) {
    uint64_t end;
    int directory = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_expect_eq(gd_event_repair_find_end(directory, 1000, &end), -EISDIR);
    close(directory);
}

// An Event of the time and of something unknown.
static void check_filler(const uint8_t *data, size_t bytes) {
    Tensorboard__Event *event = tensorboard__event__unpack(NULL, bytes, data);
    cr_assert(event, "%zu bytes are no event", bytes);
    cr_expect_eq(event->wall_time, wall_time);
    cr_expect_eq(event->what_case, TENSORBOARD__EVENT__WHAT__NOT_SET);
    cr_expect_eq(event->has_step, 0);
    cr_expect_eq(event->base.n_unknown_fields, 1);
    cr_expect_eq(event->base.unknown_fields[0].wire_type, PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED);
    tensorboard__event__free_unpacked(event, NULL);
}

// The file holds `kept` real records, then fillers up to byte `to`, then `later` real ones.
static void expect_filled(int kept, uint64_t to, int later) {
    struct gd_record_reader reader;
    const uint8_t *data;
    size_t bytes;
    uint64_t fillers = 0;
    cr_assert_eq(lseek(fd, 0, SEEK_SET), 0);
    FILE *stream = fdopen(dup(fd), "rb");
    cr_assert(stream);
    gd_record_reader_init(&reader, stream);
    for (int i = 0; i < kept; i++)
        cr_assert_eq(gd_record_read(&reader, &data, &bytes), GD_RECORD_READ);
    while (reader.offset < to) {
        cr_assert_eq(gd_record_read(&reader, &data, &bytes), GD_RECORD_READ, "%s", reader.reason);
        check_filler(data, bytes);
        fillers++;
    }
    cr_expect_eq(reader.offset, to);
    cr_expect_leq(fillers, to / (1 << 20) + 1, "there are %lu fillers", (unsigned long)fillers);
    for (int i = 0; i < later; i++)
        cr_assert_eq(gd_record_read(&reader, &data, &bytes), GD_RECORD_READ, "%s", reader.reason);
    cr_expect_eq(gd_record_read(&reader, &data, &bytes), GD_RECORD_END);
    gd_record_reader_deinit(&reader);
    fclose(stream);
}

Test(event_repair, every_gap_that_records_leave_can_be_filled) {
    const uint64_t megabyte = 1 << 20;
    uint64_t gaps[300 + 12];
    size_t n = 0;
    for (uint64_t gap = 30; gap < 330; gap++)
        gaps[n++] = gap;
    for (uint64_t gap = megabyte - 2; gap <= megabyte + 2; gap++)
        gaps[n++] = gap;
    for (uint64_t gap = megabyte + 28; gap <= megabyte + 32; gap++) // what is left after one of the largest
        gaps[n++] = gap;
    gaps[n++] = 3 * megabyte + 12345;
    gaps[n++] = 2 * megabyte;
    for (size_t i = 0; i < n; i++) {
        uint64_t to = ends[4] + gaps[i];
        cr_assert_eq(gd_event_repair_fill(fd, ends[4], to, wall_time), 0);
        cr_assert_eq(pwrite(fd, content, ends[2], (off_t)to), (ssize_t)ends[2]);
        expect_filled(4, to, 2);
    }
}

Test(event_repair, what_lay_behind_the_end_does_not_show_through) {
    cr_assert_eq(gd_event_repair_fill(fd, ends[4], ends[RECORDS], wall_time), 0);
    expect_filled(4, ends[RECORDS], 0);
}

Test(event_repair, no_gap_is_a_cut) {
    cr_assert_eq(gd_event_repair_fill(fd, ends[4], ends[4], wall_time), 0);
    expect_filled(4, ends[4], 0);
}

Test(event_repair, large_fillers_take_little_room) {
    struct stat status;
    const uint64_t bytes = 1 << 28;
    cr_assert_eq(gd_event_repair_fill(fd, 0, bytes, wall_time), 0);
    cr_assert_eq(fstat(fd, &status), 0);
    cr_expect_eq((uint64_t)status.st_size, bytes);
    cr_expect_lt((uint64_t)status.st_blocks * 512, bytes / 50);
}

Test(event_repair, a_failure_is_told) {
    int read_only = new_file(O_RDONLY);
    int result = gd_event_repair_fill(read_only, 0, 1000, wall_time);
    cr_expect(result == -EINVAL || result == -EBADF, "%d", result);
    close(read_only);
}
