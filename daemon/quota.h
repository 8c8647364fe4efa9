// What each user (uid) may take of the daemon. Whoever is about to allocate for a client charges its account first; the
// charge is a small struct with one owner, and giving it back cannot fail.
//
// Threads: charging and counting messages belong to one thread, the loop; any thread may release or move a charge.
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "error.h"

enum gd_quota_kind {
    GD_QUOTA_CONNECTIONS,
    GD_QUOTA_RUNS,
    GD_QUOTA_FDS,
    GD_QUOTA_MEMORY, // bytes
    GD_QUOTA_KINDS,
};

struct gd_quota_limits {
    uint64_t most[GD_QUOTA_KINDS]; // that a uid may hold at once
    uint32_t messages_per_second;  // of a uid: 1 to GD_QUOTA_MESSAGES_MAX
};

enum {
    GD_QUOTA_MESSAGES_MAX = 1000000000, // a second: each then takes a nanosecond of it
    GD_BLOCK_BYTES = 32,                // what malloc adds to a small block at most, for charges of many of them
};

struct gd_quota;
struct gd_account;

// {0} holds nothing. Its account outlives it.
struct gd_charge {
    struct gd_account *account;
    enum gd_quota_kind kind;
    uint64_t amount;
};

// How many messages somebody has sent lately, as the time that they take at the limit: what was sent under one limit
// counts the same under another.
struct gd_rate {
    uint64_t level_ps; // of the second that may be used up at once
    uint64_t at_ns;    // when that was so
    uint32_t limit;    // messages a second, of a client
};

// Returns 0 or -ENOMEM.
__attribute__((warn_unused_result)) int gd_quota_new(const struct gd_quota_limits *limits, struct gd_quota **ret_quota);

// New limits, for what is charged and for clients that begin from now on: what is held stays, also beyond them, and a
// client that is there may go on sending as it did.
void gd_quota_set_limits(struct gd_quota *quota, const struct gd_quota_limits *limits);

// NULL is allowed. Charges may still be held by other threads; memory goes with the last of them.
void gd_quota_free(struct gd_quota *quota);

// Adds `amount` to `charge`, which is {0} or has the same uid and kind. Returns 0, -ENOMEM, or -EBADMSG with *ret_error
// set (QUOTA: the kind, the amount, what the uid holds and the limit); then nothing is charged.
__attribute__((warn_unused_result)) int gd_quota_charge(struct gd_quota *quota, uid_t uid, enum gd_quota_kind kind,
                                                        uint64_t amount, struct gd_charge *charge,
                                                        struct gd_error *ret_error);

// Gives back what `charge` holds, and leaves {0} behind.
void gd_charge_release(struct gd_charge *charge);

// Hands `amount`, or what there is of it, on to `to`, which is {0} or has the same uid and kind.
void gd_charge_move(struct gd_charge *from, uint64_t amount, struct gd_charge *to);

// Begins the count of a client that holds `connection` (a charge of GD_QUOTA_CONNECTIONS): with an equal part of what
// the uid has sent lately, so that coming again gains nothing. `now_ns` never goes back, here and below.
void gd_rate_init(struct gd_rate *rate, const struct gd_charge *connection, uint64_t now_ns);

// Counts one message of a client that holds `connection` and has sent `rate` itself.
// A uid may send a second's worth at once. Where that is used up, a client that has sent no more than its share, an
// equal part for each connection of the uid, goes on: one that floods does not stop the others. Returns 0, or -EBADMSG
// with *ret_error set (QUOTA).
__attribute__((warn_unused_result)) int gd_quota_count_message(const struct gd_charge *connection, struct gd_rate *rate,
                                                               uint64_t now_ns, struct gd_error *ret_error);

// Counts a message that takes the daemon as much time as many others, of which the limit is a thousand a second: as a
// thousandth of a second's messages more than the one that was counted already. Otherwise the same.
__attribute__((warn_unused_result)) int gd_quota_count_costly(const struct gd_charge *connection, struct gd_rate *rate,
                                                              uint64_t now_ns, struct gd_error *ret_error);

// Frees the accounts that hold nothing and whose messages are paid off: an earlier end would let a client that comes
// again start with a full second's worth.
void gd_quota_sweep(struct gd_quota *quota, uint64_t now_ns);

// What a uid holds.
struct gd_quota_holding {
    uid_t uid;
    uint64_t held[GD_QUOTA_KINDS];
};

// Writes who holds something, at most `most` of them, or of `*only` alone where that is not NULL. Returns how many.
uint32_t gd_quota_list(struct gd_quota *quota, const uid_t *only, struct gd_quota_holding *ret_holdings, uint32_t most);

// The limits as they are now. For the thread that charges.
const struct gd_quota_limits *gd_quota_limits(const struct gd_quota *quota);

// How many accounts there are.
uint32_t gd_quota_accounts(struct gd_quota *quota);
