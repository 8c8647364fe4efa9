#include "holdings.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "run.h"

int gd_holdings_init(struct gd_holdings *holdings, struct gd_quota *quota, uid_t uid, uint64_t now_ns,
                     struct gd_error *ret_error) {
    *holdings = (struct gd_holdings){.quota = quota, .uid = uid};
    int result = gd_quota_charge(quota, uid, GD_QUOTA_CONNECTIONS, 1, &holdings->connection, ret_error);
    if (result == 0)
        gd_rate_init(&holdings->rate, &holdings->connection, now_ns);
    return result;
}

int gd_holdings_count_message(struct gd_holdings *holdings, uint64_t now_ns, struct gd_error *ret_error) {
    return gd_quota_count_message(&holdings->connection, &holdings->rate, now_ns, ret_error);
}

int gd_holdings_count_costly(struct gd_holdings *holdings, uint64_t now_ns, struct gd_error *ret_error) {
    return gd_quota_count_costly(&holdings->connection, &holdings->rate, now_ns, ret_error);
}

int gd_holdings_charge_fds(struct gd_holdings *holdings, uint32_t n_fds, struct gd_charge *charge,
                           struct gd_error *ret_error) {
    return gd_quota_charge(holdings->quota, holdings->uid, GD_QUOTA_FDS, n_fds, charge, ret_error);
}

int gd_holdings_charge_table(struct gd_holdings *holdings, const struct gd_open_run *open_run, uint32_t table_bytes,
                             struct gd_error *ret_error) {
    int result = gd_quota_charge(holdings->quota, holdings->uid, GD_QUOTA_RUNS, 1, &holdings->run, ret_error);
    if (result < 0)
        return result;
    // the buffer, the names in it once more as they are read, and pointers to them as they are chosen from
    uint64_t bytes = gd_open_run_bytes(open_run) + 2 * (uint64_t)table_bytes + open_run->n_groups * sizeof(char *) +
                     gd_group_series_bytes_max(open_run->n_groups, table_bytes);
    return gd_quota_charge(holdings->quota, holdings->uid, GD_QUOTA_MEMORY, bytes, &holdings->memory, ret_error);
}

int gd_holdings_charge_run(struct gd_holdings *holdings, const struct gd_open_run *open_run,
                           struct gd_error *ret_error) {
    struct gd_layout layout;
    gd_layout_init(&layout, open_run);
    uint64_t bytes = layout.total_bytes + gd_run_own_bytes(open_run, &layout);

    gd_charge_release(&holdings->memory);
    int result = gd_quota_charge(holdings->quota, holdings->uid, GD_QUOTA_MEMORY, bytes, &holdings->memory, ret_error);
    if (result != -EBADMSG)
        return result;
    uint64_t slot_bytes = layout.slots * layout.slot_stride_bytes;
    size_t used = strlen(ret_error->text);
    snprintf(ret_error->text + used, sizeof(ret_error->text) - used,
             " (%u slots x %llu elements x %zu bytes, and %llu of state)", layout.slots,
             (unsigned long long)open_run->elements, gd_element_bytes(open_run->element_type),
             (unsigned long long)(bytes - slot_bytes));
    return result;
}

void gd_holdings_keep_memory(struct gd_holdings *holdings, bool has_memfd) {
    struct gd_charge memfd = {0};
    gd_charge_move(&holdings->fds, has_memfd, &memfd);
    gd_charge_release(&holdings->fds);
    holdings->fds = memfd;
    gd_charge_release(&holdings->run);
    gd_charge_release(&holdings->connection);
}

void gd_holdings_release(struct gd_holdings *holdings) {
    gd_charge_release(&holdings->fds);
    gd_charge_release(&holdings->memory);
    gd_charge_release(&holdings->run);
    gd_charge_release(&holdings->connection);
    *holdings = (struct gd_holdings){0};
}
