// Whether the daemon's socket is there, lets this user in, and is answered at.
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkup.h"
#include "units.h"

enum { DESCRIPTION_BYTES = 512 };

static const struct gd_socket_attempt *last_attempt(const struct gd_checkup *checkup) {
    return &checkup->search->attempts[checkup->search->n - 1];
}

// As "drwxr-x--- gradientd ml".
static void describe(const struct stat *status, char text[static DESCRIPTION_BYTES]) {
    static const char letters[] = "rwxrwxrwx";
    const struct passwd *user = getpwuid(status->st_uid);
    char mode[sizeof(letters) + 1] = "-";
    char owner[64];
    snprintf(owner, sizeof(owner), "%u", status->st_uid);
    if (user)
        snprintf(owner, sizeof(owner), "%s", user->pw_name);
    const struct group *group = getgrgid(status->st_gid);
    mode[0] = S_ISDIR(status->st_mode) ? 'd' : S_ISSOCK(status->st_mode) ? 's' : S_ISLNK(status->st_mode) ? 'l' : '-';
    for (int i = 0; i < 9; i++)
        mode[i + 1] = status->st_mode >> (8 - i) & 1 ? letters[i] : '-';
    if (group)
        snprintf(text, DESCRIPTION_BYTES, "%s %s %s", mode, owner, group->gr_name);
    else
        snprintf(text, DESCRIPTION_BYTES, "%s %s %u", mode, owner, status->st_gid);
}

// The first directory on the way to the path that cannot be entered, or false.
static bool find_closed_directory(const char *path, char *ret_directory, size_t size) {
    for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(ret_directory, size, "%.*s", (int)(slash - path), path);
        if (access(ret_directory, X_OK) < 0 && errno == EACCES)
            return true;
    }
    return false;
}

static void explain_rights(struct gd_checkup *checkup, const char *path) {
    char directory[GD_SOCKET_PATH_BYTES], rights[DESCRIPTION_BYTES] = "?";
    struct stat status;
    if (find_closed_directory(path, directory, sizeof(directory))) {
        if (stat(directory, &status) == 0)
            describe(&status, rights);
        gd_checkup_add(checkup, "socket-rights", GD_VERDICT_PROBLEM,
                       "become a member of the group that may enter it, or have the socket put where its users come",
                       "the directory %s (%s) does not let user %u in", directory, rights, geteuid());
        return;
    }
    if (stat(path, &status) == 0)
        describe(&status, rights);
    gd_checkup_add(
        checkup, "socket-rights", GD_VERDICT_PROBLEM,
        "become a member of its group and log in again, or have SocketMode= and SocketGroup= of its unit changed "
        "(without systemd: socket-mode and socket-group in gradientd.conf(5))",
        "connecting takes the right to write, and %s (%s) does not give it to user %u", path, rights, geteuid());
}

static const char *advice_for(int error) {
    switch (-error) {
    case ENOENT:
    case ENOTDIR:
        return "start it: systemctl start gradientd.socket, or systemctl --user start gradientd.socket, or gradientd; "
               "or "
               "set GRADIENTD_SOCKET to where it is";
    case ECONNREFUSED:
        return "start gradientd again: it takes the place of what a dead one left behind";
    case EAGAIN:
        return "look at the daemon: ps -o pid,stat,wchan -C gradientd; one that is stopped (T) goes on with kill -CONT";
    case ENAMETOOLONG:
        return "choose a shorter path";
    default:
        return "see above";
    }
}

static void explain_attempts(struct gd_checkup *checkup) {
    for (size_t i = 0; i < checkup->search->n; i++) {
        const struct gd_socket_attempt *attempt = &checkup->search->attempts[i];
        gd_checkup_add(checkup, "socket", GD_VERDICT_PROBLEM, advice_for(attempt->error), "no daemon at %s (%s): %s",
                       attempt->path, attempt->origin, gd_daemon_socket_reason(attempt->error));
        if (attempt->error == -EACCES || attempt->error == -EPERM)
            explain_rights(checkup, attempt->path);
    }
}

// Whoever can write to the directory can put another socket there, which trainers would send their gradients to.
static void check_directory(struct gd_checkup *checkup) {
    char directory[GD_SOCKET_PATH_BYTES], rights[DESCRIPTION_BYTES];
    struct stat status;
    snprintf(directory, sizeof(directory), "%s", last_attempt(checkup)->path);
    char *slash = strrchr(directory, '/');
    if (!slash || slash == directory)
        return;
    *slash = '\0';
    if (stat(directory, &status) < 0)
        return;
    describe(&status, rights);
    bool open = status.st_mode & (S_IWGRP | S_IWOTH) && !(status.st_mode & S_ISVTX);
    gd_checkup_add(checkup, "socket-rights", open ? GD_VERDICT_WARNING : GD_VERDICT_OK,
                   open ? "take the right to write from all but its owner: chmod go-w" : NULL, "%s is %s%s", directory,
                   rights, open ? ": others can put another socket there" : "");
}

static const char *advice_for_refusal(int code) {
    switch (code) {
    case GRADIENTD__ERROR_CODE__FORBIDDEN:
        return "have it named by allow-users, or one of its groups by allow-groups, in gradientd.conf(5), or log in "
               "again after becoming a member of a group";
    case GRADIENTD__ERROR_CODE__UNSUPPORTED:
    case GRADIENTD__ERROR_CODE__PROTOCOL:
        return "gradientctl and the daemon are of different versions: restart the daemon after an upgrade";
    case GRADIENTD__ERROR_CODE__QUOTA:
        return "end what this user does not need, or have the limit raised in gradientd.conf(5)";
    default:
        return "see the daemon's log";
    }
}

static const char *advice_for_trouble(const struct gd_trouble *trouble) {
    switch (trouble->kind) {
    case GD_TROUBLE_REFUSED:
        return advice_for_refusal(trouble->code);
    case GD_TROUBLE_SILENT:
        return "ps -o stat,wchan -p PID shows whether it is stopped (T); kill -CONT PID lets it go on, and systemctl "
               "restart gradientd loses no run";
    case GD_TROUBLE_GONE:
        return "see the daemon's log: it may have just ended, or be of another version";
    case GD_TROUBLE_GARBAGE:
        return "another program listens there: look who (ss -xlp), and give gradientd its own path";
    default:
        return "free memory, or raise this shell's limits (ulimit -n)";
    }
}

static void explain_trouble(struct gd_checkup *checkup) {
    const struct gd_trouble *trouble = checkup->trouble;
    gd_checkup_add(checkup, "connection", GD_VERDICT_PROBLEM, advice_for_trouble(trouble), "%s", trouble->text);
}

void gd_doctor_check_socket(struct gd_checkup *checkup) {
    if (checkup->search->n == 0) { // no memory before anything was tried
        explain_trouble(checkup);
        return;
    }
    const struct gd_socket_attempt *last = last_attempt(checkup);
    if (last->error < 0) {
        explain_attempts(checkup);
        return;
    }
    gd_checkup_add(checkup, "socket", GD_VERDICT_OK, NULL, "%s (%s)", last->path, last->origin);
    check_directory(checkup);
    if (!checkup->watch) {
        explain_trouble(checkup);
        return;
    }
    const Gradientd__DaemonStatus *daemon = checkup->watch->daemon;
    gd_checkup_add(checkup, "connection", GD_VERDICT_OK, NULL, "gradientd, pid %u of user %u, serves user %u%s",
                   daemon->pid, daemon->uid, geteuid(),
                   checkup->watch->first->sees_all ? ", who sees all users' runs" : "");
}
