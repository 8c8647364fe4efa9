// Clients that attack the daemon while a trainer is served: what they do, and what they know.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "random.h"
#include "raw_client.h"
#include "victim.h"

enum {
    HOSTILE_PATH_BYTES = 192,
    HOSTILE_OTHER_UID = 65534, // of whom is not the victim's user
};

// One of the processes that attack; anything in it may end with an assertion, which fails the attack.
struct attacker {
    const char *socket;
    const char *directory; // of the daemon's socket and of all files
    char event_path[HOSTILE_PATH_BYTES];
    uint64_t random; // for random_next()
    double end;      // scratch_now() until which it goes on
    uint32_t index;  // among those of the attack
    pid_t daemon;
    const struct victim *victim;
    pid_t helper;           // a process that `prepare` has started ...
    int helper_socket;      // ... and the way to it
    _Atomic uint64_t *done; // how often all of them have done what they do: it must not stay 0
};

// Options of a daemon that takes clients which come again sooner than it has let the last ones go.
extern const char *const attacker_room[];

// Whether there is time for more.
bool attacker_goes_on(const struct attacker *attacker);

// Counts what was done.
void attacker_did(struct attacker *attacker, uint64_t times);

// A connection that has come as far as `stage`; a run's event file is the attacker's.
struct raw_client attacker_connect(const struct attacker *attacker, enum raw_stage stage);

// The next answers are an Error of `field` and the connection's end. Closes it.
void attacker_expect_error(struct raw_client *client, Gradientd__ErrorCode code, const char *field);

// Whether the daemon has closed this connection.
bool attacker_is_dropped(const struct raw_client *client);

// Waits until the victim has trained `steps` steps more.
void attacker_wait_victim(const struct attacker *attacker, int64_t steps);

struct attack {
    const char *name;
    void (*run)(struct attacker *attacker);
    void (*prepare)(struct attacker *attacker); // before it becomes `uid`; NULL: nothing
    uint32_t attackers;                         // processes at once
    uid_t uid;                                  // of the attackers
    const char *const *options;                 // of the daemon, ended by NULL; NULL: none
    uint64_t keeps_kib; // that the allocator may keep of what was there at once, beside what it always may
};

struct attacks {
    const struct attack *attacks;
    size_t n_attacks;
};

#define ATTACKS(table) ((struct attacks){table, sizeof(table) / sizeof(table[0])})
#define ATTACK(name) static void name(struct attacker *attacker)

struct attacks attacks_flooding(void);    // many messages, many connections
struct attacks attacks_lingering(void);   // few bytes, and connections that stay
struct attacks attacks_descriptors(void); // descriptors that do not belong
struct attacks attacks_bombs(void);       // small messages that ask for much
struct attacks attacks_memory(void);      // what is shared with the daemon changes under it
struct attacks attacks_users(void);       // another user; only root can be one
