#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

static const char PREFIX[] = "events.out.tfevents.";

enum { NAMES_TRIED_MAX = 1000 };

// mkdir -p. Returns 0 or a negative errno.
static int make_directories(char *path) {
    for (char *slash = path + 1;; slash++) {
        if (*slash != '/' && *slash != '\0')
            continue;
        char end = *slash;
        *slash = '\0';
        int result = mkdir(path, 0777) < 0 && errno != EEXIST ? -errno : 0;
        *slash = end;
        if (result < 0 || end == '\0')
            return result;
    }
}

// The seconds for a new file's name: now, or one after the latest file that is there already, so that a restart within
// a second, or after the clock went back, still sorts later.
static long long name_seconds(const char *directory) {
    long long seconds = (long long)client_now();
    DIR *entries = opendir(directory);
    if (!entries)
        return seconds;
    for (struct dirent *entry; (entry = readdir(entries));) {
        if (strncmp(entry->d_name, PREFIX, sizeof(PREFIX) - 1) != 0)
            continue;
        char *end;
        long long taken = strtoll(entry->d_name + sizeof(PREFIX) - 1, &end, 10);
        if (*end == '.' && taken >= seconds && taken < 9999999999)
            seconds = taken + 1;
    }
    closedir(entries);
    return seconds;
}

static void host_name(char *host, size_t size) {
    if (gethostname(host, size) < 0)
        strcpy(host, "localhost");
    host[size - 1] = '\0';
    for (char *c = host; *c; c++)
        if (!isalnum((unsigned char)*c) && *c != '-')
            *c = '-';
}

static int create_in(const char *directory, char **ret_path) {
    char host[64];
    host_name(host, sizeof(host));
    long long seconds = name_seconds(directory);
    for (int n = 0; n < NAMES_TRIED_MAX; n++) {
        char *path;
        if (asprintf(&path, "%s/%s%010lld.%s.%d.%d.gradientd", directory, PREFIX, seconds, host, (int)getpid(), n) < 0)
            return -ENOMEM;
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0) {
            *ret_path = path;
            return fd;
        }
        int result = -errno;
        free(path);
        if (result != -EEXIST)
            return result;
    }
    return -EEXIST;
}

int client_create_event_file(const char *logdir, const char *run, char **ret_path, struct gradientd_error *ret_error) {
    char *directory;
    if (asprintf(&directory, *run ? "%s/%s" : "%s%s", logdir, run) < 0)
        return client_fail(ret_error, ENOMEM, "out of memory");
    int result = make_directories(directory);
    if (result == 0)
        result = create_in(directory, ret_path);
    if (result < 0)
        client_fail(ret_error, -result, "cannot create an event file in %s: %s", directory, strerror(-result));
    free(directory);
    return result;
}
