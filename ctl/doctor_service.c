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

// Reads what is written until its end. Returns false when that does not come in time.
static bool read_word(int fd, char word[static WORD_BYTES]) {
    int64_t deadline_ms = gd_now_ms() + ANSWER_MS;
    size_t bytes = 0;
    ssize_t more = 1;
    while (more > 0 && bytes + 1 < WORD_BYTES) {
        int64_t left_ms = deadline_ms - gd_now_ms();
        if (left_ms <= 0 || gd_wait_plain(NULL, fd, POLLIN, (int)left_ms) == 0)
            return false;
        more = read(fd, word + bytes, WORD_BYTES - 1 - bytes);
        bytes += more > 0 ? (size_t)more : 0;
    }
    word[bytes] = '\0';
    word[strcspn(word, "\n")] = '\0';
    return true;
}

// What `systemctl VERB UNIT` prints, "" where that is nothing. Returns false when it does not answer.
static bool ask(bool user, const char *verb, const char *unit, char ret_word[static WORD_BYTES]) {
    const char *const words[] = {"systemctl", user ? "--user" : "--system", verb, unit, NULL};
    int pipe_fds[2];
    pid_t pid;
    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return false;
    bool answered = spawn(words, pipe_fds[WRITE_END], &pid) == 0;
    close(pipe_fds[WRITE_END]);
    if (answered) {
        answered = read_word(pipe_fds[0], ret_word);
        kill(pid, SIGKILL); // it has answered, or never will
        waitpid(pid, NULL, 0);
    }
    close(pipe_fds[0]);
    return answered;
}

static void tell_units(struct gd_checkup *checkup, const char *name, const char *enabled, const char *socket,
                       const char *service) {
    bool failed = strcmp(socket, "failed") == 0 || strcmp(service, "failed") == 0;
    bool off = strcmp(socket, "active") != 0;
    gd_checkup_add(checkup, name,
                   failed ? GD_VERDICT_PROBLEM
                   : off  ? GD_VERDICT_WARNING
                          : GD_VERDICT_OK,
                   failed ? "journalctl -u gradientd says why; then systemctl restart gradientd.socket gradientd"
                   : off  ? "systemctl enable --now gradientd.socket (with --user for one's own)"
                          : NULL,
                   "gradientd.socket is %s and %s, gradientd.service %s", enabled, socket, service);
}

static void check_units(struct gd_checkup *checkup, bool user) {
    const char *name = user ? "user-service" : "service";
    char enabled[WORD_BYTES], socket[WORD_BYTES], service[WORD_BYTES];
    if (!ask(user, "is-enabled", "gradientd.socket", enabled) || !ask(user, "is-active", "gradientd.socket", socket) ||
        !ask(user, "is-active", "gradientd.service", service))
        gd_checkup_add(checkup, name, GD_VERDICT_WARNING, "systemctl status says what systemd is doing",
                       "systemctl does not answer within %d ms", ANSWER_MS);
    else if (!*socket) // which it says of units that are not there, too
        gd_checkup_add(checkup, name, GD_VERDICT_OK, NULL, "systemd does not tell user %u of units", geteuid());
    else if (!*enabled || strcmp(enabled, "not-found") == 0)
        gd_checkup_add(checkup, name, GD_VERDICT_OK, NULL, "systemd has no unit gradientd.socket%s",
                       user ? " of this user" : "");
    else
        tell_units(checkup, name, enabled, socket, service);
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
