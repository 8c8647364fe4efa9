// What the tests of Status share: a daemon that listens to all users, a client that asks, and inline runs to ask about.
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "raw_client.h"

static const double STATUS_SOON = 20.0; // seconds; a test that passes never waits this long

// The client that status_wait_for() asks through; a test's own to greet.
extern struct raw_client watcher;

// A directory; the daemon is the test's to start.
void status_set_up(void);
void status_tear_down(void);

// Starts the daemon with pairs of options more, up to a NULL, and with its socket open to all.
void status_start_with(const char *option, ...);

// A client that has said Hello.
struct raw_client status_greet(void);

// The same as a user with a primary and another group.
struct raw_client status_greet_as(uid_t user, gid_t primary, gid_t other);

// The answer, valid until the next one. Alerts above UINT64_MAX are none.
const Gradientd__Status *status_ask_after(struct raw_client *client, uint64_t runs_after, uint64_t alerts_after);
const Gradientd__Status *status_ask(struct raw_client *client);

// Its bytes.
size_t status_answer_bytes(void);

// Waits until the watcher is told of `runs` runs, the first of which has committed everything up to `sequence`, with
// nothing left to write.
const Gradientd__Status *status_wait_for(size_t runs, uint64_t sequence);

uint64_t status_refused(const Gradientd__DaemonStatus *daemon, Gradientd__ErrorCode code);

// Attaches a run of raw_client.h without memory, its file in the state directory.
void status_attach_run(struct raw_client *client, const char *name);

// Commits step `step` as message `step`, with elements that are finite or not.
void status_send_step(struct raw_client *client, uint64_t step, bool finite);
