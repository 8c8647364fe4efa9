// What systemd says of the units, where there is a systemd.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "checkup.h"

enum {
    WORD_BYTES = 64,  // "enabled-runtime" and the like
    ANSWER_MS = 3000, // systemctl waits for D-Bus longer than anybody likes to
    WRITE_END = 1,
};

extern char **environ;

// What sd_booted(3) looks at.
static bool is_booted(void) {
    struct stat status;
    return lstat("/run/systemd/system/", &status) == 0 && S_ISDIR(status.st_mode);
}

static int spawn(const char *const *words, int output, pid_t *ret_pid) {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    char *arguments[8] = {0};
    for (size_t i = 0; words[i]; i++)
        memcpy(&arguments[i], &words[i], sizeof(arguments[i])); // execve() takes what it does not change as if it did
    int number = posix_spawnp(ret_pid, words[0], &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    return -number;
}

// Reads a line of output until its end or the deadline.
static void read_line(int fd, char word[static WORD_BYTES]) {
    int64_t deadline_ms = gd_now_ms() + ANSWER_MS;
    size_t bytes = 0;
    ssize_t more = 1;
    while (more > 0 && bytes + 1 < WORD_BYTES) {
        int64_t left_ms = deadline_ms - gd_now_ms();
        if (left_ms <= 0 || gd_wait_plain(NULL, fd, POLLIN, (int)left_ms) == 0)
            break;
        more = read(fd, word + bytes, WORD_BYTES - 1 - bytes);
        bytes += more > 0 ? (size_t)more : 0;
    }
    word[bytes] = '\0';
    word[strcspn(word, "\n")] = '\0';
}

// What `systemctl VERB UNIT` prints; "" where it does not answer.
static void ask(bool user, const char *verb, const char *unit, char word[static WORD_BYTES]) {
    const char *const words[] = {"systemctl", user ? "--user" : "--system", verb, unit, NULL};
    int pipe_fds[2];
    pid_t pid;
    *word = '\0';
    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return;
    int result = spawn(words, pipe_fds[WRITE_END], &pid);
    close(pipe_fds[WRITE_END]);
    if (result == 0) {
        read_line(pipe_fds[0], word);
        kill(pid, SIGKILL); // it has answered, or never will
        waitpid(pid, NULL, 0);
    }
    close(pipe_fds[0]);
}

static void check_units(struct gd_checkup *checkup, bool user) {
    const char *name = user ? "user-service" : "service";
    char enabled[WORD_BYTES], listening[WORD_BYTES], running[WORD_BYTES];
    ask(user, "is-enabled", "gradientd.socket", enabled);
    if (!*enabled || strcmp(enabled, "not-found") == 0) {
        gd_checkup_add(checkup, name, GD_VERDICT_OK, NULL, "systemd has no unit gradientd.socket%s",
                       user ? " of this user" : "");
        return;
    }
    ask(user, "is-active", "gradientd.socket", listening);
    ask(user, "is-active", "gradientd.service", running);
    bool failed = strcmp(listening, "failed") == 0 || strcmp(running, "failed") == 0;
    bool off = strcmp(listening, "active") != 0;
    gd_checkup_add(checkup, name,
                   failed ? GD_VERDICT_PROBLEM
                   : off  ? GD_VERDICT_WARNING
                          : GD_VERDICT_OK,
                   failed ? "journalctl -u gradientd says why; then systemctl restart gradientd.socket gradientd"
                   : off  ? "systemctl enable --now gradientd.socket (with --user for one's own)"
                          : NULL,
                   "gradientd.socket is %s and %s, gradientd.service %s", enabled, listening, running);
}

void gd_doctor_check_service(struct gd_checkup *checkup) {
    if (!is_booted()) {
        gd_checkup_add(checkup, "service", GD_VERDICT_OK, NULL, "no systemd runs here");
        return;
    }
    check_units(checkup, false);
    if (geteuid() != 0)
        check_units(checkup, true);
}
