// The daemon's configuration at its start: what --check-config prints, and what is said of a wrong one.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "configured.h"
#include "fixture.h"

TestSuite(check_config, .init = configured_set_up, .fini = fixture_tear_down, .timeout = 60);

// Runs the program with these arguments and returns its exit status and what it printed, both streams.
static int run_daemon(const char *const *arguments, char ret_text[static 8192]) {
    int ends[2], status;
    char *argv[8] = {strdup("gradientd")};
    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        for (size_t i = 0; arguments[i]; i++)
            argv[i + 1] = strdup(arguments[i]);
        dup2(ends[1], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        execv(daemon_process_program(), argv);
        _exit(127);
    }
    free(argv[0]);
    close(ends[1]);
    size_t used = 0;
    ssize_t bytes;
    while ((bytes = read(ends[0], ret_text + used, 8191 - used)) > 0)
        used += (size_t)bytes;
    ret_text[used] = '\0';
    close(ends[0]);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

// Spaces that align do not count.
static bool has_line(const char *text, const char *line) {
    for (const char *at = text; *at; at += strcspn(at, "\n"), at += *at == '\n') {
        const char *expected = line;
        const char *found = at;
        while (*found && *found != '\n' && *expected) {
            if (*found == ' ' && found[1] == ' ') {
                found++;
                continue;
            }
            if (*found++ != *expected++)
                break;
        }
        if (!*expected && (*found == '\n' || !*found))
            return true;
    }
    return false;
}

Test(check_config, check_config_prints_what_is_in_force_and_where_it_comes_from) {
    char text[8192], line[4 * CONFIG_PATH_BYTES], drop_in[2 * CONFIG_PATH_BYTES];
    write_config("[limits]\nruns-per-user = 3\nfds-per-user = 4\n");
    snprintf(drop_in, sizeof(drop_in), "%s.d", config_path);
    cr_assert_eq(mkdir(drop_in, 0700), 0);
    snprintf(drop_in, sizeof(drop_in), "%s.d/a.conf", config_path);
    FILE *stream = fopen(drop_in, "w");
    cr_assert_not_null(stream);
    fputs("[limits]\nfds-per-user = 5\n", stream);
    fclose(stream);
    const char *const arguments[] = {"--check-config", "--config", config_path, "--workers=6", NULL};
    cr_assert_eq(run_daemon(arguments, text), 0, "%s", text);
    cr_expect(has_line(text, "[limits]") && has_line(text, "workers 6 command line"), "%s", text);
    cr_expect(has_line(text, "connections-per-user 64 default"), "%s", text);
    snprintf(line, sizeof(line), "runs-per-user 3 %s:2", config_path);
    cr_expect(has_line(text, line), "%s", text);
    snprintf(line, sizeof(line), "fds-per-user 5 %s:2", drop_in);
    cr_expect(has_line(text, line), "%s", text);
    cr_expect(has_line(text, drop_in), "%s", text);

    cr_assert_eq(setenv("CONFIGURATION_DIRECTORY", directory, 1), 0);
    cr_assert_eq(run_daemon((const char *[]){"--check-config", NULL}, text), 0, "%s", text);
    cr_expect(has_line(text, line), "%s", text);
    unsetenv("CONFIGURATION_DIRECTORY");
}

Test(check_config, a_wrong_one_ends_with_status_2_and_all_its_errors) {
    char text[8192], line[4 * CONFIG_PATH_BYTES];
    write_config("[limits]\nruns-per-user = 0\nfds = 4\n");
    const char *const arguments[] = {"--check-config", "--config", config_path, NULL};
    cr_assert_eq(run_daemon(arguments, text), 2);
    snprintf(line, sizeof(line), "gradientd: %s:2: [limits] runs-per-user is 0, the limits are 1 and 1048576",
             config_path);
    cr_expect(has_line(text, line), "%s", text);
    snprintf(line, sizeof(line), "gradientd: %s:3: [limits] has no key fds; its keys are ", config_path);
    cr_expect(strstr(text, line), "%s", text);
    cr_expect_not(strstr(text, "[daemon]"), "%s", text);

    launch_configured(config_path);
    int status = daemon_process_wait_end(&daemon_process);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 2, "0x%x", (unsigned)status);
    cr_expect_eq(count_in_log(line), 1);
    launch_configured("/nowhere/gradientd.conf");
    status = daemon_process_wait_end(&daemon_process);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 2, "0x%x", (unsigned)status);
    cr_expect_eq(count_in_log("gradientd: /nowhere/gradientd.conf: cannot be read: No such file or directory\n"), 1);
}
