// The daemon: one loop, one listening socket (or one given connection), any number of sessions. This is where the parts
// are wired together.
#pragma once

#include <stdint.h>

#include "admission.h"
#include "kernels/kernels.h"
#include "listener.h"
#include "log.h"
#include "quota.h"

struct gd_command_line;

struct gd_server_options {
    const char *socket_path; // NULL: see gd_listener_init()
    struct gd_socket_rights socket_rights;
    struct gd_admission admission;
    gid_t admin_group;           // sees all users' runs; (gid_t)-1: none
    uint32_t attach_timeout_ms;  // that a client may take from Hello to Attach
    int connection_fd;           // not -1: serve this connection alone and end with it
    const char *state_directory; // NULL: gd_state_directory_default()
    uint32_t workers;            // threads of the analysis pool, 1 to GD_WORKERS_MAX
    enum gd_log_level log_level; // the least important that is logged
    const char *metrics_file;    // NULL: none
    uint32_t metrics_interval_s; // how often it is written
    struct gd_quota_limits quota;
    const struct gd_kernels *kernels;
    const struct gd_command_line *command_line; // what a reload starts from; NULL: none is done
};

// Serves until SIGTERM, SIGINT or the end of the given connection; then drains, commits and returns. The result is the
// process's exit status; what went wrong is logged. SIGHUP reads the configuration again and changes what is live of
// *options (see reload.h); its strings stay.
__attribute__((warn_unused_result)) int gd_server_run(struct gd_server_options *options);
