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
    int result = gd_options_parse(argc, argv, ret_options, ret_action, ret_error);
    if (ret_options->socket_path)
        ret_options->socket_path = "given"; // the test's strings go
    if (ret_options->state_directory)
        ret_options->state_directory = "given";
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
