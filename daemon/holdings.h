// What one client holds of its user's quota, from accept until nothing of it is left in the daemon.
#pragma once

#include <stdbool.h>

#include "layout.h"
#include "quota.h"

struct gd_holdings {
    struct gd_quota *quota; // borrowed
    uid_t uid;
    struct gd_charge connection;
    struct gd_rate rate; // of its messages
    struct gd_charge run;
    struct gd_charge memory; // first of the group table on its way, then of the run
    struct gd_charge fds;    // taken from the connection's queue, or opened for it
};

// All of these return 0, -ENOMEM, or -EBADMSG with *ret_error set (QUOTA); then nothing was added.

// A client is there. Afterwards gd_holdings_release() gives back this and all that comes.
__attribute__((warn_unused_result)) int gd_holdings_init(struct gd_holdings *holdings, struct gd_quota *quota,
                                                         uid_t uid, uint64_t now_ns, struct gd_error *ret_error);

// It sent a message.
__attribute__((warn_unused_result)) int gd_holdings_count_message(struct gd_holdings *holdings, uint64_t now_ns,
                                                                  struct gd_error *ret_error);

// ... which takes long to answer, see gd_quota_count_costly().
__attribute__((warn_unused_result)) int gd_holdings_count_costly(struct gd_holdings *holdings, uint64_t now_ns,
                                                                 struct gd_error *ret_error);

// Up to `n_fds` descriptors are about to be received or opened for it; they go to `charge`, which may be holdings->fds.
__attribute__((warn_unused_result)) int gd_holdings_charge_fds(struct gd_holdings *holdings, uint32_t n_fds,
                                                               struct gd_charge *charge, struct gd_error *ret_error);

// It opens a run, whose group table of `table_bytes` is to be buffered and read.
__attribute__((warn_unused_result)) int gd_holdings_charge_table(struct gd_holdings *holdings,
                                                                 const struct gd_open_run *open_run,
                                                                 uint32_t table_bytes, struct gd_error *ret_error);

// The table is read and its buffer free: charges the run's memory in its place. The error's text has the sum.
__attribute__((warn_unused_result)) int gd_holdings_charge_run(struct gd_holdings *holdings,
                                                               const struct gd_open_run *open_run,
                                                               struct gd_error *ret_error);

// Its connection is closed, its event file written and closed: what is left are the memory and, where that is a memfd,
// its descriptor, which take their time to free.
void gd_holdings_keep_memory(struct gd_holdings *holdings, bool has_memfd);

// Takes {0} too, and leaves it behind.
void gd_holdings_release(struct gd_holdings *holdings);
