// The state directory, where the event files of trainers without a log directory go.
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "checkup.h"

static const uint64_t FREE_WARNING_BYTES = UINT64_C(1) << 30; // some days of several trainings' files
static const uint64_t FREE_PROBLEM_BYTES = UINT64_C(16) << 20;

// A user's own folder in it, which is there once a run has been.
static void check_folder(struct gd_checkup *checkup, const char *directory) {
    char folder[PATH_MAX];
    snprintf(folder, sizeof(folder), "%s/%u", directory, geteuid());
    if (access(folder, F_OK) < 0 && errno == ENOENT) {
        gd_checkup_add(checkup, "state-folder", GD_VERDICT_OK, NULL,
                       "%s is not there: no run of this user needed it yet", folder);
        return;
    }
    bool readable = access(folder, R_OK | X_OK) == 0;
    gd_checkup_add(checkup, "state-folder", readable ? GD_VERDICT_OK : GD_VERDICT_WARNING,
                   readable ? NULL
                            : "give runs a logdir of their own, or have the folder opened to this user: setfacl -R -m "
                              "u:UID:rX,d:u:UID:rX FOLDER, and the x of the directories above it",
                   readable ? "%s can be read" : "%s cannot be read by this user", folder);
}

static void check_space(struct gd_checkup *checkup, const char *directory) {
    struct statvfs space;
    if (statvfs(directory, &space) < 0)
        return;
    uint64_t bytes = (uint64_t)space.f_bavail * space.f_frsize;
    enum gd_verdict verdict = bytes < FREE_PROBLEM_BYTES   ? GD_VERDICT_PROBLEM
                              : bytes < FREE_WARNING_BYTES ? GD_VERDICT_WARNING
                                                           : GD_VERDICT_OK;
    gd_checkup_add(checkup, "state-space", verdict,
                   verdict == GD_VERDICT_OK ? NULL
                                            : "remove event files that nobody needs, or move the state directory",
                   "%" PRIu64 " MiB are free at %s", bytes >> 20, directory);
}

void gd_doctor_check_state_directory(struct gd_checkup *checkup) {
    const char *directory = checkup->watch->daemon->state_directory;
    struct stat status;
    if (!directory || !*directory) {
        gd_checkup_add(checkup, "state-directory", GD_VERDICT_WARNING,
                       "set state-directory in gradientd.conf(5), or give every run a logdir",
                       "the daemon has no state directory: runs without a logdir are refused");
        return;
    }
    int result = stat(directory, &status) < 0 ? errno : S_ISDIR(status.st_mode) ? 0 : ENOTDIR;
    if (result == ENOENT) { // made with the first file
        gd_checkup_add(checkup, "state-directory", GD_VERDICT_OK, NULL,
                       "%s is not there yet, or not in sight: it is made with the first run that needs it", directory);
        return;
    }
    gd_checkup_add(checkup, "state-directory", result == 0 ? GD_VERDICT_OK : GD_VERDICT_WARNING,
                   result == 0 ? NULL : "see its rights and those of the directories above it", "%s: %s", directory,
                   result == 0 ? "is there" : strerror(result));
    if (result != 0)
        return;
    check_folder(checkup, directory);
    check_space(checkup, directory);
}
