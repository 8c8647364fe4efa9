#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bytes.h"
#include "frame.h"
#include "internal.h"

// Waits for the daemon's next message, which must be of one kind. The caller frees *ret_message, untouched on failure.
static int expect(struct gradientd_run *run, Gradientd__DaemonMessage__MessageCase kind, const char *name,
                  double deadline, Gradientd__DaemonMessage **ret_message, struct gradientd_error *ret_error) {
    Gradientd__DaemonMessage *message;
    int result = client_receive(run, deadline, &message);
    if (result == 0)
        return client_fail(ret_error, ETIMEDOUT, "the daemon did not send %s within connect_timeout", name);
    if (result < 0)
        return client_fail(ret_error, -result, "the daemon went away before it sent %s", name);
    if (message->message_case == kind) {
        *ret_message = message;
        return 0;
    }
    if (message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_ERROR)
        result = client_fail(ret_error, EBADMSG, "the daemon refused: %s", message->error->text);
    else
        result = client_fail(ret_error, EPROTO, "the daemon sent something else than %s", name);
    gradientd__daemon_message__free_unpacked(message, NULL);
    return result;
}

static int say_hello(struct gradientd_run *run, double deadline, struct gradientd_error *ret_error) {
    char name[] = "libgradientd " GD_VERSION;
    Gradientd__Hello hello = GRADIENTD__HELLO__INIT;
    hello.protocol_version = GRADIENTD_PROTOCOL_VERSION;
    hello.client = name;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_HELLO;
    message.hello = &hello;
    client_send(run, &message); // a daemon that is gone shows when its answer is read

    Gradientd__DaemonMessage *reply = NULL;
    int result = expect(run, GRADIENTD__DAEMON_MESSAGE__MESSAGE_WELCOME, "Welcome", deadline, &reply, ret_error);
    if (!reply)
        return result;
    if (reply->welcome->protocol_version != GRADIENTD_PROTOCOL_VERSION)
        result = client_fail(ret_error, EPROTO, "the daemon speaks protocol %u, this client %d",
                             reply->welcome->protocol_version, GRADIENTD_PROTOCOL_VERSION);
    gradientd__daemon_message__free_unpacked(reply, NULL);
    return result;
}

static void fill_optimizer(const struct gradientd_options *options, Gradientd__Optimizer *optimizer) {
    const struct gradientd_optimizer *given = &options->optimizer;
    optimizer->rule = (Gradientd__Rule)given->rule;
    optimizer->has_bias_correction = given->bias_correction != GRADIENTD_RULE_DEFAULT;
    optimizer->bias_correction = given->bias_correction == GRADIENTD_BIAS_CORRECTED;
    optimizer->has_maximum_of = given->rule == GRADIENTD_AMSGRAD;
    optimizer->maximum_of =
        (Gradientd__MaximumOf)(given->maximum_of ? given->maximum_of : GRADIENTD_RAW_THEN_CORRECTED);
    optimizer->has_eps_root = true;
    optimizer->eps_root = given->eps_root;
    optimizer->has_initial_accumulator = given->initial_accumulator != 0.0;
    optimizer->initial_accumulator = given->initial_accumulator;
    optimizer->has_learning_rate_decay = given->learning_rate_decay != 0.0;
    optimizer->learning_rate_decay = given->learning_rate_decay;
}

static void fill_open_run(const struct gradientd_options *options, Gradientd__OpenRun *open_run, char *name) {
    open_run->run = name;
    open_run->wall_time = options->wall_time != 0.0 ? options->wall_time : client_now();
    open_run->first_step = options->first_step;
    open_run->groups = (uint32_t)options->n_groups;
    open_run->has_max_lag = true;
    open_run->max_lag = options->max_lag;
    open_run->has_inflight = true;
    open_run->inflight = options->inflight;
    open_run->has_absent_counts = true;
    open_run->absent_counts = options->absent_counts;
    open_run->has_thinning = true;
    open_run->thinning = !options->no_thinning;
}

// The group table, OpenRun's payload. Returns its bytes; `table` may be NULL.
static size_t write_table(const struct gradientd_options *options, uint8_t *table) {
    size_t bytes = 0;
    for (size_t i = 0; i < options->n_groups; i++) {
        const struct gradientd_group *group = &options->groups[i];
        size_t name_bytes = strlen(group->name);
        if (table) {
            uint8_t *entry = table + bytes;
            gd_write_u64le(entry, group->numel);
            gd_write_u32le(entry + 8, group->parameter_group);
            gd_write_u32le(entry + 12, group->step_lag);
            entry[16] = (uint8_t)name_bytes;
            memcpy(entry + GRADIENTD_TABLE_ENTRY_BYTES, group->name, name_bytes);
        }
        bytes += GRADIENTD_TABLE_ENTRY_BYTES + name_bytes;
    }
    return bytes;
}

// Sends all of a frame that may be larger than the output buffer.
static int send_all(struct gradientd_run *run, const uint8_t *data, size_t bytes, double deadline,
                    struct gradientd_error *ret_error) {
    while (bytes > 0) {
        size_t part = bytes < CLIENT_OUTPUT_BYTES_MAX ? bytes : CLIENT_OUTPUT_BYTES_MAX;
        memcpy(run->output, data, part);
        run->output_bytes = part;
        while (run->output_bytes > 0) {
            if (client_flush(run) < 0)
                return 0; // the daemon's reason, if it gave one, is read next
            if (run->output_bytes > 0 && client_now_monotonic() > deadline)
                return client_fail(ret_error, ETIMEDOUT, "the daemon did not read OpenRun within connect_timeout");
            if (run->output_bytes > 0)
                usleep(1000);
        }
        data += part;
        bytes -= part;
    }
    return 0;
}

static int send_open_run(struct gradientd_run *run, const struct gradientd_options *options,
                         const Gradientd__ClientMessage *message, double deadline, struct gradientd_error *ret_error) {
    size_t message_bytes = gradientd__client_message__get_packed_size(message);
    size_t table_bytes = write_table(options, NULL);
    if (message_bytes > GRADIENTD_MESSAGE_BYTES_MAX || table_bytes > GRADIENTD_TABLE_BYTES_MAX)
        return client_fail(ret_error, EMSGSIZE,
                           "the run's description has %zu and its group table %zu bytes, "
                           "the limits are %d and %d",
                           message_bytes, table_bytes, GRADIENTD_MESSAGE_BYTES_MAX, GRADIENTD_TABLE_BYTES_MAX);
    uint8_t *frame = malloc(GRADIENTD_FRAME_HEADER_BYTES + message_bytes + table_bytes);
    if (!frame)
        return client_fail(ret_error, ENOMEM, "out of memory");
    gd_frame_write_header(frame, (uint32_t)message_bytes, (uint32_t)table_bytes);
    gradientd__client_message__pack(message, frame + GRADIENTD_FRAME_HEADER_BYTES);
    write_table(options, frame + GRADIENTD_FRAME_HEADER_BYTES + message_bytes);
    int result = send_all(run, frame, GRADIENTD_FRAME_HEADER_BYTES + message_bytes + table_bytes, deadline, ret_error);
    free(frame);
    return result;
}

static int open_run(struct gradientd_run *run, const struct gradientd_options *options, double deadline,
                    Gradientd__DaemonMessage **ret_layout, struct gradientd_error *ret_error) {
    Gradientd__ParameterGroup *groups = calloc(options->n_parameter_groups, sizeof(*groups));
    Gradientd__ParameterGroup **pointers = calloc(options->n_parameter_groups, sizeof(*pointers));
    char *name = strdup(options->run ? options->run : "");
    int result;
    if (!groups || !pointers || !name) {
        result = client_fail(ret_error, ENOMEM, "out of memory");
        goto out;
    }

    for (size_t i = 0; i < options->n_parameter_groups; i++) {
        gradientd__parameter_group__init(&groups[i]);
        groups[i].has_beta2 = groups[i].has_eps = true;
        groups[i].beta2 = options->parameter_groups[i].beta2;
        groups[i].eps = options->parameter_groups[i].eps;
        pointers[i] = &groups[i];
    }
    Gradientd__Stream stream = GRADIENTD__STREAM__INIT;
    stream.kind = GRADIENTD__STREAM_KIND__GRADIENT;
    stream.element_type = GRADIENTD__ELEMENT_TYPE__F32;
    stream.has_elements = true;
    stream.elements = run->elements;
    Gradientd__Stream *streams[] = {&stream};
    Gradientd__Optimizer optimizer = GRADIENTD__OPTIMIZER__INIT;
    fill_optimizer(options, &optimizer);
    Gradientd__OpenRun request = GRADIENTD__OPEN_RUN__INIT;
    fill_open_run(options, &request, name);
    request.n_streams = 1;
    request.streams = streams;
    request.optimizer = &optimizer;
    request.n_parameter_groups = options->n_parameter_groups;
    request.parameter_groups = pointers;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_OPEN_RUN;
    message.open_run = &request;

    result = send_open_run(run, options, &message, deadline, ret_error);
    if (result == 0)
        result = expect(run, GRADIENTD__DAEMON_MESSAGE__MESSAGE_LAYOUT, "Layout", deadline, ret_layout, ret_error);

out:
    free(groups);
    free(pointers);
    free(name);
    return result;
}

enum { SLOTS_MAX = 4096 }; // far above any the daemon hands out

// Whether [offset, offset + bytes) lies in the memory and is aligned: a daemon's mistake must not hurt the trainer.
static bool lies_inside(const Gradientd__Layout *layout, uint64_t offset, uint64_t bytes, uint64_t alignment) {
    return offset % alignment == 0 && offset <= layout->total_bytes && bytes <= layout->total_bytes - offset;
}

static bool layout_fits(const struct gradientd_run *run, const Gradientd__Layout *layout) {
    if (layout->layout_version != GRADIENTD_LAYOUT_VERSION || layout->n_streams != 1 ||
        layout->total_bytes > INT64_MAX / SLOTS_MAX) // so that no product of slots and a stride within it overflows
        return false;
    const Gradientd__StreamLayout *stream = layout->streams[0];
    uint64_t slot_bytes = run->elements * sizeof(float);
    return stream->kind == GRADIENTD__STREAM_KIND__GRADIENT && stream->slots >= 1 && stream->slots <= SLOTS_MAX &&
           stream->slot_stride_bytes >= slot_bytes && stream->slot_stride_bytes <= layout->total_bytes &&
           lies_inside(layout, stream->slots_offset, stream->slots * stream->slot_stride_bytes, sizeof(float)) &&
           lies_inside(layout, stream->slot_words_offset, stream->slots * sizeof(uint64_t), sizeof(uint64_t)) &&
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

// Creates the memory. Every page is allocated here, so that none can be missing later, and the slots are mapped, so
// that no step pays for it. Returns the memfd or a negative errno.
static int create_memory(struct gradientd_run *run, const Gradientd__Layout *layout,
                         struct gradientd_error *ret_error) {
    int fd = memfd_create("gradientd", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return client_fail(ret_error, errno, "memfd_create: %s", strerror(errno));
    if (ftruncate(fd, (off_t)layout->total_bytes) < 0 || allocate_pages(fd, layout->total_bytes) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        int result = client_fail(ret_error, errno, "%llu bytes of shared memory: %s",
                                 (unsigned long long)layout->total_bytes, strerror(errno));
        close(fd);
        return result;
    }
    void *memory = mmap(NULL, layout->total_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        int result = client_fail(ret_error, errno, "mmap of %llu bytes: %s", (unsigned long long)layout->total_bytes,
                                 strerror(errno));
        close(fd);
        return result;
    }
    run->memory = memory;
    run->memory_bytes = layout->total_bytes;
    madvise(memory, layout->total_bytes, MADV_DONTFORK);
#ifdef MADV_POPULATE_WRITE
    const Gradientd__StreamLayout *stream = layout->streams[0];
    madvise(run->memory + stream->slots_offset, stream->slots * stream->slot_stride_bytes, MADV_POPULATE_WRITE);
#endif
    return fd;
}

static int take_layout(struct gradientd_run *run, const Gradientd__Layout *layout, struct gradientd_error *ret_error) {
    const Gradientd__StreamLayout *stream = layout->streams[0];
    run->slots = (struct client_slots){
        .base = run->memory + stream->slots_offset,
        .stride_bytes = stream->slot_stride_bytes,
        .count = stream->slots,
        .words = (void *)(run->memory + stream->slot_words_offset),
        .used_sequence = calloc(stream->slots, sizeof(uint64_t)),
    };
    run->waiting = (void *)(run->memory + layout->waiting_offset);
    run->notices = (void *)(run->memory + layout->notices_offset);
    return run->slots.used_sequence ? 0 : client_fail(ret_error, ENOMEM, "out of memory");
}

// Sends Attach with its descriptors, which stay the caller's; pidfd may be -1.
static int send_attach(struct gradientd_run *run, int memory, int event_file, int pidfd,
                       struct gradientd_error *ret_error) {
    Gradientd__Attach attach = GRADIENTD__ATTACH__INIT;
    attach.has_memory = attach.memory = true;
    attach.has_event_file = attach.event_file = true;
    attach.has_pidfd = true;
    attach.pidfd = pidfd >= 0;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_ATTACH;
    message.attach = &attach;

    uint8_t frame[64];
    size_t message_bytes = gradientd__client_message__get_packed_size(&message);
    gd_frame_write_header(frame, (uint32_t)message_bytes, 0);
    gradientd__client_message__pack(&message, frame + GRADIENTD_FRAME_HEADER_BYTES);

    int fds[GRADIENTD_FDS_MAX] = {memory, event_file, pidfd};
    size_t fds_bytes = (pidfd >= 0 ? 3 : 2) * sizeof(int);
    union {
        char bytes[CMSG_SPACE(sizeof(fds))];
        struct cmsghdr alignment;
    } control = {{0}};
    struct iovec vector = {frame, GRADIENTD_FRAME_HEADER_BYTES + message_bytes};
    struct msghdr header = {.msg_iov = &vector,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = CMSG_SPACE(fds_bytes)};
    struct cmsghdr *first = CMSG_FIRSTHDR(&header);
    first->cmsg_level = SOL_SOCKET;
    first->cmsg_type = SCM_RIGHTS;
    first->cmsg_len = CMSG_LEN(fds_bytes);
    memcpy(CMSG_DATA(first), fds, fds_bytes);
    if (sendmsg(run->socket, &header, MSG_NOSIGNAL) != (ssize_t)vector.iov_len)
        return client_fail(ret_error, errno, "sending Attach: %s", strerror(errno));
    return 0;
}

// Creates memory and event file, hands both over and waits for the daemon to have checked them.
static int hand_over(struct gradientd_run *run, const struct gradientd_options *options,
                     const Gradientd__Layout *layout, double deadline, struct gradientd_error *ret_error) {
    int event_file = -1, pidfd = -1;
    int memory = create_memory(run, layout, ret_error);
    if (memory < 0)
        return memory;
    int result = take_layout(run, layout, ret_error);
    if (result == 0)
        result = event_file =
            client_create_event_file(options->logdir, options->run ? options->run : "", &run->event_path, ret_error);
    if (result >= 0) {
        pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0); // without it the socket's end tells
        result = send_attach(run, memory, event_file, pidfd, ret_error);
    }
    Gradientd__DaemonMessage *reply = NULL;
    if (result == 0)
        result = expect(run, GRADIENTD__DAEMON_MESSAGE__MESSAGE_ATTACHED, "Attached", deadline, &reply, ret_error);
    if (reply)
        gradientd__daemon_message__free_unpacked(reply, NULL);

    close(memory);
    if (event_file >= 0)
        close(event_file);
    if (result < 0 && event_file >= 0)
        unlink(run->event_path); // an empty file would show as a run
    if (pidfd >= 0)
        close(pidfd);
    return result;
}

int client_attach(struct gradientd_run *run, const struct gradientd_options *options,
                  struct gradientd_error *ret_error) {
    double deadline = client_now_monotonic() + options->connect_timeout;
    int result = say_hello(run, deadline, ret_error);
    if (result < 0)
        return result;
    Gradientd__DaemonMessage *layout = NULL;
    result = open_run(run, options, deadline, &layout, ret_error);
    if (!layout)
        return result;
    if (layout_fits(run, layout->layout))
        result = hand_over(run, options, layout->layout, client_now_monotonic() + options->connect_timeout, ret_error);
    else
        result = client_fail(ret_error, EPROTO, "the daemon's memory layout (version %u) is not one this client knows",
                             layout->layout->layout_version);
    gradientd__daemon_message__free_unpacked(layout, NULL);
    return result;
}
