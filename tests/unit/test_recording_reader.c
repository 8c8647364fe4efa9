// What the recording writer has written and the reader reads: whole, cut off at every byte, with every bit flipped, and
// without memory.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "recording_reader.h"
#include "recording_writer.h"
#include "support.h"

enum { STEPS = 5, ELEMENT_BYTES = 100, FILE_BYTES_MAX = 8192 };

static char path[] = "/tmp/test_recording-XXXXXX";
static uint8_t content[FILE_BYTES_MAX];
static size_t content_bytes;

// ---- allocations that fail

static unsigned allocations_left = UINT32_MAX;

#define VISIBLE __attribute__((visibility("default"))) // the linker thinks that libraries call them too
void *__real_malloc(size_t bytes);
VISIBLE void *__wrap_malloc(size_t bytes);
void *__real_realloc(void *block, size_t bytes);
VISIBLE void *__wrap_realloc(void *block, size_t bytes);

static bool may_allocate(void) {
    if (allocations_left == UINT32_MAX)
        return true;
    if (allocations_left == 0)
        return false;
    allocations_left--;
    return true;
}

void *__wrap_malloc(size_t bytes) {
    return may_allocate() ? __real_malloc(bytes) : NULL;
}

void *__wrap_realloc(void *block, size_t bytes) {
    return may_allocate() ? __real_realloc(block, bytes) : NULL;
}

// ---- a recording

static void fill(uint8_t elements[ELEMENT_BYTES], int64_t step) {
    for (int i = 0; i < ELEMENT_BYTES; i++)
        elements[i] = (uint8_t)(i * i * step);
}

static void add(struct gd_recording_writer *writer, const struct gd_recorded *recorded) {
    int result = gd_recording_writer_add(writer, recorded);
    cr_assert_eq(result, 0);
}

static void write_recording(int level) {
    struct gd_recording_writer *writer;
    uint8_t elements[ELEMENT_BYTES];
    int result = gd_recording_writer_new(path, level, true, &writer);
    cr_assert_eq(result, 0);
    add(writer, &(struct gd_recorded){.kind = GD_RECORDED_RECORDING, .format = GD_RECORDING_FORMAT});
    for (int64_t step = 1; step <= STEPS; step++) {
        struct gd_recorded snapshot = {.kind = GD_RECORDED_SNAPSHOT,
                                       .message = {elements, 10},
                                       .has_step = true,
                                       .step = step};
        fill(elements, step);
        snapshot.elements[GD_RECORDED_GRADIENT] = (struct gd_recorded_elements){{elements, sizeof(elements)}, GD_F32};
        add(writer, &snapshot);
    }
    add(writer, &(struct gd_recorded){.kind = GD_RECORDED_END, .outcome = GD_RECORDED_LEFT});
    result = gd_recording_writer_close(writer);
    cr_assert_eq(result, 0);
    FILE *file = fopen(path, "rbe");
    content_bytes = fread(content, 1, sizeof(content), file);
    cr_assert(content_bytes > 0 && content_bytes < sizeof(content));
    fclose(file);
}

static void set_up(void) {
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    close(fd);
    write_recording(1);
}

static void tear_down(void) {
    unlink(path);
}

TestSuite(recording_reader, .init = set_up, .fini = tear_down);

// Reads a file of these bytes. Returns how it ended, and how many records there were.
static int read_all(const uint8_t *data, size_t bytes, uint64_t bytes_max, unsigned *ret_records) {
    struct gd_recording_reader reader;
    struct gd_recorded recorded;
    int fd = new_file(O_RDWR);
    cr_assert_eq(write(fd, data, bytes), (ssize_t)bytes);
    cr_assert_eq(lseek(fd, 0, SEEK_SET), 0);
    *ret_records = 0;
    int result = gd_recording_reader_init_consume(&reader, fd, bytes_max);
    if (result < 0)
        return result;
    while ((result = gd_recording_read(&reader, &recorded)) == GD_RECORDING_READ) {
        uint8_t elements[ELEMENT_BYTES];
        fill(elements, recorded.step);
        if (recorded.kind == GD_RECORDED_SNAPSHOT)
            cr_assert(recorded.step == *ret_records &&
                      recorded.elements[GD_RECORDED_GRADIENT].bytes.bytes == sizeof(elements) &&
                      memcmp(recorded.elements[GD_RECORDED_GRADIENT].bytes.data, elements, sizeof(elements)) == 0);
        ++*ret_records;
    }
    cr_assert_eq(reader.number, *ret_records + 1);
    cr_assert(result != GD_RECORDING_DAMAGED || reader.text[0] != '\0');
    gd_recording_reader_deinit(&reader);
    return result;
}

Test(recording_reader, every_level_is_read) {
    unsigned n_records;
    for (int level = 0; level <= 9; level++) {
        write_recording(level);
        int result = read_all(content, content_bytes, GD_RECORDED_BYTES_MAX, &n_records);
        cr_assert(result == GD_RECORDING_OVER && n_records == STEPS + 2, "level %d: %d", level, result);
    }
}

Test(recording_reader, every_cut_is_found) {
    int before = count_fds();
    unsigned n_records, most = 0;
    for (size_t bytes = 1; bytes < content_bytes; bytes++) {
        int result = read_all(content, bytes, GD_RECORDED_BYTES_MAX, &n_records);
        cr_assert(result == GD_RECORDING_TORN || result == GD_RECORDING_DAMAGED, "%zu bytes: %d", bytes, result);
        cr_assert_geq(n_records, most > 0 ? most - 1 : 0);
        most = n_records > most ? n_records : most;
    }
    cr_assert_eq(most, STEPS + 2); // only gzip's own end is missing
    cr_assert_eq(count_fds(), before);
}

Test(recording_reader, every_flipped_bit_is_found) {
    // Of gzip's header: whether it is text; then bytes of a time, a level and a system.
    enum { TEXT_BIT = 24, HARMLESS_FIRST = 4, HARMLESS_LAST = 9 };
    unsigned n_records;
    for (size_t bit = 0; bit < 8 * content_bytes; bit++) {
        content[bit / 8] ^= (uint8_t)(1 << bit % 8);
        int result = read_all(content, content_bytes, GD_RECORDED_BYTES_MAX, &n_records);
        bool harmless = bit == TEXT_BIT || (bit / 8 >= HARMLESS_FIRST && bit / 8 <= HARMLESS_LAST);
        cr_assert_eq(result == GD_RECORDING_OVER, harmless, "bit %zu: %d", bit, result);
        content[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

Test(recording_reader, a_record_that_is_too_long_is_damage) {
    unsigned n_records;
    cr_assert_eq(read_all(content, content_bytes, ELEMENT_BYTES, &n_records), GD_RECORDING_DAMAGED);
    cr_assert_eq(n_records, 1);
}

Test(recording_reader, a_file_that_is_there_is_left_alone) {
    struct gd_recording_writer *writer;
    unsigned n_records;
    int result = gd_recording_writer_new(path, 1, false, &writer);
    cr_assert_eq(result, -EEXIST);
    FILE *file = fopen(path, "rbe");
    cr_assert_eq(fread(content, 1, sizeof(content), file), content_bytes);
    fclose(file);
    cr_assert_eq(read_all(content, content_bytes, GD_RECORDED_BYTES_MAX, &n_records), GD_RECORDING_OVER);
}

Test(recording_reader, without_memory_it_says_so) {
    int before = count_fds(), result = -ENOMEM;
    unsigned n_records;
    for (unsigned n = 0; result != GD_RECORDING_OVER; n++) {
        allocations_left = n;
        result = read_all(content, content_bytes, GD_RECORDED_BYTES_MAX, &n_records);
        allocations_left = UINT32_MAX;
        cr_assert(result == -ENOMEM || result == GD_RECORDING_OVER, "after %u: %d", n, result);
        cr_assert_lt(n, 100);
    }
    cr_assert_eq(count_fds(), before);
}
