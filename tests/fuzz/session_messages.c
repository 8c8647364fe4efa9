// What a session_client says.
#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

#include "bytes.h"
#include "gradientd.pb-c.h"
#include "open_runs.h"
#include "session_client.h"
#include "session_memory.h"

enum {
    WITHOUT_MEMORY = 1 << 0, // of an Attach; 0: as a good client attaches
    WITHOUT_EVENT_FILE = 1 << 1,
    WITH_PIDFD = 1 << 2,
    OF_THE_DEAD = 1 << 3,     // the pidfd
    FD_MISSES = 1 << 4,       // one of the descriptors does not come
    FD_TOO_MANY = 1 << 5,     // one comes that is not declared
    OTHER_MEMORY = 1 << 6,    // of another OpenRun
    PIPE_FOR_A_FILE = 1 << 7, // the event file is none

    ELEMENTS_BYTES_MAX = 256,
};

// What can be sent beside memories and event files; open for good.
static int pipe_ends[2], own_pidfd, dead_pidfd;

static int pidfd_of(pid_t pid) {
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    assert(fd >= 0);
    return fd;
}

void session_clients_prepare(void) {
    siginfo_t info;
    int result = pipe(pipe_ends);
    assert(result == 0);
    own_pidfd = pidfd_of(getpid());
    pid_t child = fork();
    assert(child >= 0);
    if (child == 0)
        _exit(0);
    result = waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT); // it has ended, and nobody waits for it
    assert(result == 0);
    dead_pidfd = pidfd_of(child);
}

static void put_bytes(struct session_client *client, const void *bytes, size_t n) {
    if (n == 0 || client->unsent_bytes + n > sizeof(client->unsent))
        return;
    memcpy(client->unsent + client->unsent_bytes, bytes, n);
    client->unsent_bytes += n;
}

static void put_fd(struct session_client *client, int fd) {
    if (client->n_unsent_fds < sizeof(client->unsent_fds) / sizeof(client->unsent_fds[0]))
        client->unsent_fds[client->n_unsent_fds++] = fd;
}

static void put_frame(struct session_client *client, const uint8_t *message, size_t message_bytes,
                      const uint8_t *payload, size_t payload_bytes) {
    uint8_t header[GRADIENTD_FRAME_HEADER_BYTES];
    gd_write_u32le(header, (uint32_t)message_bytes);
    gd_write_u32le(header + 4, (uint32_t)payload_bytes);
    put_bytes(client, header, sizeof(header));
    put_bytes(client, message, message_bytes);
    put_bytes(client, payload, payload_bytes);
}

static void put_message(struct session_client *client, const Gradientd__ClientMessage *message, const uint8_t *payload,
                        size_t payload_bytes) {
    uint8_t packed[1024];
    assert(gradientd__client_message__get_packed_size(message) <= sizeof(packed));
    put_frame(client, packed, gradientd__client_message__pack(message, packed), payload, payload_bytes);
}

void session_client_hello(struct session_client *client, struct session_input *input) {
    Gradientd__Hello hello = GRADIENTD__HELLO__INIT;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    hello.protocol_version = GRADIENTD_PROTOCOL_VERSION + session_take(input) / 192u;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_HELLO;
    message.hello = &hello;
    put_message(client, &message, NULL, 0);
    client->stage = STAGE_GREETED;
}

void session_client_open_run(struct session_client *client, uint8_t number) {
    struct open_run_message written;
    client->open_run = OPEN_RUNS_FIRST + number % (OPEN_RUNS_LAST - OPEN_RUNS_FIRST + 1);
    open_runs_write(client->open_run, &written);
    put_frame(client, written.message, written.message_bytes, written.table, written.table_bytes);
    client->stage = STAGE_OPENED;
}

static int event_file_of(struct session_client *client) {
    if (client->event_fd < 0)
        client->event_fd = memfd_create("events", MFD_CLOEXEC);
    client->event_attachments++;
    return client->event_fd;
}

void session_client_attach(struct session_client *client, uint8_t options) {
    Gradientd__Attach attach = GRADIENTD__ATTACH__INIT;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    int other = client->open_run < OPEN_RUNS_LAST ? client->open_run + 1 : OPEN_RUNS_FIRST;

    client->is_inline = options & WITHOUT_MEMORY;
    attach.has_memory = attach.memory = !(options & WITHOUT_MEMORY);
    attach.has_event_file = attach.event_file = !(options & WITHOUT_EVENT_FILE);
    attach.has_pidfd = attach.pidfd = options & WITH_PIDFD;
    if (attach.memory)
        put_fd(client, session_memory_of(options & OTHER_MEMORY ? other : client->open_run)->fd);
    if (attach.event_file)
        put_fd(client, options & PIPE_FOR_A_FILE ? pipe_ends[1] : event_file_of(client));
    if (attach.pidfd)
        put_fd(client, options & OF_THE_DEAD ? dead_pidfd : own_pidfd);
    if (options & FD_TOO_MANY)
        put_fd(client, own_pidfd);
    if (options & FD_MISSES && client->n_unsent_fds > 0)
        client->n_unsent_fds--;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_ATTACH;
    message.attach = &attach;
    put_message(client, &message, NULL, 0);
    client->stage = STAGE_ATTACHED;
}

// A slot that is free as far as the memory says, or else one that is not.
static uint32_t free_slot(const struct session_client *client, const struct session_memory *memory) {
    const _Atomic uint64_t *words = (const void *)(memory->base + memory->layout.slot_words_offset);
    uint32_t slot = 0;
    while (slot + 1 < memory->layout.slots && words[slot] < client->slot_used[slot])
        slot++;
    return slot;
}

// What a Snapshot points to.
struct snapshot {
    Gradientd__Snapshot message;
    Gradientd__StreamElements elements, sides[GD_SIDES], *streams[1 + GD_SIDES];
    Gradientd__ParameterGroupStep rates, *parameter_groups[2];
    Gradientd__Scalar scalar, *scalars[1];
    Gradientd__SquaredNorm norm, *squared_norms[1];
    double group_norms[2];
    uint8_t present[1];
};

// The next one, as a good client sends it.
static void init_snapshot(struct session_client *client, struct snapshot *snapshot) {
    static char tag[] = "train/loss";
    const struct session_memory *memory = session_memory_of(client->open_run);
    *snapshot = (struct snapshot){
        .message = GRADIENTD__SNAPSHOT__INIT,
        .elements = GRADIENTD__STREAM_ELEMENTS__INIT,
        .rates = GRADIENTD__PARAMETER_GROUP_STEP__INIT,
        .scalar = GRADIENTD__SCALAR__INIT,
        .norm = GRADIENTD__SQUARED_NORM__INIT,
    };
    session_client_read(client);
    client->step = client->step < 0 ? memory->open_run->first_step : client->step + 1;
    snapshot->streams[0] = &snapshot->elements;
    snapshot->parameter_groups[0] = snapshot->parameter_groups[1] = &snapshot->rates;
    snapshot->scalars[0] = &snapshot->scalar;
    snapshot->scalar.tag = tag;
    snapshot->elements.kind = GRADIENTD__STREAM_KIND__GRADIENT;
    snapshot->message.sequence = ++client->sequence;
    snapshot->message.step = client->step;
    snapshot->message.wall_time = 1.7e9;
    snapshot->message.n_streams = 1;
    snapshot->message.streams = snapshot->streams;
    snapshot->message.n_parameter_groups = 2;
    snapshot->message.parameter_groups = snapshot->parameter_groups;
    snapshot->message.scalars = snapshot->scalars;
}

// A batch, and one of half its size.
static void add_batch(struct snapshot *snapshot, bool per_group) {
    Gradientd__Snapshot *message = &snapshot->message;
    message->has_batch_size = message->has_clip_factor = true;
    message->batch_size = 32.0;
    message->clip_factor = 0.5;
    message->n_squared_norms = 1;
    message->squared_norms = snapshot->squared_norms;
    snapshot->squared_norms[0] = &snapshot->norm;
    snapshot->norm.batch_size = 16.0;
    snapshot->norm.value = 3.0;
    snapshot->norm.n_per_group = per_group ? 2 : 0;
    snapshot->norm.per_group = snapshot->group_norms;
}

// 0: nothing out of the ordinary.
static void change_snapshot(struct session_client *client, struct snapshot *snapshot, struct session_input *input) {
    Gradientd__Snapshot *message = &snapshot->message;
    uint8_t options = session_take(input);
    if (options & 1)
        message->step = client->step += session_take(input);
    if (options & 2)
        message->sequence = client->sequence += session_take(input);
    if (options & 4) {
        message->has_optimizer_step = true;
        message->optimizer_step = UINT64_C(1) << session_take(input) % 64;
    }
    if (options & 8) {
        snapshot->present[0] = session_take(input);
        message->has_groups_present = true;
        message->groups_present = (ProtobufCBinaryData){1, snapshot->present};
    }
    if (options & 16)
        message->n_parameter_groups = 1;
    if (options & 32)
        message->n_scalars = 1;
    if (options & 64)
        add_batch(snapshot, options & 128);
    message->has_skipped = options & 64;
    message->skipped = 1;
    if (options & 128)
        message->has_applied = true;
}

static void put_snapshot(struct session_client *client, struct snapshot *snapshot, const uint8_t *payload,
                         size_t payload_bytes) {
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_SNAPSHOT;
    message.snapshot = &snapshot->message;
    put_message(client, &message, payload, payload_bytes);
}

static void put_good_snapshot(struct session_client *client, struct snapshot *snapshot) {
    const struct session_memory *memory = session_memory_of(client->open_run);
    snapshot->elements.has_slot = true;
    snapshot->elements.slot = free_slot(client, memory);
    client->slot_used[snapshot->elements.slot] = client->sequence;
    put_snapshot(client, snapshot, NULL, 0);
}

// Streams beside the gradient: bits 0 to 2 of `choice`, all in the slot that the others make.
static void add_sides(struct snapshot *snapshot, uint8_t choice) {
    for (int side = 0; side < GD_SIDES; side++) {
        Gradientd__StreamElements *elements = &snapshot->sides[side];
        if (!(choice >> side & 1))
            continue;
        *elements = (Gradientd__StreamElements)GRADIENTD__STREAM_ELEMENTS__INIT;
        elements->kind = GRADIENTD__STREAM_KIND__PROBE_GRADIENT + (Gradientd__StreamKind)side;
        elements->has_slot = true;
        elements->slot = choice >> 3;
        snapshot->streams[snapshot->message.n_streams++] = elements;
    }
}

void session_client_snapshot(struct session_client *client, struct session_input *input) {
    struct snapshot snapshot;
    init_snapshot(client, &snapshot);
    change_snapshot(client, &snapshot, input);
    uint8_t slot = session_take(input);
    if (gd_open_run_sides_before(session_memory_of(client->open_run)->open_run, GD_SIDES) > 0)
        add_sides(&snapshot, session_take(input));
    if (slot == 0) {
        put_good_snapshot(client, &snapshot);
        return;
    }
    snapshot.elements.has_slot = true;
    snapshot.elements.slot = slot - 1u;
    put_snapshot(client, &snapshot, NULL, 0);
}

// `options`: 1 deflated, 2 one byte too many, 4 one too few of what is sent. Returns the payload's bytes.
static size_t make_payload(uint8_t options, size_t elements_bytes, uint8_t payload[static ELEMENTS_BYTES_MAX]) {
    uint8_t elements[ELEMENTS_BYTES_MAX];
    uLongf bytes = ELEMENTS_BYTES_MAX;
    for (size_t i = 0; i < elements_bytes; i++)
        elements[i] = (uint8_t)(i % 4 == 3 ? 0x3f : i);
    if (options & 2)
        elements_bytes++;
    if (options & 1) {
        int result = compress2(payload, &bytes, elements, elements_bytes, 1);
        assert(result == Z_OK);
    } else {
        memcpy(payload, elements, elements_bytes);
        bytes = elements_bytes;
    }
    return options & 4 ? bytes - 1 : bytes;
}

static size_t make_elements(Gradientd__StreamElements *elements, uint8_t options, size_t elements_bytes,
                            uint8_t payload[static ELEMENTS_BYTES_MAX]) {
    size_t bytes = make_payload(options, elements_bytes, payload);
    elements->has_inline_bytes = true;
    elements->inline_bytes = bytes;
    elements->has_deflated = elements->deflated = options & 1;
    return bytes;
}

static size_t elements_bytes_of(const struct session_client *client) {
    const struct gd_open_run *open_run = session_memory_of(client->open_run)->open_run;
    return open_run->elements * gd_element_bytes(open_run->element_type);
}

void session_client_inline(struct session_client *client, struct session_input *input) {
    struct snapshot snapshot;
    uint8_t payload[ELEMENTS_BYTES_MAX];
    init_snapshot(client, &snapshot);
    change_snapshot(client, &snapshot, input);
    size_t bytes = make_elements(&snapshot.elements, session_take(input), elements_bytes_of(client), payload);
    put_snapshot(client, &snapshot, payload, bytes);
}

static void put_start_vector(struct session_client *client, uint32_t array, uint64_t optimizer_step, uint8_t options) {
    Gradientd__StreamElements elements = GRADIENTD__STREAM_ELEMENTS__INIT;
    Gradientd__StartVector start = GRADIENTD__START_VECTOR__INIT;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    uint8_t payload[ELEMENTS_BYTES_MAX];
    size_t bytes = 0;

    session_client_read(client);
    elements.kind =
        array ? GRADIENTD__STREAM_KIND__START_SECOND_MOMENT_MAX : GRADIENTD__STREAM_KIND__START_SECOND_MOMENT;
    if (client->is_inline)
        bytes = make_elements(&elements, options,
                              session_memory_of(client->open_run)->open_run->elements * sizeof(float), payload);
    elements.has_slot = !client->is_inline;
    start.sequence = ++client->sequence;
    start.elements = &elements;
    start.optimizer_step = optimizer_step;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_START_VECTOR;
    message.start_vector = &start;
    put_message(client, &message, payload, bytes);
}

void session_client_start_vector(struct session_client *client, struct session_input *input) {
    uint8_t array = session_take(input) % 2, optimizer_step = session_take(input);
    put_start_vector(client, array, optimizer_step, session_take(input));
}

void session_client_scalars(struct session_client *client, struct session_input *input) {
    char tag[2] = {(char)('a' + session_take(input) % 8), '\0'};
    Gradientd__Scalar scalar = GRADIENTD__SCALAR__INIT, *scalars[] = {&scalar, &scalar};
    Gradientd__Scalars body = GRADIENTD__SCALARS__INIT;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    session_client_read(client);
    scalar.tag = tag;
    body.sequence = ++client->sequence;
    body.step = session_take(input);
    body.n_scalars = session_take(input) % 3;
    body.scalars = scalars;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_SCALARS;
    message.scalars = &body;
    put_message(client, &message, NULL, 0);
}

void session_client_close_run(struct session_client *client, struct session_input *input) {
    Gradientd__CloseRun body = GRADIENTD__CLOSE_RUN__INIT;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    session_client_read(client);
    body.sequence = ++client->sequence;
    body.outcome = GRADIENTD__OUTCOME__SUCCESS;
    body.has_step = body.has_optimizer_step = body.has_skipped = true;
    body.step = session_take(input);
    body.skipped = body.optimizer_step = session_take(input);
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_CLOSE_RUN;
    message.close_run = &body;
    put_message(client, &message, NULL, 0);
}

void session_client_status_request(struct session_client *client) {
    Gradientd__StatusRequest request = GRADIENTD__STATUS_REQUEST__INIT;
    request.has_alerts_after = true; // all of them
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_STATUS_REQUEST;
    message.status_request = &request;
    put_message(client, &message, NULL, 0);
}

void session_client_garbage(struct session_client *client, struct session_input *input) {
    size_t bytes = session_take(input) % 64;
    if (bytes > input->bytes)
        bytes = input->bytes;
    put_bytes(client, input->data, bytes);
    input->data += bytes;
    input->bytes -= bytes;
}

// Descriptors that come with a byte, or ahead of the message that is to take them.
void session_client_stray_fds(struct session_client *client, uint8_t n_fds) {
    for (int i = 0; i < n_fds % 6; i++)
        put_fd(client, own_pidfd);
    if (n_fds & 128)
        put_bytes(client, "", 1);
}

void session_client_advance(struct session_client *client) {
    struct session_input nothing = {.bytes = 0};
    struct snapshot snapshot;
    session_client_read(client);
    if (client->fd < 0 || client->refused)
        session_client_connect(client);
    else if (client->stage == STAGE_CONNECTED)
        session_client_hello(client, &nothing);
    else if (client->stage == STAGE_GREETED)
        session_client_open_run(client, (uint8_t)(client->open_run - OPEN_RUNS_FIRST));
    else if (client->stage == STAGE_OPENED)
        session_client_attach(client, 0);
    else if (client->sequence < session_memory_of(client->open_run)->layout.start_arrays)
        put_start_vector(client, (uint32_t)client->sequence, 100, 0);
    else if (client->is_inline)
        session_client_inline(client, &nothing);
    else {
        init_snapshot(client, &snapshot);
        put_good_snapshot(client, &snapshot);
    }
}
