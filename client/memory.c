#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "internal.h"

enum {
    SLOTS_MAX = 4096, // far above any the daemon hands out
    // Of what is mapped or unmapped at once: another thread's mmap() and munmap() wait for it, which malloc() may need.
    // Populating takes 0.6 s a gigabyte, so this takes 0.6 ms.
    PIECE_BYTES = 1 << 20,
};

const Gradientd__StreamLayout *client_find_stream(const Gradientd__Layout *layout, Gradientd__StreamKind kind) {
    for (size_t i = 0; i < layout->n_streams; i++)
        if (layout->streams[i]->kind == kind)
            return layout->streams[i];
    return NULL;
}

// Whether [offset, offset + bytes) lies in the memory and is aligned: a daemon's mistake must not hurt the trainer.
static bool lies_inside(const Gradientd__Layout *layout, uint64_t offset, uint64_t bytes, uint64_t alignment) {
    return offset % alignment == 0 && offset <= layout->total_bytes && bytes <= layout->total_bytes - offset;
}

static bool slots_fit(const Gradientd__Layout *layout, const Gradientd__StreamLayout *stream, uint64_t slot_bytes) {
    return stream->slots >= 1 && stream->slots <= SLOTS_MAX && stream->slot_stride_bytes >= slot_bytes &&
           stream->slot_stride_bytes <= layout->total_bytes &&
           lies_inside(layout, stream->slots_offset, stream->slots * stream->slot_stride_bytes, sizeof(float));
}

// A slot's elements; start vectors are always floats.
static uint64_t slot_bytes_of(const struct gradientd_run *run, Gradientd__StreamKind kind) {
    for (enum client_side side = 0; side < CLIENT_SIDES; side++)
        if (kind == client_side_kind(side))
            return run->sides[side].elements * run->sides[side].vector.element_bytes;
    return run->elements * (kind == GRADIENTD__STREAM_KIND__GRADIENT ? run->vector.element_bytes : sizeof(float));
}

// Every stream that the run sends has its place.
static bool sides_fit(const struct gradientd_run *run, const Gradientd__Layout *layout) {
    for (enum client_side side = 0; side < CLIENT_SIDES; side++) {
        const Gradientd__StreamLayout *stream = client_find_stream(layout, client_side_kind(side));
        if (!stream != (run->sides[side].elements == 0))
            return false;
        if (stream &&
            !lies_inside(layout, stream->slot_words_offset, stream->slots * sizeof(uint64_t), sizeof(uint64_t)))
            return false;
    }
    return true;
}

bool client_layout_fits(const struct gradientd_run *run, const Gradientd__Layout *layout) {
    if (layout->n_streams < 1 || // the version is the daemon's business: all that is used has an offset
        layout->total_bytes > INT64_MAX / SLOTS_MAX) // so that no product of slots and a stride within it overflows
        return false;
    for (size_t i = 0; i < layout->n_streams; i++) {
        const Gradientd__StreamLayout *stream = layout->streams[i];
        if (!slots_fit(layout, stream, slot_bytes_of(run, stream->kind)))
            return false;
    }
    if (!sides_fit(run, layout))
        return false;
    const Gradientd__StreamLayout *gradient = layout->streams[0];
    return gradient->kind == GRADIENTD__STREAM_KIND__GRADIENT &&
           lies_inside(layout, gradient->slot_words_offset, gradient->slots * sizeof(uint64_t), sizeof(uint64_t)) &&
           lies_inside(layout, layout->commits_offset, sizeof(uint64_t), sizeof(uint64_t)) &&
           lies_inside(layout, layout->waiting_offset, sizeof(uint32_t), sizeof(uint32_t)) &&
           lies_inside(layout, layout->notices_offset, sizeof(uint32_t), sizeof(uint32_t));
}

// In pieces, so that a signal that interrupts one (a profiler's timer) undoes no more than that piece.
static int allocate_pages(int fd, uint64_t total_bytes) {
    const uint64_t piece_bytes = 16 << 20;

    for (uint64_t at = 0; at < total_bytes;) {
        uint64_t bytes = total_bytes - at < piece_bytes ? total_bytes - at : piece_bytes;
        if (fallocate(fd, 0, (off_t)at, (off_t)bytes) == 0)
            at += bytes;
        else if (errno != EINTR)
            return -1;
    }
    return 0;
}

// Maps the pages of slots, so that no step pays for it.
static void populate(const struct client_slots *slots) {
#ifdef MADV_POPULATE_WRITE
    uint64_t bytes = slots->count * slots->stride_bytes;
    for (uint64_t at = 0; at < bytes; at += PIECE_BYTES)
        madvise(slots->base + at, bytes - at < PIECE_BYTES ? bytes - at : PIECE_BYTES, MADV_POPULATE_WRITE);
#else
    (void)slots;
#endif
}

static int map_memory(struct gradientd_run *run, const Gradientd__Layout *layout, int fd,
                      struct gradientd_error *ret_error) {
    void *memory = mmap(NULL, layout->total_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        return client_fail(ret_error, errno, "mmap of %llu bytes: %s", (unsigned long long)layout->total_bytes,
                           strerror(errno));
    run->memory = memory;
    run->memory_bytes = layout->total_bytes;
    madvise(memory, layout->total_bytes, MADV_DONTFORK);

    const Gradientd__StreamLayout *stream = layout->streams[0];
    run->slots = (struct client_slots){
        .base = run->memory + stream->slots_offset,
        .stride_bytes = stream->slot_stride_bytes,
        .count = stream->slots,
        .words = (void *)(run->memory + stream->slot_words_offset),
        .used_sequence = calloc(stream->slots, sizeof(uint64_t)),
    };
    run->vector.streams = client_copy_streams(run->slots.count * run->slots.stride_bytes);
    int result = client_sides_map(run, layout);
    run->waiting = (void *)(run->memory + layout->waiting_offset);
    run->notices = (void *)(run->memory + layout->notices_offset);
    run->commits = (void *)(run->memory + layout->commits_offset);
    populate(&run->slots);
    for (enum client_side side = 0; side < CLIENT_SIDES; side++)
        populate(&run->sides[side].slots);
    return run->slots.used_sequence && result == 0 ? 0 : client_fail(ret_error, ENOMEM, "out of memory");
}

// Gives the memory its size and pages, and seals it. Returns 0 or a negative errno.
static int make_whole(int fd, uint64_t total_bytes) {
    struct client_held_signals held;
    client_hold_signals(&held);
    int result = ftruncate(fd, (off_t)total_bytes) < 0 || allocate_pages(fd, total_bytes) < 0 ||
                         fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0
                     ? -errno
                     : 0;
    client_release_signals(&held);
    return result;
}

void client_unmap(uint8_t *memory, uint64_t bytes) {
    for (uint64_t at = 0; at < bytes; at += PIECE_BYTES)
        munmap(memory + at, bytes - at < PIECE_BYTES ? bytes - at : PIECE_BYTES);
}

int client_create_memory(struct gradientd_run *run, const Gradientd__Layout *layout,
                         struct gradientd_error *ret_error) {
    int fd = client_lift_descriptor(memfd_create("gradientd", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (fd < 0)
        return client_fail(ret_error, errno, "memfd_create: %s", strerror(errno));
    int result = make_whole(fd, layout->total_bytes);
    if (result < 0)
        client_fail(ret_error, -result, "%llu bytes of shared memory: %s", (unsigned long long)layout->total_bytes,
                    strerror(-result));
    else
        result = map_memory(run, layout, fd, ret_error);
    if (result < 0) {
        close(fd);
        return result;
    }
    return fd;
}
