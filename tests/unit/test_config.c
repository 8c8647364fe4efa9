// The configuration's files: every key, every error, which files count in which order, and what a reload takes of them.
#include "config.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "config_file.h"
#include "reload.h"
#include "support.h"

enum { PATH_BYTES = 256, SAID_BYTES = 32768 };

static char directory[] = "/tmp/gradientd-test-XXXXXX";
static char main_path[PATH_BYTES];
static char said[SAID_BYTES]; // the errors, a line each
static struct gd_config config;
static struct gd_config_report report;

static void say(void *context, const char *path, unsigned line, const char *text) {
    size_t used = strlen(said);
    (void)context;
    const char *name = strstr(path, directory) == path ? path + strlen(directory) + 1 : path;
    cr_assert_lt(snprintf(said + used, sizeof(said) - used, "%s:%u: %s\n", name, line, text),
                 (int)(sizeof(said) - used));
}

static void set_up(void) {
    cr_assert_not_null(mkdtemp(directory));
    snprintf(main_path, sizeof(main_path), "%s/main.conf", directory);
}

static void tear_down(void) {
    char command[PATH_BYTES];
    snprintf(command, sizeof(command), "rm -r %s", directory);
    cr_assert_eq(system(command), 0);
}

TestSuite(config, .init = set_up, .fini = tear_down, .timeout = 20);

__attribute__((format(printf, 1, 2))) static const char *path_of(const char *format, ...) {
    static char path[PATH_BYTES];
    va_list arguments;
    int used = snprintf(path, sizeof(path), "%s/", directory);
    va_start(arguments, format);
    vsnprintf(path + used, sizeof(path) - (size_t)used, format, arguments);
    va_end(arguments);
    return path;
}

static void write_bytes(const char *path, const void *data, size_t bytes) {
    FILE *stream = fopen(path, "w");
    cr_assert(stream, "%s: %s", path, strerror(errno));
    cr_assert_eq(fwrite(data, 1, bytes, stream), bytes);
    cr_assert_eq(fclose(stream), 0);
}

static void write_text(const char *path, const char *text) {
    write_bytes(path, text, strlen(text));
}

// Reads the configuration with a command line of these arguments, which end with NULL.
static int read_with(const char *const *arguments) {
    static struct gd_command_line command_line;
    static char words[16][PATH_BYTES];
    char *argv[16] = {words[0]};
    struct gd_error error;
    int argc = 1;
    for (; arguments[argc - 1]; argc++) {
        argv[argc] = words[argc];
        snprintf(words[argc], sizeof(words[argc]), "%s", arguments[argc - 1]);
    }
    cr_assert_eq(gd_options_parse(argc, argv, &command_line, &error), 0, "%s", error.text);
    report = (struct gd_config_report){.say = say};
    *said = '\0';
    return gd_config_read(&config, &command_line, &report);
}

static int read_main(void) {
    return read_with((const char *[]){"--config", main_path, NULL});
}

static int read_text(const char *text) {
    write_text(main_path, text);
    return read_main();
}

static void expect_printed(enum gd_setting_id id, const char *expected) {
    char text[GD_SETTING_TEXT_BYTES];
    gd_setting_print(id, &config.options, text);
    cr_expect_str_eq(text, expected, "%s is %s, not %s", gd_settings[id].key, text, expected);
}

// ---- keys

static const struct {
    enum gd_setting_id id;
    const char *given, *printed;
} settings[] = {
    {GD_SETTING_WORKERS, "63", "63"},
    {GD_SETTING_STATE_DIRECTORY, "/var/lib/a b", "/var/lib/a b"},
    {GD_SETTING_LOG_LEVEL, "warning", "warning"},
    {GD_SETTING_SOCKET, "/run/s=x:y", "/run/s=x:y"},
    {GD_SETTING_SOCKET_MODE, "620", "0620"},
    {GD_SETTING_SOCKET_GROUP, "daemon", "daemon"},
    {GD_SETTING_ALLOW_USERS, "root, 54321 ,daemon", "root,54321,daemon"},
    {GD_SETTING_ALLOW_GROUPS, "54321", "54321"},
    {GD_SETTING_ADMIN_GROUP, "54321", "54321"},
    {GD_SETTING_CONNECTIONS, "1", "1"},
    {GD_SETTING_RUNS, "1048576", "1048576"},
    {GD_SETTING_FDS, "3", "3"},
    {GD_SETTING_MEMORY, "3M", "3145728"},
    {GD_SETTING_MESSAGES, "1000000000", "1000000000"},
    {GD_SETTING_ATTACH_TIMEOUT, "86400", "86400"},
    {GD_SETTING_METRICS_FILE, "/m.prom", "/m.prom"},
    {GD_SETTING_METRICS_INTERVAL, "3600", "3600"},
};

_Static_assert(sizeof(settings) / sizeof(settings[0]) == GD_SETTINGS, "every setting is tested");

static void print_setting(FILE *stream, size_t i, const char *value) {
    const struct gd_setting *setting = &gd_settings[settings[i].id];
    fprintf(stream, "[%s]\n%s = %s\n", setting->section, setting->key, value);
}

Test(config, takes_every_key_and_leaves_the_others_alone) {
    struct gd_server_options defaults = gd_settings_default();
    for (size_t i = 0; i < GD_SETTINGS; i++) {
        FILE *stream = fopen(main_path, "w");
        cr_assert_not_null(stream);
        print_setting(stream, i, settings[i].given);
        fclose(stream);
        cr_assert_eq(read_main(), 0, "%s", said);
        expect_printed(settings[i].id, settings[i].printed);
        cr_expect_eq(config.sources[settings[i].id].line, 2);
        for (enum gd_setting_id id = 0; id < GD_SETTINGS; id++)
            cr_expect_eq(gd_setting_is_same(id, &config.options, &defaults), id != settings[i].id, "%s with %s",
                         gd_settings[id].key, gd_settings[settings[i].id].key);
        gd_config_deinit(&config);
    }
}

Test(config, an_empty_value_means_the_default) {
    struct gd_server_options defaults = gd_settings_default();
    cr_assert_eq(mkdir(path_of("main.conf.d"), 0700), 0);
    FILE *stream = fopen(main_path, "w"), *drop_in = fopen(path_of("main.conf.d/reset.conf"), "w");
    cr_assert(stream && drop_in);
    for (size_t i = 0; i < GD_SETTINGS; i++) {
        print_setting(stream, i, settings[i].given);
        print_setting(drop_in, i, "");
    }
    fclose(stream);
    fclose(drop_in);
    cr_assert_eq(read_main(), 0, "%s", said);
    for (enum gd_setting_id id = 0; id < GD_SETTINGS; id++)
        cr_expect(gd_setting_is_same(id, &config.options, &defaults), "%s", gd_settings[id].key);
    gd_config_deinit(&config);
}

Test(config, the_command_line_replaces_what_files_say) {
    write_text(main_path, "[access]\nallow-users = root,daemon\nallow-groups = root\n"
                          "[socket]\nsocket = /file\n[limits]\nruns-per-user = 3\nfds-per-user = 4\n");
    cr_assert_eq(read_with((const char *[]){"--config", main_path, "--allow-users=54321", "--allow-users=54322",
                                            "--socket=here", "--runs-per-user=64", NULL}),
                 0, "%s", said);
    expect_printed(GD_SETTING_ALLOW_USERS, "54321,54322");
    expect_printed(GD_SETTING_ALLOW_GROUPS, "root");
    expect_printed(GD_SETTING_SOCKET, "here");
    expect_printed(GD_SETTING_RUNS, "64");
    expect_printed(GD_SETTING_FDS, "4");
    gd_config_deinit(&config);
}

Test(config, a_list_goes_on_in_lines_that_begin_with_a_space) {
    static const char *const texts[] = {
        "[access]\nallow-users = root,daemon,54321\n",
        "[access]\nallow-users = root\n daemon\n 54321\n",
        "[access]\nallow-users =\n\troot ,\n    daemon, 54321,\n",
        "[access]\nallow-users = root,\n\n# a comment\n  # another\n daemon,54321\nadmin-group = root\n",
        "\xef\xbb\xbf[access]\r\nallow-users = root,\r\n\tdaemon,\r\n\t54321", // as other systems write it
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        cr_assert_eq(read_text(texts[i]), 0, "case %zu: %s", i, said);
        expect_printed(GD_SETTING_ALLOW_USERS, "root,daemon,54321");
        gd_config_deinit(&config);
    }
}

// ---- errors

static const char long_line[] = "##################################################################################"
                                "##################################################################################"
                                "##################################";

// A file, and what is said of it.
static const struct {
    const char *text, *says;
} wrong[] = {
    // values
    {"[daemon]\nworkers = 65", "main.conf:2: [daemon] workers is 65, the limits are 1 and 64\n"},
    {"[daemon]\nworkers = two", "main.conf:2: [daemon] workers is two, the limits are 1 and 64\n"},
    {"[daemon]\nstate-directory = var", "main.conf:2: [daemon] state-directory is var, it must be an absolute path\n"},
    {"[daemon]\nlog-level = debug", "main.conf:2: [daemon] log-level is debug, it must be error, warning or info\n"},
    {"[socket]\nsocket = s", "main.conf:2: [socket] socket is s, it must be an absolute path\n"},
    {"[socket]\n\nsocket-mode = 0888", "main.conf:3: [socket] socket-mode is 0888, it must be octal, at most 0777\n"},
    {"[socket]\nsocket-group = no-such",
     "main.conf:2: [socket] socket-group is no-such, which is no group of this machine\n"},
    {"[access]\nallow-users = root,no-such",
     "main.conf:2: [access] allow-users is root,no-such, in which no-such is nobody of this machine\n"},
    {"[access]\nallow-users = root,\n ,daemon",
     "main.conf:3: [access] allow-users is ,daemon, in which  is nobody of this machine\n"},
    {"[access]\nallow-groups = -1",
     "main.conf:2: [access] allow-groups is -1, in which -1 is nobody of this machine\n"},
    {"[access]\nadmin-group = no-such",
     "main.conf:2: [access] admin-group is no-such, which is no group of this machine\n"},
    {"[limits]\nconnections-per-user = 0",
     "main.conf:2: [limits] connections-per-user is 0, the limits are 1 and 1048576\n"},
    {"[limits]\nruns-per-user = 1048577",
     "main.conf:2: [limits] runs-per-user is 1048577, the limits are 1 and 1048576\n"},
    {"[limits]\nfds-per-user = 2", "main.conf:2: [limits] fds-per-user is 2, the limits are 3 and 1048576\n"},
    {"[limits]\nmemory-per-user = 101%", "main.conf:2: [limits] memory-per-user is 101%, the limits are 1M and 100%\n"},
    {"[limits]\nmessages-per-second = 0",
     "main.conf:2: [limits] messages-per-second is 0, the limits are 1 and 1000000000\n"},
    {"[limits]\nattach-timeout = 1.5", "main.conf:2: [limits] attach-timeout is 1.5, the limits are 1 and 86400\n"},
    {"[metrics]\nmetrics-file = m.prom",
     "main.conf:2: [metrics] metrics-file is m.prom, it must be an absolute path\n"},
    {"[metrics]\nmetrics-interval = 3601",
     "main.conf:2: [metrics] metrics-interval is 3601, the limits are 1 and 3600\n"},
    // keys and sections
    {"[daemon]\nthreads = 2",
     "main.conf:2: [daemon] has no key threads; its keys are workers, state-directory, log-level\n"},
    {"[daemon]\nruns-per-user = 2", "main.conf:2: [daemon] has no key runs-per-user, which belongs to [limits]\n"},
    {"[daemon]\nWorkers = 2",
     "main.conf:2: [daemon] has no key Workers; its keys are workers, state-directory, log-level\n"},
    {"[daemon]\n= 2", "main.conf:2: [daemon] has no key ; its keys are workers, state-directory, log-level\n"},
    {"[daemon]\nconfig = /x",
     "main.conf:2: [daemon] has no key config; its keys are workers, state-directory, log-level\n"},
    {"workers = 2", "main.conf:1: workers comes before any [section]\n"},
    {"[daemon]\nworkers = 2\nlog-level = info\nworkers = 2",
     "main.conf:4: [daemon] workers is there already, in line 2\n"},
    {"[daemon]\nworkers = 2\n[limits]\n[daemon]\nworkers =",
     "main.conf:5: [daemon] workers is there already, in line 2\n"},
    {"[daemons]\nworkers = 2\nno-such = 3\n[daemon]\nworkers = 4",
     "main.conf:1: [daemons]: there is no such section; they are [daemon], [socket], [access], [limits] and "
     "[metrics]\n"},
    {"[ daemon ]", "main.conf:1: [ daemon ]: there is no such section; they are [daemon], [socket], [access], "
                   "[limits] and [metrics]\n"},
    {"[daemon\nworkers = 0", "main.conf:1: [daemon: a section is a name between [ and ], and nothing else\n"},
    {"[daemon] workers = 0",
     "main.conf:1: [daemon] workers = 0: a section is a name between [ and ], and nothing else\n"},
    {"[", "main.conf:1: [: a section is a name between [ and ], and nothing else\n"},
    // lines
    {"[daemon]\nworkers", "main.conf:2: the line is neither [section] nor key = value, nor a comment\n"},
    {"[daemon]\nworkers = 2 # two", "main.conf:2: workers = 2 # two: a comment has a line of its own\n"},
    {"[daemon]\nstate-directory = /a\t; b", "main.conf:2: state-directory = /a ; b: a comment has a line of its own\n"},
    {"[daemon]\nworkers = 2\n  log-level = info", "main.conf:3: log-level = info: a line that begins with a space "
                                                  "goes on with allow-users or allow-groups, which "
                                                  "must be above it\n"},
    {"[access]\nallow-users = root\n[access]\n daemon",
     "main.conf:4: daemon: a line that begins with a space goes on with allow-users or allow-groups, which must be "
     "above it\n"},
    {"[access]\nallow-users = root\nadmin-group = root\n daemon",
     "main.conf:4: daemon: a line that begins with a space goes on with allow-users or allow-groups, which must be "
     "above it\n"},
    {"[daemon]\nstate-directory = /\x01",
     "main.conf:2: byte 20 of the line is neither printable ASCII nor part of a UTF-8 character\n"},
    {"[daemon]\n# \xff", "main.conf:2: byte 3 of the line is neither printable ASCII nor part of a UTF-8 "
                         "character\n"},
    {long_line, "main.conf:1: the line has 198 bytes, the limit is 197\n"},
};

Test(config, says_what_is_wrong_where_and_what_is_allowed) {
    cr_assert_eq(strlen(long_line), GD_CONFIG_LINE_BYTES_MAX + 1);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        cr_expect_eq(read_text(wrong[i].text), -EBADMSG, "case %zu", i);
        cr_expect_str_eq(said, wrong[i].says, "case %zu: %snot %s", i, said, wrong[i].says);
        gd_config_deinit(&config);
    }
}

Test(config, takes_lines_up_to_the_limit) {
    char text[GD_CONFIG_LINE_BYTES_MAX + 64];
    int used = snprintf(text, sizeof(text), "[daemon]\nstate-directory = /");
    memset(text + used, 'x', sizeof(text) - (size_t)used);
    strcpy(text + 9 + GD_CONFIG_LINE_BYTES_MAX, "\r\nworkers = 7\n");
    cr_assert_eq(read_text(text), 0, "%s", said);
    cr_expect_eq(strlen(config.options.state_directory), GD_CONFIG_LINE_BYTES_MAX - strlen("state-directory = "));
    expect_printed(GD_SETTING_WORKERS, "7");
    gd_config_deinit(&config);
}

Test(config, a_zero_byte_is_no_end) {
    static const char text[] = "[daemon]\nworkers = 2\0\nworkers = 3\nlog-level = debug\n";
    write_bytes(main_path, text, sizeof(text) - 1);
    cr_assert_eq(read_main(), -EBADMSG);
    cr_expect(strstr(said, "main.conf:2: byte 12 of the line"), "%s", said);
    cr_expect(strstr(said, "main.conf:4: [daemon] log-level is debug"), "%s", said);
    cr_expect_eq(report.n_errors, 2);
    gd_config_deinit(&config);
}

Test(config, says_all_that_is_wrong_in_all_files_up_to_a_hundred) {
    cr_assert_eq(mkdir(path_of("main.conf.d"), 0700), 0);
    write_text(path_of("main.conf.d/b.conf"), "[limits]\nfds-per-user = 1\nno-such = 1\n");
    cr_assert_eq(read_text("[daemon]\nworkers = 0\nworkers = 0\n"), -EBADMSG);
    cr_expect_str_eq(said, "main.conf:2: [daemon] workers is 0, the limits are 1 and 64\n"
                           "main.conf:3: [daemon] workers is there already, in line 2\n"
                           "main.conf.d/b.conf:2: [limits] fds-per-user is 1, the limits are 3 and 1048576\n"
                           "main.conf.d/b.conf:3: [limits] has no key no-such; its keys are connections-per-user, "
                           "runs-per-user, fds-per-user, memory-per-user, messages-per-second, attach-timeout\n");
    gd_config_deinit(&config);

    FILE *stream = fopen(main_path, "w");
    cr_assert_not_null(stream);
    for (int i = 0; i < 1000; i++)
        fputs("x\n", stream);
    fclose(stream);
    cr_assert_eq(read_main(), -EBADMSG);
    cr_expect(strstr(said, "main.conf:100: ") && !strstr(said, "main.conf:101: "));
    cr_expect_str_eq(said + strlen(said) - strlen("main.conf:0: and more errors\n"), "main.conf:0: and more errors\n");
    gd_config_deinit(&config);
}

// ---- which files

Test(config, reads_drop_ins_in_the_order_of_their_bytes) {
    cr_assert_eq(mkdir(path_of("main.conf.d"), 0700), 0);
    write_text(main_path, "[limits]\nruns-per-user = 1\nfds-per-user = 10\nconnections-per-user = 9\n");
    write_text(path_of("main.conf.d/9.conf"), "[limits]\nruns-per-user = 2\nfds-per-user = 11\n");
    write_text(path_of("main.conf.d/B.conf"), "[limits]\nruns-per-user = 3\n");
    write_text(path_of("main.conf.d/a.conf"), "[limits]\nruns-per-user = 4\n[access]\nallow-users = root\n");
    write_text(path_of("main.conf.d/a1.conf"), "[access]\nallow-users = daemon\n");
    static const char *const left_out[] = {".z.conf", "z.conf~", "z.conf.bak", "z", "zconf", ".conf"};
    for (size_t i = 0; i < sizeof(left_out) / sizeof(left_out[0]); i++)
        write_text(path_of("main.conf.d/%s", left_out[i]), "not read");
    cr_assert_eq(read_main(), 0, "%s", said);
    expect_printed(GD_SETTING_RUNS, "4");
    expect_printed(GD_SETTING_FDS, "11");
    expect_printed(GD_SETTING_CONNECTIONS, "9");
    expect_printed(GD_SETTING_ALLOW_USERS, "daemon");
    cr_expect_eq(config.n_paths, 5);
    cr_expect_str_eq(config.sources[GD_SETTING_RUNS].path, path_of("main.conf.d/a.conf"));
    cr_expect_eq(config.sources[GD_SETTING_RUNS].line, 2);
    cr_expect_str_eq(config.sources[GD_SETTING_FDS].path, path_of("main.conf.d/9.conf"));
    gd_config_deinit(&config);
}

static void set_environment(const char *configuration, const char *xdg, const char *home) {
    const struct {
        const char *name, *value;
    } variables[] = {{"CONFIGURATION_DIRECTORY", configuration}, {"XDG_CONFIG_HOME", xdg}, {"HOME", home}};
    for (size_t i = 0; i < 3; i++)
        if (variables[i].value)
            setenv(variables[i].name, variables[i].value, 1);
        else
            unsetenv(variables[i].name);
}

static uint64_t runs_by_default(void) {
    cr_assert_eq(read_with((const char *[]){NULL}), 0, "%s", said);
    uint64_t runs = config.options.quota.most[GD_QUOTA_RUNS];
    gd_config_deinit(&config);
    return runs;
}

Test(config, looks_in_the_directory_that_systemd_names) {
    char given[2 * PATH_BYTES];
    write_text(path_of("gradientd.conf"), "[limits]\nruns-per-user = 5\n");
    set_environment(directory, "/nowhere", "/nowhere");
    cr_expect_eq(runs_by_default(), 5);
    snprintf(given, sizeof(given), "%s:/nowhere", directory);
    set_environment(given, NULL, NULL);
    cr_expect_eq(runs_by_default(), 5);
    cr_assert_eq(mkdir(path_of("gradientd.conf.d"), 0700), 0);
    write_text(path_of("gradientd.conf.d/a.conf"), "[limits]\nruns-per-user = 6\n");
    cr_expect_eq(runs_by_default(), 6);
    cr_assert_eq(unlink(path_of("gradientd.conf")), 0);
    cr_expect_eq(runs_by_default(), 6, "drop-ins alone");
    set_environment("/nowhere", NULL, NULL);
    cr_expect_eq(runs_by_default(), 64);
}

Test(config, looks_in_the_users_own_directory) {
    enum { USER = 54321 };
    static char config_home[PATH_BYTES], closed[PATH_BYTES];
    cr_assert_eq(chmod(directory, 0755), 0);
    cr_assert(mkdir(path_of("gradientd"), 0755) == 0 && mkdir(path_of(".config"), 0755) == 0);
    cr_assert_eq(mkdir(path_of(".config/gradientd"), 0755), 0);
    write_text(path_of("gradientd/gradientd.conf"), "[limits]\nruns-per-user = 7\n");
    write_text(path_of(".config/gradientd/gradientd.conf"), "[limits]\nruns-per-user = 8\n");
    snprintf(config_home, sizeof(config_home), "%s", directory);
    snprintf(closed, sizeof(closed), "%s", path_of("closed"));
    cr_assert_eq(mkdir(closed, 0700), 0);
    if (geteuid() == 0)
        cr_assert_eq(seteuid(USER), 0);
    set_environment(NULL, config_home, "/nowhere");
    cr_expect_eq(runs_by_default(), 7);
    set_environment(NULL, "relative", config_home);
    cr_expect_eq(runs_by_default(), 8);
    set_environment(NULL, NULL, closed);
    cr_expect_eq(runs_by_default(), 64, "another user's home is nobody's business");
    set_environment(NULL, NULL, NULL);
    cr_expect_eq(runs_by_default(), 64);
    if (getuid() == 0)
        cr_assert_eq(seteuid(0), 0);
}

Test(config, a_private_daemon_reads_none) {
    write_text(path_of("gradientd.conf"), "wrong");
    set_environment(directory, NULL, NULL);
    cr_expect_eq(read_with((const char *[]){"--connection-fd=3", NULL}), 0, "%s", said);
    cr_expect_eq(config.n_paths, 0);
    cr_expect_null(config.options.command_line, "it reloads none");
    gd_config_deinit(&config);
}

static void expect_unreadable(const char *says) {
    cr_expect_eq(read_main(), -EBADMSG);
    cr_expect(strncmp(said, says, strlen(says)) == 0, "%snot %s", said, says);
    gd_config_deinit(&config);
}

Test(config, waits_for_no_file_and_reads_none_that_is_too_large) {
    expect_unreadable("main.conf:0: cannot be read: No such file or directory");
    cr_assert_eq(mkfifo(main_path, 0600), 0);
    expect_unreadable("main.conf:0: this is no regular file");
    cr_assert(unlink(main_path) == 0 && mkdir(main_path, 0700) == 0);
    expect_unreadable("main.conf:0: this is no regular file");
    cr_assert(rmdir(main_path) == 0 && symlink(main_path, main_path) == 0);
    expect_unreadable("main.conf:0: cannot be read: Too many levels of symbolic links");
    cr_assert_eq(unlink(main_path), 0);
    write_text(main_path, "");
    cr_assert_eq(truncate(main_path, GD_CONFIG_FILE_BYTES_MAX + 1), 0);
    expect_unreadable("main.conf:0: the file has more than 65536 bytes");
    write_text(main_path, "");
    cr_assert_eq(mkdir(path_of("main.conf.d"), 0700), 0);
    cr_assert_eq(mkfifo(path_of("main.conf.d/a.conf"), 0600), 0);
    expect_unreadable("main.conf.d/a.conf:0: this is no regular file");
    cr_assert_eq(unlink(path_of("main.conf.d/a.conf")), 0);
    cr_assert_eq(symlink("nowhere", path_of("main.conf.d/a.conf")), 0);
    expect_unreadable("main.conf.d/a.conf:0: cannot be read: No such file or directory");
}

Test(config, reads_a_file_of_the_size_that_is_allowed) {
    char *text = malloc(GD_CONFIG_FILE_BYTES_MAX);
    cr_assert_not_null(text);
    memset(text, '\n', GD_CONFIG_FILE_BYTES_MAX);
    static const char last[] = "[daemon]\nworkers = 9";
    memcpy(text + GD_CONFIG_FILE_BYTES_MAX - strlen(last), last, strlen(last));
    write_bytes(main_path, text, GD_CONFIG_FILE_BYTES_MAX);
    free(text);
    cr_assert_eq(read_main(), 0, "%s", said);
    expect_printed(GD_SETTING_WORKERS, "9");
    gd_config_deinit(&config);
}

// ---- what it takes of the process

static int allocations_left = INT_MAX; // until one fails

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
char *__real_strdup(const char *text);
char *__wrap_strdup(const char *text);
int __wrap_asprintf(char **ret_text, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool allocation_fails(void) {
    return allocations_left < INT_MAX && allocations_left-- == 0;
}

void *__wrap_malloc(size_t bytes) {
    return allocation_fails() ? NULL : __real_malloc(bytes);
}

char *__wrap_strdup(const char *text) {
    return allocation_fails() ? NULL : __real_strdup(text);
}

int __wrap_asprintf(char **ret_text, const char *format, ...) {
    va_list arguments;
    if (allocation_fails())
        return -1;
    va_start(arguments, format);
    int bytes = vasprintf(ret_text, format, arguments);
    va_end(arguments);
    return bytes;
}

// By the default path, so that it is put together as well. A sanitizer tells of what is not freed.
Test(config, an_allocation_that_fails_leaves_nothing_behind) {
    write_text(path_of("gradientd.conf"), "[daemon]\nstate-directory = /d\n[socket]\nsocket = /s\n");
    cr_assert_eq(mkdir(path_of("gradientd.conf.d"), 0700), 0);
    write_text(path_of("gradientd.conf.d/a.conf"), "[metrics]\nmetrics-file = /m\n");
    write_text(path_of("gradientd.conf.d/b.conf"), "[socket]\nsocket = /t\n");
    set_environment(directory, NULL, NULL);
    int n = 0, fds = count_fds(), result;
    do {
        allocations_left = n++;
        result = read_with((const char *[]){NULL});
        allocations_left = INT_MAX;
        cr_expect(result == 0 || result == -ENOMEM, "allocation %d: %d", n, result);
        cr_expect_eq(report.n_errors, 0, "%s", said);
        cr_expect_eq(count_fds(), fds, "allocation %d", n);
        if (result == 0)
            cr_expect_str_eq(config.options.socket_path, "/t");
        gd_config_deinit(&config);
    } while (result != 0);
    cr_expect_gt(n, 10, "fewer allocations than strings and files");
}

Test(config, leaves_no_descriptor_open) {
    int fds = count_fds();
    write_text(main_path, "wrong");
    cr_assert_eq(mkdir(path_of("main.conf.d"), 0700), 0);
    cr_assert_eq(mkfifo(path_of("main.conf.d/a.conf"), 0600), 0);
    cr_assert_eq(mkdir(path_of("main.conf.d/b.conf"), 0700), 0);
    write_text(path_of("main.conf.d/c.conf"), "[daemon]\nworkers = 1\n");
    cr_assert_eq(read_main(), -EBADMSG);
    gd_config_deinit(&config);
    cr_expect_eq(count_fds(), fds);
}

// ---- what a reload takes

Test(config, a_reload_applies_what_is_live_and_names_the_rest) {
    for (size_t i = 0; i < GD_SETTINGS; i++) {
        enum gd_setting_id changed = settings[i].id;
        struct gd_server_options options = gd_settings_default(), defaults = options, fresh = options;
        struct gd_error error;
        char text[GD_RELOAD_TEXT_BYTES], expected[GD_RELOAD_TEXT_BYTES];
        cr_assert_eq(gd_setting_parse(changed, "it", settings[i].given, &fresh, &error), 0, "%s", error.text);
        gd_reload_apply(&options, &fresh, text);
        bool live = gd_settings[changed].live;
        snprintf(expected, sizeof(expected), "%s%s",
                 live ? "changed: " : "nothing changed; needs a restart: ", gd_settings[changed].key);
        cr_expect_str_eq(text, expected);
        for (enum gd_setting_id id = 0; id < GD_SETTINGS; id++)
            cr_expect(gd_setting_is_same(id, &options, id == changed && live ? &fresh : &defaults), "%s with %s",
                      gd_settings[id].key, gd_settings[changed].key);
    }
}

Test(config, a_reload_names_all_that_changed) {
    struct gd_server_options options = gd_settings_default(), fresh = options;
    struct gd_error error;
    char text[GD_RELOAD_TEXT_BYTES];
    gd_reload_apply(&options, &fresh, text);
    cr_expect_str_eq(text, "nothing changed");
    for (size_t i = 0; i < GD_SETTINGS; i++)
        cr_assert_eq(gd_setting_parse(settings[i].id, "it", settings[i].given, &fresh, &error), 0, "%s", error.text);
    gd_reload_apply(&options, &fresh, text);
    cr_expect_str_eq(text, "changed: log-level, allow-users, allow-groups, admin-group, connections-per-user, "
                           "runs-per-user, fds-per-user, memory-per-user, messages-per-second, attach-timeout, "
                           "metrics-interval; needs a restart: workers, state-directory, socket, socket-mode, "
                           "socket-group, metrics-file");
    gd_reload_apply(&options, &fresh, text);
    cr_expect_str_eq(text, "nothing changed; needs a restart: workers, state-directory, socket, socket-mode, "
                           "socket-group, metrics-file");
}
