// gradientctl doctor: whether everything a training needs of gradientd is as it must be, and what to do where not.
#include <stdint.h>
#include <stdio.h>

#include "checkup.h"
#include "command.h"

static void check_all(struct gd_checkup *checkup) {
    gd_checkup_begin(checkup);
    gd_doctor_check_socket(checkup);
    gd_doctor_check_service(checkup);
    gd_doctor_check_versions(checkup);
    if (checkup->watch) {
        gd_doctor_check_daemon(checkup);
        gd_doctor_check_state_directory(checkup);
    }
    gd_doctor_check_machine(checkup);
    gd_checkup_end(checkup);
}

int gd_doctor_run(const struct gd_command *command, int n_arguments, char **arguments) {
    static const struct gd_waiter plain = {gd_wait_plain, NULL};
    struct gd_daemon_options options;
    struct gd_daemon_watch watch;
    struct gd_trouble trouble;
    int status = gd_daemon_options_parse(command, 0, n_arguments, arguments, &options);
    if (status != 0)
        return status;
    if (gd_daemon_watch_init(&watch, &options, &plain) < 0)
        return GD_EXIT_FAILED;

    bool answered = gd_daemon_watch_ask(&watch, UINT64_MAX, &trouble) == 0;
    struct gd_checkup checkup = {
        .options = &options,
        .terminal = gd_terminal_look(),
        .watch = answered ? &watch : NULL,
        .trouble = &trouble,
        .search = &watch.link.search,
    };
    check_all(&checkup);
    gd_daemon_watch_deinit(&watch);
    if (checkup.worst == GD_VERDICT_PROBLEM)
        status = GD_EXIT_FAILED;
    int flush_status = gd_command_flush();
    return flush_status > status ? flush_status : status;
}
