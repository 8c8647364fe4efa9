#include "memory.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "crc32c.h"
#include "fault.h"
#include "gradientd/protocol.h"

static const uint64_t MEMORY_MAGIC = UINT64_C(0x31646e6569646172); // "radiend1"

enum { STAT_BLOCK_BYTES = 512 }; // the unit of st_blocks

static int refuse(struct gd_error *ret_error, const char *what) {
    return gd_error_set(ret_error, GD_ERROR_MEMORY, "memory", "memory %s", what);
}

static int check_seals(int fd, struct gd_error *ret_error) {
    int needed = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0)
        return refuse(ret_error, "is not a memfd that allows sealing");
    if ((seals & needed) != needed)
        return gd_error_set(ret_error, GD_ERROR_MEMORY, "memory",
                            "memory has seals 0x%x; SHRINK, GROW and SEAL (0x%x) are needed", (unsigned)seals,
                            (unsigned)needed);
    if (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
        return refuse(ret_error, "is sealed against writing");
    return 0;
}

static int check_file(int fd, uid_t uid, uint64_t total_bytes, struct gd_error *ret_error) {
    struct stat status;
    struct statfs system;

    if (fstat(fd, &status) < 0 || fstatfs(fd, &system) < 0 || !S_ISREG(status.st_mode))
        return refuse(ret_error, "is not a memfd");
    if (system.f_type == HUGETLBFS_MAGIC)
        return refuse(ret_error, "is on hugetlbfs, where pages can be missing when touched");
    if (status.st_uid != uid)
        return gd_error_set(ret_error, GD_ERROR_MEMORY, "memory", "memory belongs to uid %u, the client is uid %u",
                            status.st_uid, uid);
    if ((uint64_t)status.st_size != total_bytes)
        return gd_error_set(ret_error, GD_ERROR_MEMORY, "memory", "memory has %llu bytes, the layout %llu",
                            (unsigned long long)status.st_size, (unsigned long long)total_bytes);
    if ((uint64_t)status.st_blocks * STAT_BLOCK_BYTES < total_bytes) // the job's memory, not the daemon's
        return gd_error_set(ret_error, GD_ERROR_MEMORY, "memory",
                            "memory has %llu of %llu bytes allocated; all must be, as by fallocate",
                            (unsigned long long)status.st_blocks * STAT_BLOCK_BYTES, (unsigned long long)total_bytes);
    if ((fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDWR)
        return refuse(ret_error, "is not open for reading and writing");
    return 0;
}

int gd_memory_identify(int fd, struct gd_memory_id *ret_id, struct gd_error *ret_error) {
    struct stat status;
    int result = check_seals(fd, ret_error); // first: it fails on a foreign file system without asking it anything
    if (result < 0)
        return result;
    if (fstat(fd, &status) < 0)
        return refuse(ret_error, "is not a memfd");
    *ret_id = (struct gd_memory_id){status.st_dev, status.st_ino};
    return 0;
}

static int lock(int fd, struct gd_error *ret_error) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_SETLK, &whole) == 0)
        return 0;
    return gd_error_set(ret_error, GD_ERROR_OWNED, "memory", "memory is held by another daemon");
}

int gd_memory_attach_consume(struct gd_memory *memory, int fd, uid_t uid, const struct gd_layout *layout,
                             struct gd_error *ret_error) {
    *memory = (struct gd_memory){.fd = fd, .layout = *layout};
    int result = gd_memory_identify(fd, &memory->id, ret_error);
    if (result == 0)
        result = check_file(fd, uid, layout->total_bytes, ret_error);
    if (result == 0)
        result = lock(fd, ret_error);
    if (result < 0)
        return result;

    void *base = mmap(NULL, layout->total_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    memory->base = base;
    gd_fault_reach(GD_FAULT_ATTACH_LOCKED);
    return 0;
}

int gd_memory_relock(const struct gd_memory *memory, struct gd_error *ret_error) {
    return lock(memory->fd, ret_error);
}

int gd_memory_init_own(struct gd_memory *memory, const struct gd_layout *layout) {
    *memory = (struct gd_memory){.fd = -1, .layout = *layout};
    void *base = mmap(NULL, layout->total_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return -ENOMEM;
    memory->base = base;
    return 0;
}

void gd_memory_deinit(struct gd_memory *memory) {
    if (memory->base)
        munmap(memory->base, memory->layout.total_bytes);
    if (memory->fd >= 0)
        close(memory->fd);
    *memory = (struct gd_memory){.fd = -1};
}

static void append_records(struct gd_memory *memory, const struct gd_memory_commit *commit) {
    uint8_t *ring = memory->base + memory->layout.outbox_offset;
    uint64_t at = commit->appended_bytes % memory->layout.outbox_bytes;
    uint64_t until_end = memory->layout.outbox_bytes - at;
    size_t first = commit->records_bytes < until_end ? commit->records_bytes : (size_t)until_end;

    memcpy(ring + at, commit->records, first);
    memcpy(ring, commit->records + first, commit->records_bytes - first);
}

static uint32_t header_checksum(const struct gd_memory_header *header) {
    return gd_crc32c(gd_crc32c(0, header, offsetof(struct gd_memory_header, checksum)), &header->sequence,
                     sizeof(header->sequence));
}

static void store_header(struct gd_memory *memory, const struct gd_memory_commit *commit) {
    struct gd_memory_header header = {
        .magic = MEMORY_MAGIC,
        .layout_version = memory->layout.version,
        .total_bytes = memory->layout.total_bytes,
        .open_run_digest = commit->open_run->digest,
        .appended_bytes = commit->appended_bytes + commit->records_bytes,
        .sequence = commit->state->sequence,
    };
    header.state_checksum =
        gd_crc32c(0, commit->state, gd_run_state_used_bytes(commit->state, memory->layout.state_bytes));
    header.checksum = header_checksum(&header);

    struct gd_memory_header *copy = (void *)(memory->base + memory->layout.header_offset[header.sequence % 2]);
    memcpy(copy, &header, offsetof(struct gd_memory_header, sequence));
    gd_fault_reach(GD_FAULT_COMMIT_TORN_HEADER);
    atomic_store_explicit((_Atomic uint64_t *)&copy->sequence, header.sequence, memory_order_release);
}

// A free slot's word is the sequence of the commit that freed it: any commit not below its last use will do.
static void store_slot_words(struct gd_memory *memory, uint64_t words_offset, const struct gd_slot_state *slots,
                             uint64_t n_slots, uint64_t sequence) {
    _Atomic uint64_t *words = (void *)(memory->base + words_offset);
    for (uint64_t i = 0; i < n_slots; i++)
        if (!slots[i].in_use && slots[i].sequence <= sequence)
            atomic_store_explicit(&words[i], sequence, memory_order_release);
}

void gd_memory_publish(struct gd_memory *memory, const struct gd_open_run *open_run, struct gd_run_state *state) {
    const struct gd_layout *layout = &memory->layout;
    store_slot_words(memory, layout->slot_words_offset, state->slots, layout->slots, state->sequence);
    for (enum gd_side side = 0; side < GD_SIDES; side++)
        if (layout->sides[side].slots > 0)
            store_slot_words(memory, layout->sides[side].slot_words_offset,
                             gd_run_state_side(state, open_run, side)->slots, layout->sides[side].slots,
                             state->sequence);
    gd_fault_reach(GD_FAULT_COMMIT_SLOT_WORDS);
    _Atomic uint64_t *commits = (void *)(memory->base + memory->layout.commits_offset);
    atomic_store_explicit(commits, state->sequence, memory_order_release);
}

bool gd_memory_commit(struct gd_memory *memory, const struct gd_memory_commit *commit) {
    assert(commit->records_bytes <= memory->layout.outbox_bytes);
    gd_fault_reach(GD_FAULT_COMMIT_BEGUN);
    memcpy(memory->base + memory->layout.state_offset[commit->state->sequence % 2], commit->state,
           gd_run_state_used_bytes(commit->state, memory->layout.state_bytes));
    gd_fault_reach(GD_FAULT_COMMIT_STATE);
    append_records(memory, commit);
    gd_fault_reach(GD_FAULT_COMMIT_RECORDS);
    store_header(memory, commit);
    gd_fault_reach(GD_FAULT_COMMIT_HEADER);
    gd_memory_publish(memory, commit->open_run, commit->state);
    atomic_thread_fence(memory_order_seq_cst); // pairs with the client's, between its store to `waiting` and its look
    gd_fault_reach(GD_FAULT_COMMIT_DONE);
    _Atomic uint32_t *waiting = (void *)(memory->base + memory->layout.waiting_offset);
    return atomic_exchange_explicit(waiting, 0, memory_order_relaxed) != 0;
}

// The valid header copy with the higher sequence: 1, or 0 when there is none.
static int find_header(const struct gd_memory *memory, struct gd_memory_header *ret_header) {
    int found = 0;
    for (int i = 0; i < 2; i++) {
        struct gd_memory_header header;
        memcpy(&header, memory->base + memory->layout.header_offset[i], sizeof(header));
        if (header.magic != MEMORY_MAGIC || header.checksum != header_checksum(&header) ||
            header.sequence % 2 != (uint64_t)i)
            continue;
        if (found && header.sequence < ret_header->sequence)
            continue;
        *ret_header = header;
        found = 1;
    }
    return found;
}

static bool is_of_other_version(const struct gd_memory *memory, const struct gd_memory_header *header) {
    return header->magic == MEMORY_MAGIC && header->layout_version != memory->layout.version;
}

static int refuse_version(const struct gd_memory *memory, const struct gd_memory_header *header,
                          struct gd_error *ret_error) {
    return gd_error_set(ret_error, GD_ERROR_MEMORY, "memory", "memory has layout version %u, this daemon knows %u",
                        header->layout_version, memory->layout.version);
}

// Says what is wrong with memory that has no valid header; 0 when nothing is: as long as the second copy is empty the
// memory is new, or the daemon died in commit 0, which will be the same once more.
static int check_without_header(const struct gd_memory *memory, struct gd_error *ret_error) {
    struct gd_memory_header headers[2];
    for (int i = 0; i < 2; i++) {
        memcpy(&headers[i], memory->base + memory->layout.header_offset[i], sizeof(headers[i]));
        if (is_of_other_version(memory, &headers[i]))
            return refuse_version(memory, &headers[i], ret_error);
    }
    if (headers[1].magic == 0)
        return 0;
    return refuse(ret_error, headers[1].magic == MEMORY_MAGIC ? "is damaged: neither header's checksum is right"
                                                              : "begins with neither zeros nor a header");
}

// Copies the state that `header` vouches for, and checks that it does.
static int copy_state(const struct gd_memory *memory, const struct gd_memory_header *header,
                      struct gd_run_state *ret_state, struct gd_error *ret_error) {
    uint64_t bytes = memory->layout.state_bytes;
    memcpy(ret_state, memory->base + memory->layout.state_offset[header->sequence % 2], bytes);
    if (ret_state->user_tags > GRADIENTD_USER_TAGS_MAX)
        return refuse(ret_error, "is damaged: its state has too many tags");
    if (gd_crc32c(0, ret_state, gd_run_state_used_bytes(ret_state, bytes)) != header->state_checksum ||
        ret_state->sequence != header->sequence)
        return refuse(ret_error, "is damaged: its state's checksum is wrong");
    return 0;
}

int gd_memory_restore(const struct gd_memory *memory, uint64_t open_run_digest, struct gd_run_state *ret_state,
                      struct gd_memory_restored *ret_restored, struct gd_error *ret_error) {
    struct gd_memory_header header = {.magic = 0};
    if (!find_header(memory, &header))
        return check_without_header(memory, ret_error);
    if (is_of_other_version(memory, &header))
        return refuse_version(memory, &header, ret_error);
    if (header.open_run_digest != open_run_digest || header.total_bytes != memory->layout.total_bytes)
        return refuse(ret_error, "belongs to a run that was opened with another OpenRun");

    int result = copy_state(memory, &header, ret_state, ret_error);
    if (result < 0)
        return result;
    const _Atomic uint64_t *written = (const void *)(memory->base + memory->layout.written_offset);
    *ret_restored = (struct gd_memory_restored){
        .appended_bytes = header.appended_bytes,
        .written_bytes = atomic_load_explicit(written, memory_order_acquire),
    };
    if (ret_restored->written_bytes > ret_restored->appended_bytes ||
        ret_restored->appended_bytes - ret_restored->written_bytes > memory->layout.outbox_bytes)
        return gd_error_set(ret_error, GD_ERROR_MEMORY, "memory",
                            "memory is damaged: %llu bytes of the event file are written, of %llu appended",
                            (unsigned long long)ret_restored->written_bytes,
                            (unsigned long long)ret_restored->appended_bytes);
    return GD_MEMORY_RESUMES;
}

void gd_memory_raise_notice(struct gd_memory *memory, enum gd_notice notice) {
    _Atomic uint32_t *notices = (void *)(memory->base + memory->layout.notices_offset);
    atomic_fetch_add_explicit(notices, (uint32_t)notice, memory_order_release);
}

void *gd_memory_slot(const struct gd_memory *memory, uint32_t slot) {
    assert(slot < memory->layout.slots);
    return memory->base + memory->layout.slots_offset + slot * memory->layout.slot_stride_bytes;
}

void *gd_memory_side_slot(const struct gd_memory *memory, enum gd_side side, uint32_t slot) {
    const struct gd_side_layout *layout = &memory->layout.sides[side];
    assert(slot < layout->slots);
    return memory->base + layout->slots_offset + slot * layout->slot_stride_bytes;
}

double *gd_memory_group_norms(const struct gd_memory *memory, uint32_t slot, uint32_t n_groups) {
    assert(slot < memory->layout.slots);
    return (double *)(void *)(memory->base + memory->layout.group_norms_offset) + (size_t)slot * n_groups;
}

struct gd_slot_sums *gd_memory_slot_sums(const struct gd_memory *memory, uint32_t slot) {
    assert(slot < memory->layout.slots);
    return (void *)(memory->base + memory->layout.slot_sums_offset + slot * memory->layout.slot_sums_bytes);
}

float *gd_memory_second_moment(const struct gd_memory *memory, uint32_t rule, uint64_t half, uint32_t array) {
    assert(rule < GD_RULES_MAX && half < 2 && array < memory->layout.state_arrays[rule]);
    return (float *)(void *)(memory->base + memory->layout.second_moment_offset[rule][half][array]);
}

void gd_memory_store_user_tag(struct gd_memory *memory, uint32_t index, const char *tag) {
    assert(index < GRADIENTD_USER_TAGS_MAX);
    uint8_t *entry = memory->base + memory->layout.user_tags_offset + (size_t)index * (GRADIENTD_NAME_BYTES_MAX + 1);
    memcpy(entry, tag, strlen(tag) + 1);
}

void gd_memory_load_user_tag(const struct gd_memory *memory, uint32_t index,
                             char ret_tag[static GRADIENTD_NAME_BYTES_MAX + 1]) {
    assert(index < GRADIENTD_USER_TAGS_MAX);
    memcpy(ret_tag, memory->base + memory->layout.user_tags_offset + (size_t)index * (GRADIENTD_NAME_BYTES_MAX + 1),
           GRADIENTD_NAME_BYTES_MAX + 1);
    ret_tag[GRADIENTD_NAME_BYTES_MAX] = '\0';
}

void gd_memory_store_event_name(struct gd_memory *memory, const char *name) {
    memcpy(memory->base + memory->layout.event_name_offset, name, strlen(name) + 1);
}

void gd_memory_load_event_name(const struct gd_memory *memory, char ret_name[static GD_EVENT_NAME_BYTES]) {
    memcpy(ret_name, memory->base + memory->layout.event_name_offset, GD_EVENT_NAME_BYTES);
    ret_name[GD_EVENT_NAME_BYTES - 1] = '\0';
}
