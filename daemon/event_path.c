#include "event_path.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char PREFIX[] = "events.out.tfevents.";

enum {
    NAMES_TRIED_MAX = 1000,
    HOST_BYTES = 64, // HOST_NAME_MAX and the end
};

static const long long SECONDS_MAX = 9999999999; // what the name's ten digits hold

int gd_event_path_make_directories(char *path, mode_t mode) {
    for (char *slash = path + 1;; slash++) {
        if (*slash != '/' && *slash != '\0')
            continue;
        char end = *slash;
        *slash = '\0';
        int result = mkdir(path, mode) < 0 && errno != EEXIST ? -errno : 0;
        *slash = end;
        if (result < 0 || end == '\0')
            return result;
    }
}

bool gd_event_path_is_name(const char *name) {
    size_t bytes = strlen(name);
    if (bytes >= GD_EVENT_NAME_BYTES || strncmp(name, PREFIX, sizeof(PREFIX) - 1) != 0)
        return false;
    for (size_t i = 0; i < bytes; i++)
        if (!isalnum((unsigned char)name[i]) && name[i] != '.' && name[i] != '-')
            return false;
    return true;
}

// The seconds for a new file's name: now, or one after the latest file that is there already, so that a restart within
// a second, or after the clock went back, still sorts later. A directory that cannot be read counts as empty.
static long long name_seconds(int directory, double now) {
    long long seconds = (long long)now;
    int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = fd < 0 ? NULL : fdopendir(fd);
    if (!entries) {
        if (fd >= 0)
            close(fd);
        return seconds;
    }
    for (struct dirent *entry; (entry = readdir(entries));) {
        if (strncmp(entry->d_name, PREFIX, sizeof(PREFIX) - 1) != 0)
            continue;
        char *end;
        long long taken = strtoll(entry->d_name + sizeof(PREFIX) - 1, &end, 10);
        if (*end == '.' && taken >= seconds && taken < SECONDS_MAX)
            seconds = taken + 1;
    }
    closedir(entries);
    return seconds;
}

static void host_name(char host[HOST_BYTES]) {
    if (gethostname(host, HOST_BYTES) < 0)
        strcpy(host, "localhost");
    host[HOST_BYTES - 1] = '\0';
    for (char *c = host; *c; c++)
        if (!isalnum((unsigned char)*c) && *c != '-')
            *c = '-';
}

int gd_event_path_create(int directory, double now, pid_t pid, mode_t mode, char ret_name[GD_EVENT_NAME_BYTES]) {
    char host[HOST_BYTES];
    host_name(host);
    long long seconds = name_seconds(directory, now);
    for (int n = 0; n < NAMES_TRIED_MAX; n++) {
        snprintf(ret_name, GD_EVENT_NAME_BYTES, "%s%010lld.%s.%d.%d.gradientd", PREFIX, seconds, host, (int)pid, n);
        int fd = openat(directory, ret_name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (fd >= 0)
            return fd;
        if (errno != EEXIST)
            return -errno;
    }
    return -EEXIST;
}
