#include "memory.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crc32c.h"
#include "support.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

static struct gd_open_run *open_run;
static struct gd_layout layout;

static void new_layout(void) {
    const uint64_t numel[] = {100, 33};
    open_run = new_open_run(numel, ARRAY_SIZE(numel));
    gd_layout_init(&layout, open_run);
}

static void free_layout(void) {
    gd_open_run_free(open_run);
}

TestSuite(memory, .init = new_layout, .fini = free_layout);

// ---- What may be attached -------------------------------------------------------------------------------------------

static int good_memory(void) {
    return new_memfd(layout.total_bytes, needed_seals);
}

static int unsealed(void) {
    return new_memfd(layout.total_bytes, 0);
}

static int without_shrink(void) {
    return new_memfd(layout.total_bytes, needed_seals & ~F_SEAL_SHRINK);
}

static int without_grow(void) {
    return new_memfd(layout.total_bytes, needed_seals & ~F_SEAL_GROW);
}

static int without_seal(void) {
    return new_memfd(layout.total_bytes, needed_seals & ~F_SEAL_SEAL);
}

static int that_cannot_be_sealed(void) {
    int fd = memfd_create("test", MFD_CLOEXEC);
    cr_assert(fd >= 0 && ftruncate(fd, (off_t)layout.total_bytes) == 0);
    return fd;
}

static int sealed_against_writing(void) {
    return new_memfd(layout.total_bytes, needed_seals | F_SEAL_WRITE);
}

static int sealed_against_future_writing(void) {
    return new_memfd(layout.total_bytes, needed_seals | F_SEAL_FUTURE_WRITE);
}

static int one_byte_short(void) {
    return new_memfd(layout.total_bytes - 1, needed_seals);
}

static int one_byte_long(void) {
    return new_memfd(layout.total_bytes + 1, needed_seals);
}

static int empty(void) {
    return new_memfd(0, needed_seals);
}

static int open_for(int flags) {
    char path[32];
    int fd = good_memory();
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int again = open(path, flags | O_CLOEXEC);
    close(fd);
    cr_assert(again >= 0);
    return again;
}

static int read_only(void) {
    return open_for(O_RDONLY);
}

static int write_only(void) {
    return open_for(O_WRONLY);
}

static int path_only(void) {
    return open_for(O_PATH);
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
    return open("/dev/zero", O_RDWR | O_CLOEXEC);
}

static int regular_file(void) {
    int fd = new_file(O_RDWR);
    cr_assert_eq(ftruncate(fd, (off_t)layout.total_bytes), 0);
    return fd;
}

static int not_allocated(void) {
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    cr_assert(fd >= 0 && ftruncate(fd, (off_t)layout.total_bytes) == 0);
    cr_assert_eq(fcntl(fd, F_ADD_SEALS, needed_seals), 0);
    return fd;
}

static int with_a_hole(void) {
    int fd = good_memory();
    cr_assert_eq(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096), 0);
    return fd;
}

static int no_descriptor(void) {
    return -1;
}

static const struct {
    const char *what;
    int (*open)(void);
    uid_t other_uid; // added to the client's
    enum gd_error_code code;
    const char *text[2]; // both are part of the error's text
} bad_memories[] = {
    {"unsealed", unsealed, 0, GD_ERROR_MEMORY, {"seals 0x0", "SHRINK, GROW and SEAL"}},
    {"not sealed against shrinking", without_shrink, 0, GD_ERROR_MEMORY, {"seals 0x5", "0x7"}},
    {"not sealed against growing", without_grow, 0, GD_ERROR_MEMORY, {"seals 0x3", "0x7"}},
    {"not sealed against seals", without_seal, 0, GD_ERROR_MEMORY, {"seals 0x6", "0x7"}},
    {"that cannot be sealed", that_cannot_be_sealed, 0, GD_ERROR_MEMORY, {"seals 0x1", "0x7"}},
    {"sealed against writing", sealed_against_writing, 0, GD_ERROR_MEMORY, {"sealed against writing", ""}},
    {"sealed against later writing", sealed_against_future_writing, 0, GD_ERROR_MEMORY, {"sealed against", ""}},
    {"one byte short", one_byte_short, 0, GD_ERROR_MEMORY, {"bytes, the layout", ""}},
    {"one byte long", one_byte_long, 0, GD_ERROR_MEMORY, {"bytes, the layout", ""}},
    {"empty", empty, 0, GD_ERROR_MEMORY, {"has 0 bytes", ""}},
    {"read-only", read_only, 0, GD_ERROR_MEMORY, {"not open for reading and writing", ""}},
    {"write-only", write_only, 0, GD_ERROR_MEMORY, {"not open for reading and writing", ""}},
    {"O_PATH", path_only, 0, GD_ERROR_MEMORY, {"memory", ""}},
    {"of another user", good_memory, 1, GD_ERROR_MEMORY, {"belongs to uid", "the client is uid"}},
    {"a pipe", pipe_end, 0, GD_ERROR_MEMORY, {"not a memfd", ""}},
    {"a directory", directory, 0, GD_ERROR_MEMORY, {"not a memfd", ""}},
    {"a device", device, 0, GD_ERROR_MEMORY, {"not a memfd", ""}},
    {"a regular file", regular_file, 0, GD_ERROR_MEMORY, {"seal", ""}},
    {"not allocated", not_allocated, 0, GD_ERROR_MEMORY, {"has 0 of", "fallocate"}},
    {"with a hole", with_a_hole, 0, GD_ERROR_MEMORY, {"bytes allocated", "fallocate"}},
    {"no descriptor", no_descriptor, 0, GD_ERROR_MEMORY, {"not a memfd", ""}},
};

Test(memory, what_is_not_as_it_must_be_is_refused_and_closed) {
    for (size_t i = 0; i < ARRAY_SIZE(bad_memories); i++) {
        struct gd_memory memory;
        struct gd_error error = {.field = "", .text = ""};
        int before = count_fds();
        int fd = bad_memories[i].open();
        int result = gd_memory_attach_consume(&memory, fd, geteuid() + bad_memories[i].other_uid, &layout, &error);

        cr_expect_eq(result, -EBADMSG, "%s: %d", bad_memories[i].what, result);
        cr_expect_eq(error.code, bad_memories[i].code, "%s: %s", bad_memories[i].what, error.text);
        cr_expect_str_eq(error.field, "memory", "%s", bad_memories[i].what);
        for (int part = 0; part < 2; part++)
            cr_expect_not_null(strstr(error.text, bad_memories[i].text[part]), "%s: %s", bad_memories[i].what,
                               error.text);
        cr_expect_eq(fcntl(fd, F_GETFD) >= 0, fd >= 0, "%s: closed by who may not take the time", bad_memories[i].what);
        gd_memory_deinit(&memory);
        cr_expect_eq(count_fds(), before, "%s leaves a descriptor open", bad_memories[i].what);
    }
}

Test(memory, a_size_error_names_both_sizes) {
    struct gd_memory memory;
    struct gd_error error;
    char has[64], wants[64];
    cr_assert_eq(gd_memory_attach_consume(&memory, one_byte_long(), geteuid(), &layout, &error), -EBADMSG);
    gd_memory_deinit(&memory);
    snprintf(has, sizeof(has), "%llu bytes", (unsigned long long)layout.total_bytes + 1);
    snprintf(wants, sizeof(wants), "layout %llu", (unsigned long long)layout.total_bytes);
    cr_expect(strstr(error.text, has) && strstr(error.text, wants), "%s", error.text);
}

Test(memory, memory_on_hugetlbfs_is_refused) {
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);
    if (fd < 0)
        cr_skip_test("this kernel has no huge pages");
    struct gd_memory memory;
    struct gd_error error;
    cr_assert_eq(fcntl(fd, F_ADD_SEALS, needed_seals), 0);
    cr_expect_eq(gd_memory_attach_consume(&memory, fd, geteuid(), &layout, &error), -EBADMSG);
    gd_memory_deinit(&memory);
    cr_expect_eq(error.code, GD_ERROR_MEMORY);
    cr_expect_not_null(strstr(error.text, "hugetlbfs"), "%s", error.text);
}

Test(memory, good_memory_is_mapped_and_given_back) {
    struct gd_memory memory;
    struct gd_error error = {.text = ""};
    int before = count_fds();
    int fd = good_memory();
    int watch = dup(fd);

    cr_assert_eq(gd_memory_attach_consume(&memory, fd, geteuid(), &layout, &error), 0, "%s", error.text);
    cr_expect_eq(memory.fd, fd);
    memory.base[0] = 1;
    memory.base[layout.total_bytes - 1] = 2;
    uint8_t byte = 0;
    cr_expect(pread(watch, &byte, 1, (off_t)layout.total_bytes - 1) == 1 && byte == 2, "the mapping is shared");
    gd_memory_deinit(&memory);
    close(watch);
    cr_expect_eq(count_fds(), before);
    gd_memory_deinit(&memory);
}

// ---- The lock -------------------------------------------------------------------------------------------------------

// A child that takes the lock as a daemon does, says so, and holds it until the pipe is closed.
static pid_t start_holder(int fd, int *ret_release) {
    int ready[2], release[2];
    char byte;
    cr_assert(pipe(ready) == 0 && pipe(release) == 0);
    pid_t child = fork();
    cr_assert(child >= 0);
    if (child == 0) {
        struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        close(release[1]);
        if (fcntl(fd, F_SETLK, &whole) < 0 || write(ready[1], "r", 1) != 1)
            _exit(1);
        _exit(read(release[0], &byte, 1) == 0 ? 0 : 2);
    }
    close(ready[1]);
    close(release[0]);
    cr_assert_eq(read(ready[0], &byte, 1), 1, "the child could not lock");
    close(ready[0]);
    *ret_release = release[1];
    return child;
}

Test(memory, memory_that_another_process_holds_is_owned) {
    struct gd_memory memory;
    struct gd_error error = {.text = ""};
    int status, release;
    int fd = good_memory();
    pid_t holder = start_holder(fd, &release);
    int before = count_fds();

    cr_expect_eq(gd_memory_attach_consume(&memory, dup(fd), geteuid(), &layout, &error), -EBADMSG);
    gd_memory_deinit(&memory);
    cr_expect_eq(error.code, GD_ERROR_OWNED, "%s", error.text);
    cr_expect_str_eq(error.field, "memory");
    cr_expect_eq(count_fds(), before);

    close(release);
    cr_assert(waitpid(holder, &status, 0) == holder && status == 0);
    cr_expect_eq(gd_memory_attach_consume(&memory, fd, geteuid(), &layout, &error), 0, "%s", error.text);
    gd_memory_deinit(&memory);
}

// Whether another process would get the lock.
static bool is_lockable_by_others(int fd) {
    int status;
    pid_t child = fork();
    cr_assert(child >= 0);
    if (child == 0) {
        struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        _exit(fcntl(fd, F_SETLK, &whole) == 0 ? 0 : 1);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    return WEXITSTATUS(status) == 0;
}

Test(memory, attached_memory_is_locked_until_it_is_given_back) {
    struct gd_memory memory;
    struct gd_error error;
    int fd = good_memory();
    int watch = dup(fd);

    cr_expect(is_lockable_by_others(watch));
    cr_assert_eq(gd_memory_attach_consume(&memory, fd, geteuid(), &layout, &error), 0);
    cr_expect_not(is_lockable_by_others(watch));
    gd_memory_deinit(&memory);
    cr_expect(is_lockable_by_others(watch));
    close(watch);
}

// ---- Commits --------------------------------------------------------------------------------------------------------

static struct gd_memory memory;
static struct gd_run_state *state;

static void attach_memory(void) {
    new_layout();
    attach_new_memory(&memory, open_run);
    state = calloc(1, layout.state_bytes);
    cr_assert_not_null(state);
}

static void detach_memory(void) {
    free(state);
    gd_memory_deinit(&memory);
    free_layout();
}

TestSuite(memory_commit, .init = attach_memory, .fini = detach_memory);

static bool commit(uint64_t sequence, const uint8_t *records, size_t bytes, uint64_t appended_bytes) {
    static const struct gd_open_run digested = {.digest = UINT64_C(0x0123456789abcdef)};
    struct gd_memory_commit commit = {
        .open_run = &digested,
        .state = state,
        .records = records,
        .records_bytes = bytes,
        .appended_bytes = appended_bytes,
    };
    state->sequence = sequence;
    return gd_memory_commit(&memory, &commit);
}

static bool commit_nothing(uint64_t sequence) {
    return commit(sequence, (const uint8_t *)"", 0, 0);
}

static const struct gd_memory_header *header_copy(int copy) {
    return (const void *)(memory.base + layout.header_offset[copy]);
}

static bool is_valid(const struct gd_memory_header *header) {
    uint32_t checksum = gd_crc32c(0, header, offsetof(struct gd_memory_header, checksum));
    return gd_crc32c(checksum, &header->sequence, sizeof(header->sequence)) == header->checksum;
}

// The copy readers take.
static const struct gd_memory_header *latest_header(void) {
    const struct gd_memory_header *a = header_copy(0), *b = header_copy(1);
    if (!is_valid(a) || !is_valid(b))
        return is_valid(a) ? a : b;
    return a->sequence > b->sequence ? a : b;
}

static void fill_state(uint64_t seed) {
    uint8_t *bytes = (uint8_t *)state;
    for (uint64_t i = 0; i < layout.state_bytes; i++)
        bytes[i] = (uint8_t)next_random(&seed);
    state->user_tags = (uint32_t)(seed % (GRADIENTD_USER_TAGS_MAX + 1));
}

static uint64_t used_bytes(void) {
    return layout.state_bytes - (GRADIENTD_USER_TAGS_MAX - state->user_tags) * sizeof(int64_t);
}

Test(memory_commit, the_new_header_is_valid_and_the_latest) {
    const uint8_t records[100] = {1};

    for (uint64_t sequence = 0; sequence < 7; sequence++) {
        fill_state(sequence);
        commit(sequence, records, 10 * sequence, 1000 + sequence);
        const struct gd_memory_header *header = header_copy(sequence % 2);
        cr_expect(is_valid(header), "sequence %lu", (unsigned long)sequence);
        cr_expect_eq(latest_header(), header, "sequence %lu", (unsigned long)sequence);
        cr_expect_neq(header->magic, 0);
        cr_expect_eq(header->layout_version, GRADIENTD_LAYOUT_VERSION);
        cr_expect_eq(header->total_bytes, layout.total_bytes);
        cr_expect_eq(header->open_run_digest, UINT64_C(0x0123456789abcdef));
        cr_expect_eq(header->sequence, sequence);
        cr_expect_eq(header->appended_bytes, 1000 + 11 * sequence);
    }
}

Test(memory_commit, the_state_lies_in_the_half_its_header_vouches_for) {
    for (uint64_t sequence = 0; sequence < 7; sequence++) {
        fill_state(sequence);
        commit_nothing(sequence);
        const uint8_t *half = memory.base + layout.state_offset[sequence % 2];
        cr_expect_eq(memcmp(half, state, used_bytes()), 0, "sequence %lu", (unsigned long)sequence);
        cr_expect_eq(latest_header()->state_checksum, gd_crc32c(0, half, used_bytes()));
    }
}

// What a daemon that is killed inside commit n leaves must still read as commit n - 1.
Test(memory_commit, the_commit_before_stays_whole) {
    uint8_t *half = malloc(layout.state_bytes);
    cr_assert_not_null(half);
    commit_nothing(0);
    for (uint64_t sequence = 1; sequence < 7; sequence++) {
        struct gd_memory_header header = *header_copy((sequence - 1) % 2);
        memcpy(half, memory.base + layout.state_offset[(sequence - 1) % 2], layout.state_bytes);
        fill_state(sequence);
        commit_nothing(sequence);
        cr_expect_eq(memcmp(&header, header_copy((sequence - 1) % 2), sizeof(header)), 0, "sequence %lu",
                     (unsigned long)sequence);
        cr_expect_eq(memcmp(half, memory.base + layout.state_offset[(sequence - 1) % 2], layout.state_bytes), 0,
                     "sequence %lu", (unsigned long)sequence);
    }
    free(half);
}

Test(memory_commit, records_lie_in_the_ring_at_their_byte_of_the_file) {
    const uint64_t outbox = layout.outbox_bytes;
    const struct {
        uint64_t at;
        size_t bytes;
    } cases[] = {
        {0, 10},
        {10, 1},
        {outbox - 10, 10},
        {outbox - 10, 11},
        {outbox - 1, 2},
        {outbox, 7},
        {outbox + 5, 100},
        {2 * outbox - 30, 60},
        {3 * outbox, 0},
        {5 * outbox + 17, outbox}, // all of it, from the middle
        {UINT64_C(1) << 40, 1000},
    };
    uint8_t *expected = calloc(1, outbox), *records = malloc(outbox);
    uint64_t random = 1;
    cr_assert(expected && records);

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        for (size_t b = 0; b < cases[i].bytes; b++) {
            records[b] = (uint8_t)next_random(&random);
            expected[(cases[i].at + b) % outbox] = records[b];
        }
        commit(i, records, cases[i].bytes, cases[i].at);
        cr_expect_eq(memcmp(memory.base + layout.outbox_offset, expected, outbox), 0, "case %zu", i);
        cr_expect_eq(latest_header()->appended_bytes, cases[i].at + cases[i].bytes, "case %zu", i);
    }
    free(expected);
    free(records);
}

static _Atomic uint64_t *word_at(uint64_t offset) {
    return (void *)(memory.base + offset);
}

Test(memory_commit, words_of_free_slots_get_the_sequence) {
    const struct {
        struct gd_slot_state slot;
        bool gets_it;
    } cases[] = {
        {{.step = 0, .sequence = 0, .in_use = 0}, true},   // never used
        {{.step = 3, .sequence = 5, .in_use = 0}, true},   // its last lag has passed
        {{.step = 4, .sequence = 6, .in_use = 1}, false},  // history
        {{.step = 5, .sequence = 10, .in_use = 1}, false}, // the snapshot of this commit
        {{.step = 6, .sequence = 11, .in_use = 0}, false}, // pending: its snapshot is not committed yet
        {{.step = 5, .sequence = 10, .in_use = 0}, true},
    };
    cr_assert_eq(layout.slots, ARRAY_SIZE(cases));

    for (uint32_t i = 0; i < layout.slots; i++)
        state->slots[i] = cases[i].slot;
    commit_nothing(10);
    for (uint32_t i = 0; i < layout.slots; i++)
        cr_expect_eq(*word_at(layout.slot_words_offset + 8 * i), cases[i].gets_it ? 10 : 0, "slot %u", i);
    cr_expect_eq(*word_at(layout.commits_offset), 10);
}

Test(memory_commit, a_waiting_client_is_reported_once) {
    _Atomic uint32_t *waiting = (void *)(memory.base + layout.waiting_offset);

    cr_expect_not(commit_nothing(1));
    *waiting = 1;
    cr_expect(commit_nothing(2));
    cr_expect_eq(*waiting, 0);
    cr_expect_not(commit_nothing(3));
    *waiting = 77; // not trusted to be 1
    cr_expect(commit_nothing(4));
    cr_expect_eq(*waiting, 0);
}

Test(memory_commit, a_commit_touches_nothing_else) {
    const uint8_t records[] = {1, 2, 3};
    uint8_t *before = malloc(layout.total_bytes);
    cr_assert_not_null(before);
    memset(memory.base + layout.slots_offset, 0x5a, layout.slots * layout.slot_stride_bytes);
    memcpy(before, memory.base, layout.total_bytes);
    fill_state(1);
    commit(1, records, sizeof(records), 0);

    const struct {
        uint64_t offset, bytes;
    } touched[] = {
        {layout.header_offset[1], sizeof(struct gd_memory_header)},
        {layout.state_offset[1], layout.state_bytes},
        {layout.outbox_offset, sizeof(records)},
        {layout.commits_offset, 8},
        {layout.slot_words_offset, layout.slots * UINT64_C(8)},
    };
    for (size_t i = 0; i < ARRAY_SIZE(touched); i++)
        memcpy(before + touched[i].offset, memory.base + touched[i].offset, touched[i].bytes);
    cr_expect_eq(memcmp(before, memory.base, layout.total_bytes), 0);
    free(before);
}

Test(memory_commit, a_notice_raises_its_word) {
    const _Atomic uint32_t *notices = (void *)(memory.base + layout.notices_offset);
    for (uint32_t i = 1; i <= 3; i++) {
        gd_memory_raise_notice(&memory, GD_NOTICE_ERROR);
        cr_expect_eq(*notices, i);
    }
}

// ---- Places ---------------------------------------------------------------------------------------------------------

Test(memory_commit, slots_norms_and_moments_have_places_of_their_own) {
    for (uint32_t slot = 0; slot < layout.slots; slot++) {
        uint8_t *elements = (uint8_t *)gd_memory_slot(&memory, slot);
        cr_expect_eq(elements, memory.base + layout.slots_offset + slot * layout.slot_stride_bytes, "slot %u", slot);
        uint8_t *norms = (uint8_t *)gd_memory_group_norms(&memory, slot, 2);
        cr_expect_eq(norms, memory.base + layout.group_norms_offset + slot * UINT64_C(16), "slot %u", slot);
    }
    for (uint32_t half = 0; half < 2; half++)
        cr_expect_eq((uint8_t *)gd_memory_second_moment(&memory, 0, half, 0),
                     memory.base + layout.second_moment_offset[0][half][0]);
}

Test(memory_commit, user_tags_are_stored_with_their_end) {
    char longest[GRADIENTD_NAME_BYTES_MAX + 1];
    memset(longest, 'x', GRADIENTD_NAME_BYTES_MAX);
    longest[GRADIENTD_NAME_BYTES_MAX] = '\0';
    const char *table = (const char *)memory.base + layout.user_tags_offset;

    gd_memory_store_user_tag(&memory, 0, "train/loss");
    gd_memory_store_user_tag(&memory, 1, longest);
    gd_memory_store_user_tag(&memory, GRADIENTD_USER_TAGS_MAX - 1, longest);
    cr_expect_str_eq(table, "train/loss");
    cr_expect_str_eq(table + 256, longest);
    cr_expect_eq(table[2 * 256], '\0');
    cr_expect_str_eq(table + 1023 * 256, longest);
}
