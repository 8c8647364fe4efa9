// The daemon's command line: what is given, what is left out, and what is refused by name.
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"
#include "session.h"

enum { ARGUMENTS_MAX = 8 };

// Parses "gradientd" followed by `arguments`, which end with NULL.
static int parse(const char *const *arguments, struct gd_server_options *ret_options,
                 enum gd_options_action *ret_action, struct gd_error *ret_error) {
    char *argv[ARGUMENTS_MAX] = {strdup("gradientd")};
    int argc = 1;
    for (; arguments[argc - 1]; argc++)
        argv[argc] = strdup(arguments[argc - 1]);
    struct gd_command_line command_line;
    int result = gd_options_parse(argc, argv, &command_line, ret_error);
    *ret_options = command_line.options;
    *ret_action = command_line.action;
    if (ret_options->socket_path)
        ret_options->socket_path = "given"; // the test's strings go
    if (ret_options->state_directory)
        ret_options->state_directory = "given";
    if (ret_options->metrics_file)
        ret_options->metrics_file = "given";
    while (argc > 0)
        free(argv[--argc]);
    return result;
}

Test(options, takes_what_is_given_and_has_a_default_for_the_rest) {
    struct gd_server_options options;
    enum gd_options_action action;
    struct gd_error error;

    cr_assert_eq(parse((const char *[]){"--socket", "/s", NULL}, &options, &action, &error), 0);
    cr_assert_eq(action, GD_OPTIONS_SERVE);
    cr_assert_str_eq(options.socket_path, "given");
    cr_assert_eq(options.connection_fd, -1);
    cr_assert(options.workers >= 1 && options.workers <= GD_WORKERS_MAX);

    cr_assert_eq(parse((const char *[]){"--connection-fd=7", "--workers", "64", NULL}, &options, &action, &error), 0);
    cr_assert_null(options.socket_path);
    cr_assert_eq(options.connection_fd, 7);
    cr_assert_eq(options.workers, 64);
    cr_assert_null(options.state_directory);

    cr_assert_eq(parse((const char *[]){NULL}, &options, &action, &error), 0);
    cr_assert_null(options.socket_path);
    cr_assert_eq(options.connection_fd, -1);

    const char *const state[] = {"--socket", "/s", "--state-directory", "/d", NULL};
    cr_assert_eq(parse(state, &options, &action, &error), 0);
    cr_assert_str_eq(options.state_directory, "given");
}

Test(options, takes_what_each_user_may_have) {
    struct gd_server_options options;
    enum gd_options_action action;
    struct gd_error error;

    cr_assert_eq(parse((const char *[]){"--socket", "/s", NULL}, &options, &action, &error), 0);
    cr_assert_eq(options.quota.most[GD_QUOTA_CONNECTIONS], 64);
    cr_assert_eq(options.quota.most[GD_QUOTA_RUNS], 64);
    cr_assert_eq(options.quota.most[GD_QUOTA_FDS], 256);
    cr_assert_eq(options.quota.messages_per_second, 1000000);
    uint64_t quarter = options.quota.most[GD_QUOTA_MEMORY];

    const char *all[] = {"--socket=/s",
                         "--connections-per-user=1",
                         "--runs-per-user=2",
                         "--fds-per-user=30",
                         "--memory-per-user=25%",
                         "--messages-per-second=4",
                         NULL};
    cr_assert_eq(parse(all, &options, &action, &error), 0, "%s", error.text);
    cr_assert_eq(options.quota.most[GD_QUOTA_CONNECTIONS], 1);
    cr_assert_eq(options.quota.most[GD_QUOTA_RUNS], 2);
    cr_assert_eq(options.quota.most[GD_QUOTA_FDS], 30);
    cr_assert_eq(options.quota.most[GD_QUOTA_MEMORY], quarter);
    cr_assert_eq(options.quota.messages_per_second, 4);
    cr_assert_gt(quarter, UINT64_C(1) << 26);
}

Test(options, reads_bytes_with_their_units) {
    static const struct {
        const char *text;
        uint64_t bytes;
    } cases[] = {
        {"1048576", 1 << 20}, {"1024K", 1 << 20},        {"3M", 3 << 20},
        {"1G", 1 << 30},      {"2T", UINT64_C(2) << 40}, {"1024T", UINT64_C(1) << 50},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct gd_server_options options;
        enum gd_options_action action;
        struct gd_error error;
        const char *arguments[] = {"--socket", "/s", "--memory-per-user", cases[i].text, NULL};
        cr_assert_eq(parse(arguments, &options, &action, &error), 0, "%s", error.text);
        cr_assert_eq(options.quota.most[GD_QUOTA_MEMORY], cases[i].bytes, "%s", cases[i].text);
    }
}

Test(options, asks_for_help_or_version_without_looking_further) {
    struct gd_server_options options;
    enum gd_options_action action;
    struct gd_error error;

    cr_assert_eq(parse((const char *[]){"--help", "--unheard-of", NULL}, &options, &action, &error), 0);
    cr_assert_eq(action, GD_OPTIONS_HELP);
    cr_assert_eq(parse((const char *[]){"--version", NULL}, &options, &action, &error), 0);
    cr_assert_eq(action, GD_OPTIONS_VERSION);
}

Test(options, refuses_by_option_value_and_limits) {
    static const struct {
        const char *arguments[ARGUMENTS_MAX - 1];
        const char *says;
    } cases[] = {
        {{"--socket", "/s", "--connection-fd", "3", NULL}, "give either --socket or --connection-fd"},
        {{"--socket", "/s", "more", NULL}, "unexpected argument more"},
        {{"--sockets", "/s", NULL}, "--sockets is no option"},
        {{"--socket", NULL}, "--socket is without its value"},
        {{"--socket", "/s", "--workers", "0", NULL}, "--workers is 0, the limits are 1 and 64"},
        {{"--socket", "/s", "--workers", "65", NULL}, "--workers is 65, the limits are 1 and 64"},
        {{"--socket", "/s", "--workers", "2x", NULL}, "--workers is 2x, the limits are 1 and 64"},
        {{"--socket", "/s", "--workers", "", NULL}, "--workers is , the limits are 1 and 64"},
        {{"--socket", "/s", "--workers", " 2", NULL}, "--workers is  2, the limits are 1 and 64"},
        {{"--socket", "/s", "--workers", "-2", NULL}, "--workers is -2, the limits are 1 and 64"},
        {{"--connections-per-user", "0", NULL}, "--connections-per-user is 0, the limits are 1 and 1048576"},
        {{"--runs-per-user", "1048577", NULL}, "--runs-per-user is 1048577, the limits are 1 and 1048576"},
        {{"--fds-per-user", "2", NULL}, "--fds-per-user is 2, the limits are 3 and 1048576"},
        {{"--messages-per-second", "0", NULL}, "--messages-per-second is 0, the limits are 1 and 1000000000"},
        {{"--memory-per-user", "1023K", NULL}, "--memory-per-user is 1023K, the limits are 1M and 1024T"},
        {{"--memory-per-user", "1025T", NULL}, "--memory-per-user is 1025T, the limits are 1M and 1024T"},
        {{"--memory-per-user", "18446744073709551616", NULL}, "18446744073709551616, the limits are 1M and 1024T"},
        {{"--memory-per-user", "1P", NULL}, "--memory-per-user is 1P, the limits are 1M and 1024T"},
        {{"--memory-per-user", "5GB", NULL}, "--memory-per-user is 5GB, the limits are 1M and 1024T"},
        {{"--memory-per-user", "G", NULL}, "--memory-per-user is G, the limits are 1M and 1024T"},
        {{"--memory-per-user", "101%", NULL}, "--memory-per-user is 101%, the limits are 1M and 100%"},
        {{"--memory-per-user", "0%", NULL}, "--memory-per-user is 0%, the limits are 1M and 100%"},
        {{"--socket-mode", "0888", NULL}, "--socket-mode is 0888, it must be octal, at most 0777"},
        {{"--socket-mode", "1777", NULL}, "--socket-mode is 1777, it must be octal, at most 0777"},
        {{"--socket-mode", "", NULL}, "--socket-mode is , it must be octal"},
        {{"--socket-group", "no such group", NULL}, "--socket-group is no such group, which is no group"},
        {{"--socket-group", "4294967295", NULL}, "--socket-group is 4294967295, which is no group"},
        {{"--allow-users", "root,,daemon", NULL}, "--allow-users is root,,daemon, in which  is nobody"},
        {{"--allow-users", "root,no-such-user", NULL}, "in which no-such-user is nobody of this machine"},
        {{"--allow-groups", "-1", NULL}, "--allow-groups is -1, in which -1 is nobody"},
        {{"--attach-timeout", "0", NULL}, "--attach-timeout is 0, the limits are 1 and 86400"},
        {{"--connection-fd", "2", NULL}, "--connection-fd is 2, the limits are 3 and 1048576"},
        {{"--connection-fd", "99999999999999999999", NULL}, "--connection-fd is 99999999999999999999, the limits are"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct gd_server_options options;
        enum gd_options_action action;
        struct gd_error error = {.text = "accepted"};
        int result = parse(cases[i].arguments, &options, &action, &error);
        cr_assert(result < 0 && strstr(error.text, cases[i].says), "case %zu: %d, %s", i, result, error.text);
    }
}
