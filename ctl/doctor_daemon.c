// What the daemon says of itself: quotas, limits, kernels, files, clock.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "checkup.h"
#include "kernels/kernels.h"

enum { FULL_PERCENT = 90 }; // of a quota: the next run may be the one too many

// What a user may take of one kind.
struct quota {
    const char *check; // the finding's name
    const char *unit;
    const char *key; // of gradientd.conf, which sets the limit
};

static void check_quota(struct gd_checkup *checkup, const struct quota *quota, uint64_t held, uint64_t most) {
    char advice[160];
    bool full = most > 0 && (double)held >= (double)most * FULL_PERCENT / 100;
    enum gd_verdict verdict = most > 0 && held >= most ? GD_VERDICT_PROBLEM : full ? GD_VERDICT_WARNING : GD_VERDICT_OK;
    snprintf(advice, sizeof(advice),
             "end runs that are not needed (gradientctl status), or have %s raised in gradientd.conf(5)", quota->key);
    gd_checkup_add(checkup, quota->check, verdict, verdict == GD_VERDICT_OK ? NULL : advice,
                   "user %u holds %" PRIu64 " of %" PRIu64 " %s", geteuid(), held, most, quota->unit);
}

static void check_quotas(struct gd_checkup *checkup) {
    static const Gradientd__UserStatus none = GRADIENTD__USER_STATUS__INIT;
    const Gradientd__Status *status = checkup->watch->first;
    const Gradientd__UserStatus *most = checkup->watch->daemon->limits, *held = &none;
    if (!most)
        return;
    for (size_t i = 0; i < status->n_users; i++)
        if (status->users[i]->uid == geteuid())
            held = status->users[i];
    check_quota(checkup, &(struct quota){"quota-memory", "bytes", "memory-per-user"}, held->memory_bytes,
                most->memory_bytes);
    check_quota(checkup, &(struct quota){"quota-runs", "runs", "runs-per-user"}, held->runs, most->runs);
    check_quota(checkup, &(struct quota){"quota-connections", "connections", "connections-per-user"}, held->connections,
                most->connections);
    check_quota(checkup, &(struct quota){"quota-fds", "descriptors", "fds-per-user"}, held->fds, most->fds);
}

// The soft limit on open files in /proc/PID/limits; 0: not known, or none.
static uint64_t files_limit_of(uint32_t pid) {
    char path[64], line[256];
    unsigned long long soft = 0;
    snprintf(path, sizeof(path), "/proc/%u/limits", pid);
    FILE *limits = fopen(path, "re");
    if (!limits)
        return 0;
    while (soft == 0 && fgets(line, sizeof(line), limits))
        if (strncmp(line, "Max open files", strlen("Max open files")) == 0)
            soft = strtoull(line + strlen("Max open files"), NULL, 10);
    fclose(limits);
    return soft;
}

// One user with all that its quota lets it have must not take the daemon's last descriptor.
static void check_files_limit(struct gd_checkup *checkup) {
    enum { OWN_FDS = 64 }; // of the daemon itself: its loop, socket, log, and a file at a time
    const Gradientd__DaemonStatus *daemon = checkup->watch->daemon;
    const struct ucred *peer = &checkup->watch->link.peer; // 1 is the systemd that made the socket
    uint64_t soft = files_limit_of(peer->pid > 1 ? (uint32_t)peer->pid : daemon->pid), needed = OWN_FDS;
    if (soft == 0 || !daemon->limits)
        return;
    needed += daemon->limits->fds + daemon->limits->connections;
    bool low = soft < needed;
    gd_checkup_add(checkup, "daemon-files", low ? GD_VERDICT_WARNING : GD_VERDICT_OK,
                   low ? "raise LimitNOFILE= of its unit, or ulimit -n where it is started" : NULL,
                   "the daemon may have %" PRIu64 " open files, one user alone may need %" PRIu64, soft, needed);
}

static void check_kernels(struct gd_checkup *checkup) {
    const struct gd_kernels *best;
    const char *used = checkup->watch->daemon->kernels;
    if (!used || gd_kernels_select(NULL, &best) < 0)
        return;
    bool other = strcmp(used, best->name) != 0;
    gd_checkup_add(checkup, "kernels", other ? GD_VERDICT_WARNING : GD_VERDICT_OK,
                   other ? "take GRADIENTD_KERNELS out of the daemon's environment" : NULL,
                   "the daemon uses %s, this processor is fastest with %s", used, best->name);
}

static void check_writing(struct gd_checkup *checkup) {
    const Gradientd__DaemonStatus *daemon = checkup->watch->daemon;
    bool errors = daemon->write_errors > 0;
    gd_checkup_add(checkup, "writing", errors ? GD_VERDICT_WARNING : GD_VERDICT_OK,
                   errors
                       ? "the daemon's log names the files; it tries again, so space or a file system that is back is "
                         "enough"
                       : NULL,
                   "%" PRIu64 " tries to write event files have failed since the daemon started", daemon->write_errors);
}

static void check_clock(struct gd_checkup *checkup) {
    static const double year_2024 = 1704067200.0; // no earlier moment is now
    double now = (double)time(NULL), started = checkup->watch->daemon->started;
    bool wrong = now < year_2024 || started > now + 1.0 || started < year_2024;
    gd_checkup_add(checkup, "clock", wrong ? GD_VERDICT_WARNING : GD_VERDICT_OK,
                   wrong ? "set the clock (timedatectl set-ntp true): event files are sorted by time" : NULL,
                   wrong ? "the clock has been turned, or is wrong: now is %.0f s, the daemon started at %.0f s"
                         : "now is %.0f s since the epoch, the daemon started at %.0f s",
                   now, started);
}

void gd_doctor_check_daemon(struct gd_checkup *checkup) {
    check_quotas(checkup);
    check_files_limit(checkup);
    check_kernels(checkup);
    check_writing(checkup);
    check_clock(checkup);
}
