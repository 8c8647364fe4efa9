#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "crc32c.h"
#include "decode.h"
#include "decode_open_run.h"
#include "gradientd/protocol.h"
#include "layout.h"
#include "memory.h"
#include "offences.h"

static char event_path[256], copied_event_path[256];

static int open_event_file(void) {
    int fd = open(event_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0, "%s: %s", event_path, strerror(errno));
    return fd;
}

static void attach_consume(struct raw_client *client, int memory, int event_file) {
    Gradientd__Attach attach = GRADIENTD__ATTACH__INIT;
    attach.has_memory = attach.memory = true;
    attach.has_event_file = attach.event_file = event_file >= 0;
    raw_client_send_attach(client, &attach, (int[]){memory, event_file}, event_file >= 0 ? 2 : 1);
    client->memory_fd = memory;
    if (event_file >= 0)
        close(event_file);
}

static void attach_memory_consume(struct raw_client *client, int memory) {
    attach_consume(client, memory, open_event_file());
}

static int good_memory(const struct raw_client *client) {
    return raw_memory_new(client->total_bytes, RAW_MEMORY_SEALS);
}

// ---- memory that was not made as it must be

OFFENCE(unsealed) {
    attach_memory_consume(client, raw_memory_new(client->total_bytes, 0));
}

OFFENCE(may_shrink) {
    attach_memory_consume(client, raw_memory_new(client->total_bytes, F_SEAL_GROW | F_SEAL_SEAL));
}

OFFENCE(may_grow) {
    attach_memory_consume(client, raw_memory_new(client->total_bytes, F_SEAL_SHRINK | F_SEAL_SEAL));
}

OFFENCE(may_be_sealed) {
    attach_memory_consume(client, raw_memory_new(client->total_bytes, F_SEAL_SHRINK | F_SEAL_GROW));
}

OFFENCE(write_sealed) {
    attach_memory_consume(client, raw_memory_new(client->total_bytes, RAW_MEMORY_SEALS | F_SEAL_WRITE));
}

OFFENCE(future_write_sealed) {
    attach_memory_consume(client, raw_memory_new(client->total_bytes, RAW_MEMORY_SEALS | F_SEAL_FUTURE_WRITE));
}

OFFENCE(sparse) {
    int memory = memfd_create("sparse", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    cr_assert(ftruncate(memory, (off_t)client->total_bytes) == 0 && fcntl(memory, F_ADD_SEALS, RAW_MEMORY_SEALS) == 0);
    attach_memory_consume(client, memory);
}

OFFENCE(empty) {
    int memory = memfd_create("empty", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    cr_assert_eq(fcntl(memory, F_ADD_SEALS, RAW_MEMORY_SEALS), 0);
    attach_memory_consume(client, memory);
}

OFFENCE(too_short) {
    attach_memory_consume(client, raw_memory_new(client->total_bytes - 4096, RAW_MEMORY_SEALS));
}

OFFENCE(too_long) {
    attach_memory_consume(client, raw_memory_new(client->total_bytes + 4096, RAW_MEMORY_SEALS));
}

OFFENCE(file) {
    int memory = open(event_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    cr_assert_eq(ftruncate(memory, (off_t)client->total_bytes), 0);
    attach_memory_consume(client, memory);
}

OFFENCE(pipe_end) {
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    attach_memory_consume(client, ends[0]);
    close(ends[1]);
}

// Opens memory a second time, with `flags`.
static int reopen_consume(int memory, int flags) {
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", memory);
    int fd = open(path, flags | O_CLOEXEC);
    close(memory);
    return fd;
}

OFFENCE(read_only) {
    attach_memory_consume(client, reopen_consume(good_memory(client), O_RDONLY));
}

OFFENCE(write_only) {
    attach_memory_consume(client, reopen_consume(good_memory(client), O_WRONLY));
}

OFFENCE(o_path) {
    attach_memory_consume(client, reopen_consume(good_memory(client), O_PATH));
}

OFFENCE(of_another_program) {
    char text[4096];
    int memory = good_memory(client);
    memset(text, 'x', sizeof(text));
    cr_assert_eq(pwrite(memory, text, sizeof(text), 0), (ssize_t)sizeof(text));
    attach_memory_consume(client, memory);
}

// The lock is this process's as long as the descriptor is open, which the client sees to.
OFFENCE(locked_by_another_process) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int memory = good_memory(client);
    cr_assert_eq(fcntl(memory, F_SETLK, &whole), 0);
    attach_memory_consume(client, memory);
}

OFFENCE(of_another_user) {
    int memory = good_memory(client);
    cr_assert_eq(fchown(memory, 65534, 65534), 0);
    attach_memory_consume(client, memory);
}

OFFENCE(of_huge_pages) {
    int memory = memfd_create("huge", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);
    cr_assert(memory >= 0 && fcntl(memory, F_ADD_SEALS, RAW_MEMORY_SEALS) == 0);
    attach_memory_consume(client, memory); // whatever its length is, that it may not be at all comes first
}

// ---- memory of a run that cannot be gone on with

static struct gd_layout layout;
static uint8_t *image; // a copied run's memory, mapped

static void lay_out(const struct raw_open_run *request) {
    static const uint8_t no_message[1];
    struct gd_frame frame = {.message = no_message, .payload_bytes = (uint32_t)request->table_bytes};
    struct gd_open_run *open_run;
    struct gd_error error;
    cr_assert_eq(gd_decode_open_run(&request->message, &frame, &open_run, &error), 0);
    cr_assert_eq(gd_open_run_read_table(open_run, request->table, request->table_bytes, &error), 0);
    gd_layout_init(&layout, open_run);
    gd_open_run_free(open_run);
}

static struct gd_memory_header *header(uint64_t i) {
    return (void *)(image + layout.header_offset[i]);
}

static struct gd_memory_header *latest_header(void) {
    return header(header(1)->sequence > header(0)->sequence ? 1 : 0);
}

static struct gd_run_state *latest_state(void) {
    return (void *)(image + layout.state_offset[latest_header()->sequence % 2]);
}

static uint64_t *written_bytes(void) {
    return (uint64_t *)(void *)(image + layout.written_offset);
}

// The checksums of the latest commit as whoever can write there can make them.
static void sign(void) {
    struct gd_memory_header *latest = latest_header();
    if (latest_state()->user_tags <= GRADIENTD_USER_TAGS_MAX)
        latest->state_checksum =
            gd_crc32c(0, latest_state(), gd_run_state_used_bytes(latest_state(), layout.state_bytes));
    latest->checksum = gd_crc32c(gd_crc32c(0, latest, offsetof(struct gd_memory_header, checksum)), &latest->sequence,
                                 sizeof(latest->sequence));
}

static void flip(void *byte) {
    *(uint8_t *)byte ^= 0x10;
}

// Another run of this daemon, with the same OpenRun but for its wall time.
static struct raw_client train_another(const struct raw_client *client, double wall_time) {
    struct raw_client other = raw_client_connect(client->socket);
    struct raw_open_run request;
    raw_open_run_init(&request);
    request.message.wall_time = wall_time;
    lay_out(&request);
    cr_assert_eq(layout.total_bytes, client->total_bytes);
    raw_client_advance(&other, RAW_WELCOME, NULL);
    raw_client_attach(&other, &request, copied_event_path);
    for (uint32_t n = 1; n <= 3; n++)
        raw_client_commit_step(&other, n);
    return other;
}

// A copy of such a run's memory, of whose file all is said to be written. `image` shows it.
static int copy_another(const struct raw_client *client, double wall_time) {
    struct raw_client other = train_another(client, wall_time);
    int memory = good_memory(client);
    image = mmap(NULL, client->total_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    cr_assert_neq(image, MAP_FAILED);
    memcpy(image, other.memory, client->total_bytes);
    raw_client_close(&other);
    cr_assert_eq(latest_header()->sequence, 3);
    *written_bytes() = latest_header()->appended_bytes;
    return memory;
}

#define COPY(name, spoil)                                                                                              \
    OFFENCE(name) {                                                                                                    \
        struct raw_open_run request;                                                                                   \
        raw_open_run_init(&request);                                                                                   \
        int memory = copy_another(client, request.message.wall_time);                                                  \
        spoil;                                                                                                         \
        munmap(image, client->total_bytes);                                                                            \
        attach_memory_consume(client, memory);                                                                         \
    }

COPY(of_the_next_version, latest_header()->layout_version++; sign())
COPY(of_an_unknown_format, header(0)->layout_version = header(1)->layout_version = 7)
COPY(with_damaged_headers, flip(header(0)); flip(&header(0)->checksum); flip(&header(1)->appended_bytes))
COPY(with_a_damaged_state, flip(&latest_state()->step))
COPY(with_a_damaged_group, flip(gd_run_state_groups(latest_state())))
COPY(with_a_forged_step, latest_state()->step = -2; sign())
COPY(with_forged_rates, gd_run_state_rates(latest_state(), 1)->learning_rate = (double)NAN; sign())
COPY(with_forged_slots, latest_state()->slots[0].in_use = 1; latest_state()->slots[0].step = INT64_MAX; sign())
COPY(with_forged_tags, latest_state()->user_tags = UINT32_MAX; sign())
COPY(written_too_far, ++*written_bytes())
COPY(with_too_short_a_file, latest_header()->appended_bytes = *written_bytes() = UINT64_C(1) << 40; sign())

OFFENCE(of_another_open_run) {
    int memory = copy_another(client, 1.6e9);
    munmap(image, client->total_bytes);
    attach_memory_consume(client, memory);
}

// The daemon is to go on in a file that it created itself.
OFFENCE(with_a_name_elsewhere) {
    struct raw_open_run request;
    raw_open_run_init(&request);
    int memory = copy_another(client, request.message.wall_time);
    strcpy((char *)image + layout.event_name_offset, "../../events.out.tfevents.1.host.1.1.gradientd");
    munmap(image, client->total_bytes);
    attach_consume(client, memory, -1);
}

// ---- what they are told

#define OFFENCE_IS(code, function, field, says)                                                                        \
    { #function, RAW_LAID_OUT, function, GRADIENTD__ERROR_CODE__##code, field, says }
#define MEMORY(function, says) OFFENCE_IS(MEMORY, function, "memory", says)

static const struct offence memory_offences[] = {
    MEMORY(unsealed, "SHRINK, GROW and SEAL"),
    MEMORY(may_shrink, "SHRINK, GROW and SEAL"),
    MEMORY(may_grow, "SHRINK, GROW and SEAL"),
    MEMORY(may_be_sealed, "SHRINK, GROW and SEAL"),
    MEMORY(write_sealed, "sealed against writing"),
    MEMORY(future_write_sealed, "sealed against writing"),
    MEMORY(sparse, "memory has 0 of"),
    MEMORY(empty, "memory has 0 bytes, the layout"),
    MEMORY(too_short, "the layout"),
    MEMORY(too_long, "the layout"),
    MEMORY(file, "not a memfd"),
    MEMORY(pipe_end, "not a memfd"),
    MEMORY(read_only, "not open for reading and writing"),
    MEMORY(write_only, "not open for reading and writing"),
    MEMORY(o_path, "not a memfd"),
    MEMORY(of_another_program, "neither zeros nor a header"),
    OFFENCE_IS(OWNED, locked_by_another_process, "memory", "memory is held by another daemon"),

    MEMORY(of_the_next_version, "memory has layout version 4, this daemon knows 3"),
    MEMORY(of_an_unknown_format, "memory has layout version 7, this daemon knows 3"),
    MEMORY(with_damaged_headers, "memory is damaged: neither header's checksum is right"),
    MEMORY(with_a_damaged_state, "memory is damaged: its state's checksum is wrong"),
    MEMORY(with_a_damaged_group, "memory is damaged: its state's checksum is wrong"),
    MEMORY(with_a_forged_step, "memory is damaged: the step or the time in its state is none"),
    MEMORY(with_forged_rates, "memory is damaged: the rates in its state are outside their limits"),
    MEMORY(with_forged_slots, "memory is damaged: a slot in its state is ahead of the run"),
    MEMORY(with_forged_tags, "memory is damaged: its state has too many tags"),
    MEMORY(written_too_far, "bytes of the event file are written"),
    MEMORY(of_another_open_run, "memory belongs to a run that was opened with another OpenRun"),
    OFFENCE_IS(INVALID, with_too_short_a_file, "event_file", "event_file has 0 bytes, the run has written"),
    MEMORY(with_a_name_elsewhere, "memory is damaged"),
};

static const struct offence other_users[] = {MEMORY(of_another_user, "belongs to uid 65534, the client is uid 0")};
static const struct offence huge[] = {MEMORY(of_huge_pages, "hugetlbfs")};

struct offences offences_memory(const char *directory) {
    snprintf(event_path, sizeof(event_path), "%s/memory.events", directory);
    snprintf(copied_event_path, sizeof(copied_event_path), "%s/copied.events", directory);
    return OFFENCES(memory_offences);
}

struct offences offences_memory_of_another_user(const char *directory) {
    offences_memory(directory);
    return OFFENCES(other_users);
}

struct offences offences_memory_of_huge_pages(const char *directory) {
    offences_memory(directory);
    return OFFENCES(huge);
}
