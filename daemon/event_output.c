#include "event_output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "event_repair.h"
#include "fault.h"

enum { TEXT_BYTES = 256, PATH_BYTES = 512 };

void gd_event_output_log(const struct gd_event_output *output, enum gd_log_level level, const char *format, ...) {
    char text[TEXT_BYTES], link[64], path[PATH_BYTES] = "?";
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    snprintf(link, sizeof(link), "/proc/self/fd/%d", output->fd);
    ssize_t bytes = output->path ? 0 : readlink(link, path, sizeof(path) - 1);
    if (bytes > 0)
        path[bytes] = '\0';
    gd_log(level, "run %s: event file: %s (%s)", *output->run ? output->run : ".", text,
           output->path ? output->path : path);
}

// The shared word first: once the other says that there is room, the bytes below it may be overwritten, and nobody who
// resumes the run may want them again.
static void store_written(struct gd_event_output *output, uint64_t written) {
    atomic_store_explicit((_Atomic uint64_t *)output->written_word, written, memory_order_release);
    atomic_store_explicit(&output->written_bytes, written, memory_order_release);
}

// Lowers written_bytes to `to`, and returns from which byte of the file on the ring holds everything, now and as long
// as written_bytes stays there. That is not above what written_bytes was.
//
// A commit may be under way that was allowed when written_bytes was higher. It overwrites up to step_records_max bytes
// of the ring from appended_bytes on. It is the only one, and no later one does more. For before a commit is allowed
// (gd_run_next()), the one before has stored appended_bytes, and then written_bytes is loaded; here written_bytes is
// stored, and then appended_bytes loaded. All four are sequentially consistent, so one of the two sees the other's
// store: either the commit's room is counted from `to`, or appended_bytes is here what it begins at.
static uint64_t hold_from(struct gd_event_output *output, uint64_t to) {
    uint64_t written = output->written_bytes;
    atomic_store(&output->written_bytes, to);
    uint64_t end = atomic_load(&output->appended_bytes) + output->step_records_max;
    uint64_t held = end > output->outbox_bytes ? end - output->outbox_bytes : 0;
    if (held > written)
        held = written;
    return held > to ? held : to;
}

// Whether the ring holds a record's header that lies at `offset` of the file. Its checksum and a length that can be are
// proof enough.
static bool is_header(const struct gd_event_output *output, uint64_t offset) {
    uint8_t header[GD_EVENT_REPAIR_HEADER_BYTES];
    uint64_t data_bytes;
    for (size_t i = 0; i < sizeof(header); i++)
        header[i] = output->outbox[(offset + i) % output->outbox_bytes];
    return gd_event_repair_is_header(header, &data_bytes) && data_bytes <= output->step_records_max;
}

// Where the first record begins that lies at or behind byte `from`, or where all of them end; with room for a filler
// behind byte `end`, if it needs one.
static uint64_t find_next(const struct gd_event_output *output, uint64_t end, uint64_t from) {
    uint64_t appended = output->appended_bytes, at = from;
    while (at < appended && !((at == end || at - end >= GD_EVENT_REPAIR_FILLER_BYTES_MIN) && is_header(output, at)))
        at++;
    return at;
}

// The file is not to be relied on from byte `good` on. Cuts it off where a record ends, and goes on from there with
// what the ring holds; what neither has is filled.
static int repair(struct gd_event_output *output, uint64_t good) {
    uint64_t end, written = output->written_bytes;
    int result = gd_event_repair_find_end(output->fd, good, &end);
    if (result < 0)
        return result;
    uint64_t next = find_next(output, end, hold_from(output, end));
    result = gd_event_repair_fill(output->fd, end, next, output->wall_time);
    if (result < 0) {
        atomic_store(&output->written_bytes, written); // from here on the ring holds everything, as ever
        return result;
    }
    store_written(output, next);
    if (next == end)
        gd_event_output_log(output, GD_LOG_WARNING, "cut off at byte %llu of %llu: written again from there",
                            (unsigned long long)good, (unsigned long long)written);
    else
        gd_event_output_log(output, GD_LOG_ERROR,
                            "cut off at byte %llu of %llu: records from byte %llu to %llu are lost",
                            (unsigned long long)good, (unsigned long long)written, (unsigned long long)end,
                            (unsigned long long)next);
    return 0;
}

// Tells where the file's last name goes, which it is written to without as well, and where it gets one again.
static void tell_unlinked(struct gd_event_output *output, bool unlinked) {
    if (unlinked != output->unlinked)
        gd_event_output_log(output, unlinked ? GD_LOG_WARNING : GD_LOG_INFO,
                            unlinked ? "deleted: what is written to it is seen by nobody" : "no longer deleted");
    output->unlinked = unlinked;
}

// Looks at the file before a batch. *ret_at_end: it ends where writing goes on.
static int look(struct gd_event_output *output, bool *ret_at_end) {
    struct stat status;
    int flags = fcntl(output->fd, F_GETFL);
    if (flags < 0 || fstat(output->fd, &status) < 0)
        return -errno;
    if (flags & O_APPEND)
        return GD_EVENT_OUTPUT_APPENDS;
    tell_unlinked(output, status.st_nlink == 0);
    uint64_t size = (uint64_t)status.st_size;
    *ret_at_end = size <= output->written_bytes;
    return size < output->written_bytes ? repair(output, size) : 0;
}

// Looks again after a batch that began at byte `start`. Where the file was cut off meanwhile, what was written at its
// end has come to lie too low: not below the end that the file has now, less all that was written.
static int look_again(struct gd_event_output *output, uint64_t start, bool at_end) {
    struct stat status;
    uint64_t written = output->written_bytes, moved_bytes = at_end ? written - start : 0;
    if (fstat(output->fd, &status) < 0)
        return -errno;
    uint64_t size = (uint64_t)status.st_size, good = size > moved_bytes ? size - moved_bytes : 0;
    if (size == written || (size > written && !at_end))
        return 0;
    if (good > start) // somebody else has written at the end, too
        good = start;
    int result = repair(output, good);
    return result < 0 ? result : GD_EVENT_OUTPUT_SPOILT;
}

// Writes bytes of the ring that lie at `offset` of the file. At its end they are appended, so that a file that is cut
// off now does not get a hole, which no reader would get past. Returns how many, or a negative errno.
static ssize_t write_some(const struct gd_event_output *output, uint64_t offset, uint64_t bytes, bool at_end) {
    uint64_t at = offset % output->outbox_bytes;
    union {
        const uint8_t *borrowed;
        void *base;
    } data = {.borrowed = output->outbox + at}; // iovec's field is not const
    uint64_t until_end = output->outbox_bytes - at;
    struct iovec vector = {data.base, gd_fault_write_bytes(bytes < until_end ? bytes : until_end)};
    int flags = at_end ? RWF_APPEND : 0;
    for (;;) {
        ssize_t result = pwritev2(output->fd, &vector, 1, (off_t)offset, flags);
        if (result > 0)
            return result;
        if (result == 0)
            return -EIO;
        if (errno == EOPNOTSUPP && flags)
            flags = 0;
        else if (errno != EINTR)
            return -errno;
    }
}

static int write_until(struct gd_event_output *output, uint64_t end, bool at_end) {
    for (uint64_t written = output->written_bytes; written < end;) {
        gd_fault_reach(GD_FAULT_WRITE_BEGUN);
        ssize_t result = write_some(output, written, end - written, at_end);
        if (result < 0)
            return (int)result;
        written += (uint64_t)result;
        if (output->counters)
            atomic_fetch_add_explicit(&output->counters->event_bytes, (uint64_t)result, memory_order_relaxed);
        gd_fault_reach(GD_FAULT_WRITE_UNTOLD);
        store_written(output, written);
        gd_fault_tell_bytes(output->appended_bytes, written);
        gd_fault_reach(GD_FAULT_WRITE_COUNTED);
    }
    return 0;
}

int gd_event_output_write(struct gd_event_output *output) {
    uint64_t end = output->appended_bytes;
    bool at_end = false;
    int result = look(output, &at_end);
    if (result != 0)
        return result;
    uint64_t start = output->written_bytes;
    result = write_until(output, end, at_end);
    int changed = look_again(output, start, at_end);
    return result < 0 ? result : changed;
}
