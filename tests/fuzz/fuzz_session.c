// Clients of a daemon that say anything at any time. The input is  u8 flags, ops  where an op is
// u8 kind | HALF | OTHER | HASTY  and what it takes. After each op the daemon settles, unless it is a hasty one.
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fuzz.h"
#include "session_client.h"
#include "session_host.h"
#include "session_memory.h"

enum {
    POOLED = 1 << 0, // flags: the pool does all work

    OTHER = 1 << 5, // of the two clients the other one
    HALF = 1 << 6,  // only the first half of what is to be sent is sent
    HASTY = 1 << 7, // the next op comes before the daemon has done with this
    KINDS = 1 << 5,

    CLIENTS = 2,
    OPS_MAX = 48,
    FDS_CHECKED = 64, // the lowest, which a leak takes first
};

enum op {
    OP_ADVANCE, // what a good client does next
    OP_CONNECT,
    OP_HELLO,
    OP_OPEN_RUN,
    OP_ATTACH,
    OP_SNAPSHOT,
    OP_INLINE,
    OP_START_VECTOR,
    OP_SCALARS,
    OP_CLOSE_RUN,
    OP_STATUS_REQUEST,
    OP_GARBAGE,
    OP_STRAY_FDS,
    OP_SHUTDOWN,
    OP_CLOSE,
    OP_REWRITE, // the shared memory
    OP_PUNCH,   // a hole in it
    OP_READ,
    OP_SEND, // what is kept of halves
    OP_TURN,
    OP_STOP, // the daemon
};

static void take_op(struct session_client *client, enum op kind, struct session_input *input) {
    switch (kind) {
    case OP_ADVANCE:
        session_client_advance(client);
        break;
    case OP_CONNECT:
        session_client_connect(client);
        break;
    case OP_HELLO:
        session_client_hello(client, input);
        break;
    case OP_OPEN_RUN:
        session_client_open_run(client, session_take(input));
        break;
    case OP_ATTACH:
        session_client_attach(client, session_take(input));
        break;
    case OP_SNAPSHOT:
        session_client_snapshot(client, input);
        break;
    case OP_INLINE:
        session_client_inline(client, input);
        break;
    case OP_START_VECTOR:
        session_client_start_vector(client, input);
        break;
    case OP_SCALARS:
        session_client_scalars(client, input);
        break;
    case OP_CLOSE_RUN:
        session_client_close_run(client, input);
        break;
    case OP_STATUS_REQUEST:
        session_client_status_request(client);
        break;
    case OP_GARBAGE:
        session_client_garbage(client, input);
        break;
    case OP_STRAY_FDS:
        session_client_stray_fds(client, session_take(input));
        break;
    case OP_SHUTDOWN:
        session_client_shutdown(client);
        break;
    case OP_CLOSE:
        session_client_close(client);
        break;
    case OP_REWRITE:
        session_memory_rewrite(client->open_run, session_take(input), session_take(input));
        break;
    case OP_PUNCH:
        session_memory_punch(client->open_run, session_take(input));
        break;
    case OP_READ:
        session_client_read(client);
        break;
    case OP_TURN:
        session_host_turn();
        break;
    case OP_STOP:
        session_host_stop();
        break;
    default: // OP_SEND: as after every op
        break;
    }
}

// Which of the lowest descriptors are open, a bit each.
static uint64_t open_fds(void) {
    uint64_t open = 0;
    for (int fd = 0; fd < FDS_CHECKED; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            open |= UINT64_C(1) << fd;
    return open;
}

static void check_fds(uint64_t open_before) {
    uint64_t changed = open_fds() ^ open_before;
    for (int fd = 0; fd < FDS_CHECKED; fd++) {
        char path[32], target[64] = "nothing";
        if (!(changed >> fd & 1))
            continue;
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        ssize_t bytes = readlink(path, target, sizeof(target) - 1);
        fprintf(stderr, "descriptor %d was %s, it is now %.*s\n", fd, open_before >> fd & 1 ? "open" : "closed",
                bytes < 0 ? (int)sizeof(target) : (int)bytes, target);
    }
    if (changed)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static bool started;
    struct session_input input = {data, bytes};
    struct session_client clients[CLIENTS];

    if (!started) {
        session_host_init();
        session_memories_init();
        session_clients_prepare();
        started = true;
    }
    uint64_t open_before = open_fds();
    session_host_begin(session_take(&input) & POOLED);
    session_memories_renew();
    for (int i = 0; i < CLIENTS; i++)
        session_client_init(&clients[i]);
    for (int i = 0; i < OPS_MAX && input.bytes > 0; i++) {
        uint8_t op = session_take(&input);
        struct session_client *client = &clients[op & OTHER ? 1 : 0];
        take_op(client, (enum op)(op % KINDS), &input);
        session_client_send(client, op & HALF);
        if (!(op & HASTY))
            session_host_settle();
    }
    for (int i = 0; i < CLIENTS; i++)
        session_client_close(&clients[i]);
    session_host_end();
    for (int i = 0; i < CLIENTS; i++)
        session_client_deinit(&clients[i]);
    check_fds(open_before);
    return 0;
}
