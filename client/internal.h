// The inside of the C client.
#pragma once

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "gradientd.pb-c.h"
#include "gradientd/client.h"
#include "gradientd/protocol.h"
#include "user_tags.h"

enum {
    // Unsent messages kept while the daemon does not read: the longest there is.
    CLIENT_OUTPUT_BYTES_MAX = GRADIENTD_FRAME_HEADER_BYTES + GRADIENTD_MESSAGE_BYTES_MAX,
    CLIENT_CLOSE_BYTES = 64, // room beyond it for CloseRun, so that a run can always be ended
};

struct client_group {
    uint64_t numel;
    uint64_t offset; // elements before it in a slot
};

// Inline, this is one slot of the client's own.
struct client_slots {
    uint8_t *base; // of slot 0
    uint64_t stride_bytes;
    uint32_t count;
    _Atomic uint64_t *words; // in shared memory: the sequence of the commit that freed the slot
    uint64_t *used_sequence; // of the Snapshot that used it last, 0: never
};

// What the socket has not taken yet, in order: payload_at bytes of messages, the payload, the other messages. Before
// them lie, in a run that can be gone on with, the messages that were sent but are not committed.
struct client_output {
    uint8_t *messages;       // twice what is kept, so that bytes are moved to its start no oftener than they come
    size_t start;            // of the first message that is kept
    bool keeps;              // sent messages stay until they are committed
    uint64_t first_sequence; // of the first one kept: each has one more than the one before
    size_t sent;             // bytes of those that were sent
    size_t bytes;            // of the unsent ones
    const uint8_t *payload;
    size_t payload_bytes; // of it still unsent, 0: there is none
    size_t payload_at;
};

// The streams beside the gradient.
enum client_side { CLIENT_PROBE_GRADIENTS, CLIENT_PARAMETERS, CLIENT_OUTPUTS, CLIENT_SIDES };

// How a stream's elements are copied.
struct client_vector {
    size_t element_bytes; // as they travel
    bool narrows;         // the trainer's are doubles
    bool streams;         // they are copied past the caches
};

struct client_side_stream {
    uint64_t elements; // 0: the run does not send it
    struct client_vector vector;
    struct client_slots slots;
};

// What a step has of them: pointers to slices, or of outputs the one to all.
struct client_side_elements {
    const void *const *slices;
    const void *all;
    uint32_t slot;
    uint32_t is_there;
};

struct client_inline {
    uint8_t *elements; // of one step or start vector; NULL: the run is in shared memory
    uint8_t *deflated; // as many bytes, NULL: elements go raw
    struct z_stream_s *deflater;
};

// The descriptors that go with Attach, in its order; -1: none.
struct client_fds {
    int memory;
    int event_file;
    int pidfd;
};

#define CLIENT_NO_FDS ((struct client_fds){-1, -1, -1})

enum { CLIENT_HELLO_BYTES_MAX = 64 };

// How the run's conversation with a daemon stands.
enum client_link {
    CLIENT_LOST,       // there is none, and will be none
    CLIENT_ATTACHED,   // steps are handed over
    CLIENT_AWAY,       // the daemon is gone; another attempt at retry_at
    CLIENT_GREETING,   // back again: Welcome is awaited ...
    CLIENT_DESCRIBING, // ... Layout ...
    CLIENT_PREPARING,  // ... new memory, where the run is renewed ...
    CLIENT_ATTACHING,  // ... Attached
};

struct client_renewal;
struct client_alerts;

// What it takes to attach the run again.
struct client_way_back {
    struct client_fds fds;
    uint8_t *open_run; // the frame
    size_t open_run_bytes;
    char *socket; // as the options name it, with what follows
    char *daemon_path;
    char *logdir;
    char *run_name;
    struct client_renewal *renewal; // owned: the last one, with what the ones before have left; NULL: none yet

    double lost_at; // CLOCK_MONOTONIC seconds, like the others
    double retry_at;
    double pause;     // seconds after the next attempt that fails
    double answer_by; // of the attempt under way
    double nobody_since;
    bool private_daemon; // as the options say
    bool nobody_there;   // the last attempt found no daemon, nor has any since nobody_since
    bool renews;         // a renewal has begun, and not led to Attached yet
    bool warned;
    uint8_t hello[CLIENT_HELLO_BYTES_MAX];
    const uint8_t *unsent; // of Hello or OpenRun
    size_t unsent_bytes;
};

struct gradientd_run {
    enum client_link link;
    int socket;      // -1: none
    uint8_t *alive;  // a page that the kernel wipes in a forked child: 1 here, 0 there
    uint8_t *memory; // the shared memory, NULL: elements go inline
    uint64_t memory_bytes;
    struct client_slots slots;
    _Atomic uint32_t *waiting;
    _Atomic uint32_t *notices;
    _Atomic uint64_t *commits;    // the last committed sequence
    uint16_t errors_seen;         // of that word, what was acted upon: its lower half ...
    uint16_t alerts_seen;         // ... and its upper
    struct client_alerts *alerts; // owned: those that have come and were not asked for yet
    struct client_inline in_line;

    struct client_group *groups;
    uint32_t n_groups;
    uint64_t elements;
    struct client_vector vector; // of the gradient
    struct client_side_stream sides[CLIENT_SIDES];
    struct client_gather *gather; // NULL: the trainer's thread copies alone
    uint32_t n_parameter_groups;

    struct gd_user_tags *tags;
    uint64_t sequence;          // of the last message that commits
    uint64_t released_sequence; // the highest the daemon named in a Released
    int64_t first_step;
    int64_t step;            // of the last submitted or skipped step
    int64_t snapshot_step;   // of the last one that was handed over
    uint64_t optimizer_step; // of the last applied one
    uint64_t skipped;
    int64_t acquired; // slot handed out by gradientd_acquire(), -1: none
    bool lends_slots; // one ever was

    // messages are built in place, without allocating
    Gradientd__ParameterGroupStep *rates;
    Gradientd__ParameterGroupStep **rate_pointers;
    Gradientd__Scalar *scalars;
    Gradientd__Scalar **scalar_pointers;
    Gradientd__SquaredNorm *squared_norms;
    Gradientd__SquaredNorm **squared_norm_pointers;
    uint8_t *groups_present;
    uint32_t *tag_indices;
    struct client_output output;
    struct client_way_back way_back;
    uint8_t *input; // one message of the daemon
    size_t input_bytes;

    double max_stall;
    double close_timeout;
    void (*warn)(void *context, const char *text);
    void *warn_context;
    char *event_path;
    struct gradientd_error error;
};

// ---- options.c

// Checks `name`, which is list[index]member, as the name of a group, a tag or a pattern. Returns 0 or -EINVAL with
// *ret_error set.
int client_check_name(const char *list, size_t index, const char *member, const char *name,
                      struct gradientd_error *ret_error);

// ---- connect.c

// A connected socket as client.h describes it for these options, or a negative errno with *ret_error set.
int client_connect(const char *path, bool private_daemon, const char *daemon_path, struct gradientd_error *ret_error);

// ---- descriptor.c

// Moves a new descriptor above the standard ones, which a trainer may have closed: what it prints must not end up in a
// file, a socket or a memory of ours. Returns it, or -1 with errno set and `fd` closed; -1 stays -1, with its errno.
int client_lift_descriptor(int fd);

// ---- private_daemon.c

// Starts a daemon of this run's own, that no wait(), signal or descriptor of the trainer's tells of, and returns a
// connection to it, or a negative errno with *ret_error set.
int client_start_daemon(const char *daemon_path, struct gradientd_error *ret_error);

// ---- output.c: what is to be sent, in order; no I/O

// Returns 0 or -ENOMEM.
int client_output_init(struct client_output *output);
void client_output_deinit(struct client_output *output);

// Appends a message's frame, and says that `payload_bytes` bytes of payload follow it. Returns 0, or -ENOBUFS, with
// nothing added, when more than `limit` bytes of messages would be unsent.
int client_output_append(struct client_output *output, const Gradientd__ClientMessage *message, size_t payload_bytes,
                         size_t limit);

// Adds bytes after all that was appended so far: a payload, or whole frames. They stay the caller's, unchanged until
// they have left. No others may be on their way.
void client_output_add_payload(struct client_output *output, const uint8_t *payload, size_t bytes);

// Whether anything is unsent.
bool client_output_is_empty(const struct client_output *output);

// The unsent bytes as at most three pieces; `vectors` has room for them. Returns how many.
int client_output_pieces(const struct client_output *output, struct iovec *vectors);

// Forgets the messages that are committed.
void client_output_trim(struct client_output *output, uint64_t committed_sequence);

// The same, and counts the others as unsent.
void client_output_rewind(struct client_output *output, uint64_t committed_sequence);

// Says that the first `bytes` unsent ones were sent.
void client_output_consume(struct client_output *output, size_t bytes);

// ---- wire.c: frames over the socket, which never blocks

// Appends a message, and `payload` (borrowed until it has left, may be NULL), to the output and sends what the socket
// takes. Returns 0, -ENOBUFS when the output is full (nothing was added), or another negative errno when the daemon is
// gone.
int client_send(struct gradientd_run *run, const Gradientd__ClientMessage *message, const uint8_t *payload,
                size_t payload_bytes);

// Sends what is left of the output. Returns 0 or a negative errno when the daemon is gone.
int client_flush(struct gradientd_run *run);

// Reads one message: 1 and *ret_message (freed by the caller), 0 when none is complete by `deadline` (CLOCK_MONOTONIC
// seconds; 0: after one look at the socket), -ECONNRESET when the daemon is gone, -EPROTO when it sent what is no
// message. Keeps sending the output while it waits.
int client_receive(struct gradientd_run *run, double deadline, Gradientd__DaemonMessage **ret_message);

// Waits until the socket is ready for one of `events` (as poll()'s), or broken. Returns poll()'s revents, 0 at the
// deadline, or a negative errno.
int client_wait(const struct gradientd_run *run, double deadline, short events);

double client_now_monotonic(void);
double client_now(void);

// ---- describe.c

// Packs OpenRun and the group table into one frame, *ret_frame (the caller's, to be freed). Returns 0 or a negative
// errno with *ret_error set.
int client_describe(const struct gradientd_options *options, uint64_t elements, uint8_t **ret_frame, size_t *ret_bytes,
                    struct gradientd_error *ret_error);

// ---- attach.c: what happens between connect and the first step

int client_attach(struct gradientd_run *run, const struct gradientd_options *options,
                  struct gradientd_error *ret_error);

// Packs a Hello's frame. Returns its bytes.
size_t client_pack_hello(uint8_t frame[static CLIENT_HELLO_BYTES_MAX]);

// Sends Attach with its descriptors. Returns 0 or a negative errno.
int client_send_attach(int socket, const struct client_fds *fds);

void client_close_fds(struct client_fds *fds);

// Tells a daemon of this process's end; -1: the kernel has none, and the socket's end tells.
int client_open_own_pidfd(void);

// ---- reconnect.c

void client_way_back_init(struct client_way_back *way_back);
void client_way_back_deinit(struct client_way_back *way_back);

// Keeps what the options say about where a daemon is. Returns 0 or -ENOMEM.
int client_way_back_remember(struct client_way_back *way_back, const struct gradientd_options *options);

// The connection broke. The run waits for a daemon to come back where it can be gone on with, and is detached
// elsewhere. Returns a gradientd_result.
int client_lose(struct gradientd_run *run, const char *reason);

// Goes on with a run whose daemon is away as far as that takes no waiting. Returns GRADIENTD_OK, whether it is attached
// now or not, or DETACHED.
int client_come_back(struct gradientd_run *run);

// From now on, a run whose daemon is away looks for it as often as if it had just gone.
void client_hurry_back(struct gradientd_run *run);

// Waits for that until the deadline.
int client_wait_to_come_back(struct gradientd_run *run, double deadline);

// ---- renew.c: the run goes on in other memory and another event file, from the next step on

// Takes the memory from the run, and keeps the values that were not committed. Returns 0 or a negative errno.
int client_renewal_begin(struct gradientd_run *run);

// Begins to make the memory and the event file (`layout`, consumed, has a Layout). Returns 0 or a negative errno.
int client_renewal_make(struct gradientd_run *run, Gradientd__DaemonMessage *layout);

// Gives them to the run once they are there. Returns 1, 0 where they are not, or a negative errno with run->error set.
int client_renewal_take(struct gradientd_run *run);

// The run's event file is another one. `path` is taken over; the old one stays with the trainer until the run ends.
void client_renewal_replace_path(struct gradientd_run *run, char *path);

// Frees all that renewals have left, without waiting for what is under way. Not in a forked child. NULL is allowed.
void client_renewal_free(struct client_renewal *renewal);

// ---- memory.c

// Whether the layout is one that this client can use.
bool client_layout_fits(const struct gradientd_run *run, const Gradientd__Layout *layout);

// Unmaps it, whole pages, without keeping other threads from mapping theirs for long.
void client_unmap(uint8_t *memory, uint64_t bytes);

// Creates and maps the shared memory. Returns the memfd (the caller's) or a negative errno with *ret_error set.
int client_create_memory(struct gradientd_run *run, const Gradientd__Layout *layout, struct gradientd_error *ret_error);

// The layout's stream of a kind, NULL when it has none.
const Gradientd__StreamLayout *client_find_stream(const Gradientd__Layout *layout, Gradientd__StreamKind kind);

// ---- elements.c

// Bytes of an element as it travels.
size_t client_element_bytes(enum gradientd_element_type type);

// How elements of a type are copied.
struct client_vector client_vector_of(enum gradientd_element_type type);

// Copies elements `first` to `end` of a step to their places from the groups that have any; others are left.
// Thread-safe for ranges that do not overlap.
void client_copy_elements(const struct gradientd_run *run, const struct client_vector *vector, uint8_t *elements,
                          const void *const *gradients, uint64_t first, uint64_t end);

// Copies `elements` elements that lie in one piece.
void client_copy_vector(const struct client_vector *vector, uint8_t *to, const void *from, uint64_t elements);

// ---- copy.c

// Whether the steps of a run with that many bytes of slots are copied past the caches.
bool client_copy_streams(uint64_t slots_bytes);

// A copy past the caches, which client_copy_fence() completes: before it other processors may not see it.
void client_copy_stream(void *to, const void *from, size_t bytes);
void client_copy_fence(void);

// ---- gather.c

enum { GRADIENTD_COPY_THREADS_MAX = 16 };

struct client_gather; // threads that help to copy a step

// For `n_threads` threads, the trainer's own included, or as many as there can be. `run` must outlive it. Returns 0 or
// -ENOMEM.
int client_gather_new(const struct gradientd_run *run, uint32_t n_threads, struct client_gather **ret_gather);
void client_gather_free(struct client_gather *gather);

// Copies all groups that have a gradient; they are there when it returns.
void client_gather_step(struct client_gather *gather, uint8_t *elements, const void *const *gradients);

// ---- inline.c: elements through the socket

// Allocates a slot of the client's own, and what deflating takes. Returns 0 or a negative errno.
int client_inline_init(struct gradientd_run *run, const struct gradientd_options *options);
void client_inline_deinit(struct client_inline *in_line);

// Makes the first `bytes` bytes of the own slot a payload, deflated where the run is and that makes it smaller, and
// describes it. Returns it; it stays the run's.
const uint8_t *client_inline_payload(struct gradientd_run *run, size_t bytes, Gradientd__StreamElements *elements,
                                     size_t *ret_payload_bytes);

// ---- start.c

// Hands the options' start vectors over. Returns 0 or a negative errno with *ret_error set.
int client_send_start(struct gradientd_run *run, const struct gradientd_options *options,
                      const Gradientd__Layout *layout, struct gradientd_error *ret_error);

// ---- event_path.c

// Creates the run's directory and a new event file whose name sorts after all others there. Returns the descriptor and
// *ret_path (the caller's), or a negative errno with *ret_error set.
int client_create_event_file(const char *logdir, const char *run, char **ret_path, struct gradientd_error *ret_error);

// ---- hparams.c

int client_check_hparams(const struct gradientd_options *options, struct gradientd_error *ret_error);

// What an OpenRun points to; free() it. Each hyperparameter, checked.
struct client_hparams {
    Gradientd__HParam *hparams;
    Gradientd__HParam **pointers;
};

// Adds them to an OpenRun. Returns 0 or -ENOMEM; after either, client_free_hparams().
int client_describe_hparams(const struct gradientd_options *options, struct client_hparams *ret_hparams,
                            Gradientd__OpenRun *open_run);
void client_free_hparams(struct client_hparams *hparams);

// ---- check.c: what a trainer passes; a fault costs it one call, where the daemon would end the run

// Each returns 0, or -EINVAL with run->error set and nothing changed. On success the tags count as used at the step.
int client_check_step(struct gradientd_run *run, const struct gradientd_step *step);
int client_check_scalars(struct gradientd_run *run, int64_t step, const struct gradientd_scalar *scalars,
                         size_t n_scalars);

// ---- link.c: an attached run's conversation. Each returns a gradientd_result; DETACHED: the trainer was told why

// The run is lost: says so once, and is silent from then on.
int client_detach(struct gradientd_run *run, const char *reason);

// Tells the trainer, in one line.
void client_warn(const struct gradientd_run *run, const char *reason, const char *consequence);

// A send failed: the daemon may have said why.
int client_lose_after_send(struct gradientd_run *run);

// Takes and frees one message of the daemon; an Error is the last it says.
int client_take_message(struct gradientd_run *run, Gradientd__DaemonMessage *message);

// Waits for one message until the deadline; 0: takes one that is there.
int client_listen(struct gradientd_run *run, double deadline);

// For a step in shared memory that sends nothing itself: sends what is unsent or, where that is nothing, looks whether
// the daemon is there. One system call; none while it is away.
int client_keep_in_touch(struct gradientd_run *run);

// Takes all that are there.
int client_listen_to_all(struct gradientd_run *run);

// client_send() for what commits. SKIPPED: the output is full, nothing was added.
int client_say(struct gradientd_run *run, const Gradientd__ClientMessage *message, const uint8_t *payload,
               size_t payload_bytes);

// ---- alerts.c

// Returns 0 or -ENOMEM.
int client_alerts_new(struct client_alerts **ret_alerts);
void client_alerts_free(struct client_alerts *alerts);

// Keeps one until gradientd_next_alert() takes it; of too many, the oldest goes.
void client_alerts_keep(struct client_alerts *alerts, const Gradientd__Alert *message);

// ---- room.c

// What every submission begins with: the way back to a daemon, what it has to say, a free slot. Waits up to max_stall
// for one, and for one of each stream that `sides` has. Returns a gradientd_result; SKIPPED: *ret_slot is -1.
int client_find_room(struct gradientd_run *run, struct client_side_elements *sides, int64_t *ret_slot);

// The same for the streams alone, beside a slot that was acquired.
int client_find_side_room(struct gradientd_run *run, struct client_side_elements *sides);

// ---- sides.c: the streams beside the gradient

// What the options say of them.
void client_sides_init(struct gradientd_run *run, const struct gradientd_options *options);

// Takes their slots from the layout. Returns 0, or -ENOMEM.
int client_sides_map(struct gradientd_run *run, const Gradientd__Layout *layout);

// Moves what a layout gives from one run to another, which had none.
void client_sides_move(struct gradientd_run *to, struct gradientd_run *from);

// Frees what client_sides_map() allocated.
void client_sides_unmap(struct gradientd_run *run);

// Their kind on the wire.
Gradientd__StreamKind client_side_kind(enum client_side side);

// What a step brings.
void client_sides_of_step(const struct gradientd_step *step,
                          struct client_side_elements ret_sides[static CLIENT_SIDES]);

// Finds a free slot for each stream there is. Returns whether there is one for all.
bool client_sides_find_slots(const struct gradientd_run *run, struct client_side_elements *sides);

// Copies the streams there are into their slots.
void client_sides_copy(const struct gradientd_run *run, const struct client_side_elements *sides);

// A free slot's number, -1 when there is none.
int64_t client_find_slot(const struct client_slots *slots);

// ---- submit.c

// Sends CloseRun and waits at most close_timeout until the event file is complete. Returns a gradientd_result.
int client_end(struct gradientd_run *run, enum gradientd_outcome outcome);

// ---- signals.c: what a write may raise, in this thread, and nobody is to see: SIGPIPE; SIGXFSZ where it goes beyond
// RLIMIT_FSIZE, which a memfd's size is measured by as well; SIGTTOU where a job in the background writes to a terminal

struct client_held_signals {
    sigset_t mask, pending; // of before
};

// Holds them up; the other takes back those that were raised since, and puts the mask back.
void client_hold_signals(struct client_held_signals *ret_held);
void client_release_signals(const struct client_held_signals *held);

// For a thread about to be started: blocks all signals, which are the trainer's own, but those of a thread's own fault.
void client_block_signals(sigset_t *ret_mask);

// ---- warning.c

// Writes a line to stderr; neither blocks nor raises a signal, whatever stderr is.
void client_print_warning(const char *line);

// ---- open.c

// Puts '?' for control characters: a text may hold the words of what is no daemon.
void client_make_printable(char *text);

// Formats into `error`, one line without control characters, and returns -code.
__attribute__((format(printf, 3, 4))) int client_fail(struct gradientd_error *error, int code, const char *format, ...);
