// A client without the client library: frames, messages and descriptors as a test wants them, right or wrong.
#pragma once

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gradientd.pb-c.h"

struct raw_client {
    const char *socket; // the path it connected to
    int fd;
    int memory_fd;        // the attached memory, until raw_client_close(); -1: none
    uint64_t total_bytes; // as Layout said, like the offsets
    uint64_t slots_offset, slot_stride_bytes, slot_words_offset;
    uint64_t waiting_offset, notices_offset, commits_offset;
    uint32_t slots;
    uint8_t *memory;      // mapped once attached
    char event_path[512]; // as Attached said, "" if it said none
};

// Connects to the socket at `path`.
struct raw_client raw_client_connect(const char *path);

// Closes the connection and unmaps the memory.
void raw_client_close(struct raw_client *client);

// Sends bytes as they are, with `n_fds` descriptors, which stay the caller's. Waits as long as the daemon leaves them
// in the socket; what it does not take before it closes is lost.
void raw_client_send_bytes(struct raw_client *client, const void *data, size_t bytes, const int *fds, size_t n_fds);

// Sends one frame.
void raw_client_send(struct raw_client *client, const Gradientd__ClientMessage *message, const void *payload,
                     size_t payload_bytes);

// The next message, which the caller frees; NULL when the daemon has closed the connection. Fails the test when neither
// comes.
Gradientd__DaemonMessage *raw_client_receive_any(struct raw_client *client);

// The same without the Alerts.
Gradientd__DaemonMessage *raw_client_receive(struct raw_client *client);

// The next Error, past Attached and Released, which the caller frees. `name` says whose it is where there is none.
Gradientd__DaemonMessage *raw_client_receive_error(struct raw_client *client, const char *name);

// Fails the test unless the connection ends here.
void raw_client_expect_end(struct raw_client *client, const char *name);

// Hello with this protocol version; the answer is left unread.
void raw_client_say_hello(struct raw_client *client, uint32_t protocol_version);

// Asks for runs and alerts with a number above these; UINT64_MAX: no alerts.
void raw_client_send_status_request(struct raw_client *client, uint64_t runs_after, uint64_t alerts_after);

// The same, and the answer, which the caller frees. Fails the test where that is not a Status.
Gradientd__DaemonMessage *raw_client_ask_status(struct raw_client *client, uint64_t runs_after, uint64_t alerts_after);

// An OpenRun to change and send: one GRADIENT stream in f32, the group table below, sgd, one parameter group.
struct raw_open_run {
    Gradientd__OpenRun message;
    Gradientd__Stream stream, second_stream;
    Gradientd__Stream *streams[2];
    Gradientd__Optimizer optimizer;
    Gradientd__ParameterGroup parameter_group;
    Gradientd__ParameterGroup *parameter_groups[1];
    Gradientd__StreamKind start_streams[3]; // n_start_streams of them count
    uint8_t table[512];
    size_t table_bytes;
};

enum { RAW_NUMEL = 8 }; // of the one group, "weights"

// The struct points into itself: it must stay where it is.
void raw_open_run_init(struct raw_open_run *open_run);
void raw_client_send_open_run(struct raw_client *client, const struct raw_open_run *open_run);

// Appends an entry to the group table.
void raw_open_run_add_group(struct raw_open_run *open_run, const char *name, size_t name_bytes, uint64_t numel,
                            uint32_t parameter_group, uint32_t step_lag);

// Attach that declares and brings what it is given.
void raw_client_send_attach(struct raw_client *client, const Gradientd__Attach *attach, const int *fds, size_t n_fds);

// The seals a run's memory must have.
enum { RAW_MEMORY_SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL };

// A memfd of `bytes` allocated bytes with these seals.
int raw_memory_new(uint64_t bytes, int seals);

// Words of the attached memory, as another process may be writing them.
uint32_t raw_client_load_u32(const struct raw_client *client, uint64_t offset);
uint64_t raw_client_load_u64(const struct raw_client *client, uint64_t offset);

// Says that this client will wait for Released.
void raw_client_wait(struct raw_client *client);

// How far raw_client_advance() goes.
enum raw_stage {
    RAW_CONNECTED,
    RAW_WELCOME,
    RAW_LAID_OUT,
    RAW_ATTACHED,
    RAW_INLINE, // attached without memory
};

// Goes from a fresh connection to `stage`, as a good client would. The run's event file is `event_path`; with NULL the
// daemon creates one.
void raw_client_advance(struct raw_client *client, enum raw_stage stage, const char *event_path);

// From Welcome to Attached with an OpenRun of the test's own.
void raw_client_attach(struct raw_client *client, const struct raw_open_run *open_run, const char *event_path);

// The same without memory: elements come inline.
void raw_client_attach_inline(struct raw_client *client, const struct raw_open_run *open_run, const char *event_path);

// A Snapshot to change and send: step 1, slot 0.
struct raw_snapshot {
    Gradientd__Snapshot message;
    Gradientd__StreamElements elements;
    Gradientd__StreamElements *streams[2]; // the first of each of these is set
    Gradientd__ParameterGroupStep rates;
    Gradientd__ParameterGroupStep *parameter_groups[2];
    Gradientd__Scalar scalar;
    Gradientd__Scalar *scalars[2];
};

// The struct points into itself: it must stay where it is.
void raw_snapshot_init(struct raw_snapshot *snapshot, uint64_t sequence, int64_t step, uint32_t slot);
void raw_client_send_snapshot(struct raw_client *client, const struct raw_snapshot *snapshot);

// Says that the snapshot's elements are `bytes` bytes of the payload.
void raw_snapshot_make_inline(struct raw_snapshot *snapshot, uint64_t bytes, bool deflated);
void raw_client_send_inline(struct raw_client *client, const struct raw_snapshot *snapshot, const void *payload,
                            size_t payload_bytes);

// The frame that raw_client_send_inline() sends; the caller frees it.
uint8_t *raw_inline_frame(const struct raw_snapshot *snapshot, const void *payload, size_t payload_bytes,
                          size_t *ret_bytes);
// Sends step n of an attached run in slot n - 1 as message n and waits for its commit.
void raw_client_commit_step(struct raw_client *client, uint32_t n);

// A StartVector in slot 0.
void raw_client_send_start_vector(struct raw_client *client, uint64_t sequence, Gradientd__StreamKind kind,
                                  uint64_t optimizer_step);

void raw_client_send_scalars(struct raw_client *client, uint64_t sequence, int64_t step, double wall_time,
                             const char *tag);
void raw_client_send_close_run(struct raw_client *client, uint64_t sequence, Gradientd__Outcome outcome);
