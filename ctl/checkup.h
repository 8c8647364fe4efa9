// What `doctor` finds: a verdict on each thing it looked at, and what to do.
#pragma once

#include <stdbool.h>

#include "daemon_report.h"
#include "terminal.h"

enum gd_verdict {
    GD_VERDICT_OK,
    GD_VERDICT_WARNING, // works, but not well, or not for long
    GD_VERDICT_PROBLEM, // does not work
};

struct gd_checkup {
    const struct gd_daemon_options *options;
    struct gd_terminal terminal;
    unsigned n_checks;
    enum gd_verdict worst;

    // What the daemon says; NULL and the trouble where it does not answer.
    const struct gd_daemon_watch *watch;
    const struct gd_trouble *trouble;
    const struct gd_socket_search *search;
};

void gd_checkup_begin(struct gd_checkup *checkup);
void gd_checkup_end(const struct gd_checkup *checkup);

// Prints a finding. `advice`: what to do; NULL where there is nothing to do.
__attribute__((format(printf, 5, 6))) void gd_checkup_add(struct gd_checkup *checkup, const char *name,
                                                          enum gd_verdict verdict, const char *advice,
                                                          const char *format, ...);

// The checks, each of which prints one finding or more.
void gd_doctor_check_socket(struct gd_checkup *checkup);
void gd_doctor_check_service(struct gd_checkup *checkup);
void gd_doctor_check_versions(struct gd_checkup *checkup);
void gd_doctor_check_daemon(struct gd_checkup *checkup);
void gd_doctor_check_state_directory(struct gd_checkup *checkup);
void gd_doctor_check_machine(struct gd_checkup *checkup);
