// The run goes on as a new attachment: in other memory and another event file, from the next step on. That is what is
// left where a daemon that came back cannot go on with the memory there is, as after an upgrade that lays it out in
// another way. The new memory is made by a thread: touching it takes 0.3 s a gigabyte, which no step may take.
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "frame.h"
#include "internal.h"

// What a run has in place of its memory: nobody waits, and nothing is committed.
static struct {
    _Atomic uint64_t commits;
    _Atomic uint32_t waiting, notices;
} no_memory;

enum { NEW_MEMORY_SLACK_BYTES = 64 << 20 };

// Shared with the thread, which outlives a run that is closed meanwhile: whoever is the second to be done with it frees
// it.
struct client_renewal {
    struct client_renewal *before; // owned: the one before, for the memory it has lent
    char *old_path;                // owned: of the event file before
    uint8_t *retired;              // the old memory
    uint64_t retired_bytes;
    bool lent; // the trainer may still read from it: it stays until the run ends
    struct client_fds retired_fds;

    bool started; // there is a thread
    _Atomic bool made_all;
    _Atomic bool left;                // by the run or by the thread, whichever is first
    Gradientd__DaemonMessage *layout; // owned
    char *logdir, *run_name;          // owned: as the way back has them

    // what the thread makes
    struct gradientd_run made; // its memory, and nothing else of it
    struct client_fds fds;
    char *event_path;
    int result; // 0 or a negative errno with error set
    struct gradientd_error error;
};

static void free_one(struct client_renewal *renewal) {
    if (renewal->retired)
        client_unmap(renewal->retired, renewal->retired_bytes);
    client_close_fds(&renewal->retired_fds);
    if (renewal->made.memory)
        client_unmap(renewal->made.memory, renewal->made.memory_bytes);
    free(renewal->made.slots.used_sequence);
    client_sides_unmap(&renewal->made);
    client_close_fds(&renewal->fds);
    if (renewal->event_path)
        unlink(renewal->event_path); // a file without a step would show as a run
    free(renewal->event_path);
    free(renewal->old_path);
    free(renewal->logdir);
    free(renewal->run_name);
    if (renewal->layout)
        gradientd__daemon_message__free_unpacked(renewal->layout, NULL);
    free(renewal);
}

void client_renewal_free(struct client_renewal *renewal) {
    while (renewal) {
        struct client_renewal *before = renewal->before;
        if (!renewal->started || atomic_exchange(&renewal->left, true))
            free_one(renewal);
        renewal = before;
    }
}

// Beyond the room for what is unsent it is dropped, as ever.
static void append_scalars(struct gradientd_run *run, Gradientd__Scalars *scalars) {
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_SCALARS;
    message.scalars = scalars;
    scalars->sequence = run->sequence + 1;
    if (client_output_append(&run->output, &message, 0, CLIENT_OUTPUT_BYTES_MAX) == 0)
        run->sequence++;
}

// A snapshot that nobody will see: its own values go on without it.
static void carry_snapshot(struct gradientd_run *run, const Gradientd__Snapshot *snapshot) {
    Gradientd__Scalars body = GRADIENTD__SCALARS__INIT;
    run->skipped++;
    body.step = snapshot->step;
    body.wall_time = snapshot->wall_time;
    body.n_scalars = snapshot->n_scalars;
    body.scalars = snapshot->scalars;
    if (body.n_scalars > 0)
        append_scalars(run, &body);
}

static int carry_message(struct gradientd_run *run, const struct gd_frame *frame) {
    Gradientd__ClientMessage *message = gradientd__client_message__unpack(NULL, frame->message_bytes, frame->message);
    if (!message)
        return -ENOMEM;
    if (message->message_case == GRADIENTD__CLIENT_MESSAGE__MESSAGE_SNAPSHOT)
        carry_snapshot(run, message->snapshot);
    if (message->message_case == GRADIENTD__CLIENT_MESSAGE__MESSAGE_SCALARS)
        append_scalars(run, message->scalars);
    gradientd__client_message__free_unpacked(message, NULL);
    return 0;
}

// Of what was not committed the values go on, under new sequence numbers; the gradients lie in memory that is given up.
static int carry_over(struct gradientd_run *run) {
    struct client_output old = run->output;
    client_output_rewind(&old, atomic_load_explicit(run->commits, memory_order_acquire));
    int result = client_output_init(&run->output);
    if (result < 0) {
        run->output = old;
        return result;
    }
    run->output.keeps = true;
    run->output.first_sequence = 1;
    run->sequence = run->released_sequence = 0;
    const uint8_t *unsent = old.messages + old.start;
    for (struct gd_frame frame; result == 0 && old.bytes > 0; unsent += frame.head_bytes) {
        struct gd_error error;
        if (gd_frame_parse(unsent, old.bytes, &frame, &error) != GD_FRAME_COMPLETE)
            break;
        old.bytes -= frame.head_bytes;
        result = carry_message(run, &frame);
    }
    client_output_deinit(&old);
    return result;
}

// The same run from the next step on. Its optimiser's state is not handed over again: the trainer has the only one.
static int describe_anew(struct gradientd_run *run) {
    struct client_way_back *way_back = &run->way_back;
    struct gd_frame frame;
    struct gd_error error;
    if (gd_frame_parse(way_back->open_run, way_back->open_run_bytes, &frame, &error) != GD_FRAME_COMPLETE)
        return -EPROTO;
    Gradientd__ClientMessage *message = gradientd__client_message__unpack(NULL, frame.message_bytes, frame.message);
    if (!message)
        return -ENOMEM;
    message->open_run->wall_time = client_now();
    message->open_run->first_step = run->step + 1 > run->first_step ? run->step + 1 : run->first_step;
    size_t n_start_streams = message->open_run->n_start_streams;
    message->open_run->n_start_streams = 0;
    size_t message_bytes = gradientd__client_message__get_packed_size(message);
    uint8_t *packed = malloc(GRADIENTD_FRAME_HEADER_BYTES + message_bytes + frame.payload_bytes);
    if (packed) {
        gd_frame_write_header(packed, (uint32_t)message_bytes, frame.payload_bytes);
        gradientd__client_message__pack(message, packed + GRADIENTD_FRAME_HEADER_BYTES);
        memcpy(packed + GRADIENTD_FRAME_HEADER_BYTES + message_bytes, way_back->open_run + frame.head_bytes,
               frame.payload_bytes);
        free(way_back->open_run);
        way_back->open_run = packed;
        way_back->open_run_bytes = GRADIENTD_FRAME_HEADER_BYTES + message_bytes + frame.payload_bytes;
    }
    message->open_run->n_start_streams = n_start_streams; // for protobuf-c to free
    gradientd__client_message__free_unpacked(message, NULL);
    return packed ? 0 : -ENOMEM;
}

// Takes the memory from the run.
static void retire_memory(struct gradientd_run *run, struct client_renewal *renewal) {
    renewal->retired = run->memory;
    renewal->retired_bytes = run->memory_bytes;
    renewal->lent = run->lends_slots;
    renewal->retired_fds = run->way_back.fds;
    run->way_back.fds = CLIENT_NO_FDS;
    run->memory = NULL;
    run->memory_bytes = 0;
    free(run->slots.used_sequence);
    run->slots = (struct client_slots){0};
    client_sides_unmap(run);
    run->commits = &no_memory.commits;
    run->waiting = &no_memory.waiting;
    run->notices = &no_memory.notices;
    run->errors_seen = run->alerts_seen = 0;
}

static int copy_names(const struct client_way_back *way_back, struct client_renewal *renewal) {
    renewal->logdir = way_back->logdir ? strdup(way_back->logdir) : NULL;
    renewal->run_name = strdup(way_back->run_name ? way_back->run_name : "");
    return (way_back->logdir && !renewal->logdir) || !renewal->run_name ? -ENOMEM : 0;
}

int client_renewal_begin(struct gradientd_run *run) {
    struct client_renewal *renewal = calloc(1, sizeof(*renewal));
    if (!renewal)
        return -ENOMEM;
    renewal->fds = CLIENT_NO_FDS;
    int result = copy_names(&run->way_back, renewal);
    if (result == 0)
        result = carry_over(run);
    retire_memory(run, renewal);
    renewal->before = run->way_back.renewal;
    run->way_back.renewal = renewal;
    if (result == 0)
        result = describe_anew(run);
    for (uint32_t i = 0; i < run->n_parameter_groups; i++) // OpenRun has those of the start
        run->rates[i].has_beta2 = run->rates[i].has_eps = true;
    return result;
}

static int make_event_file(struct client_renewal *renewal) {
    if (!renewal->logdir) // the daemon makes one
        return 0;
    int fd = client_create_event_file(renewal->logdir, renewal->run_name, &renewal->event_path, &renewal->error);
    renewal->fds.event_file = fd;
    return fd < 0 ? fd : 0;
}

// On the thread.
static void *make(void *context) {
    struct client_renewal *renewal = context;

    if (!renewal->lent) {
        client_unmap(renewal->retired, renewal->retired_bytes);
        renewal->retired = NULL;
    }
    client_close_fds(&renewal->retired_fds);
    renewal->result = client_create_memory(&renewal->made, renewal->layout->layout, &renewal->error);
    if (renewal->result >= 0) {
        renewal->fds.memory = renewal->result;
        renewal->result = 0;
    }
    if (renewal->result == 0)
        renewal->result = make_event_file(renewal);
    if (renewal->result == 0)
        renewal->fds.pidfd = client_open_own_pidfd();
    renewal->made_all = true;
    if (atomic_exchange(&renewal->left, true))
        free_one(renewal);
    return NULL;
}

int client_renewal_make(struct gradientd_run *run, Gradientd__DaemonMessage *layout) {
    struct client_renewal *renewal = run->way_back.renewal;
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t before;
    // the memory is the trainer's: whoever answers must not choose how much of it
    if (!client_layout_fits(run, layout->layout) ||
        layout->layout->total_bytes > 2 * renewal->retired_bytes + NEW_MEMORY_SLACK_BYTES) {
        gradientd__daemon_message__free_unpacked(layout, NULL);
        return -EPROTO;
    }
    renewal->layout = layout;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    client_block_signals(&before);
    renewal->started = true;
    int result = pthread_create(&thread, &attributes, make, renewal);
    renewal->started = result == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return -result;
}

int client_renewal_take(struct gradientd_run *run) {
    struct client_renewal *renewal = run->way_back.renewal;
    if (!renewal->made_all)
        return 0;
    if (renewal->result < 0)
        return client_fail(&run->error, -renewal->result, "%s", renewal->error.text);
    run->memory = renewal->made.memory;
    run->memory_bytes = renewal->made.memory_bytes;
    run->slots = renewal->made.slots;
    run->vector.streams = renewal->made.vector.streams;
    client_sides_move(run, &renewal->made);
    run->waiting = renewal->made.waiting;
    run->notices = renewal->made.notices;
    run->commits = renewal->made.commits;
    run->way_back.fds = renewal->fds;
    renewal->made = (struct gradientd_run){0};
    renewal->fds = CLIENT_NO_FDS;
    if (renewal->event_path)
        client_renewal_replace_path(run, renewal->event_path);
    renewal->event_path = NULL;
    return 1;
}

void client_renewal_replace_path(struct gradientd_run *run, char *path) {
    struct client_renewal *renewal = run->way_back.renewal;
    free(renewal->old_path);
    renewal->old_path = run->event_path;
    run->event_path = path;
}
