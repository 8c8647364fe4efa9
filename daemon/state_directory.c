#include "state_directory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "event_path.h"
#include "text.h"

enum {
    DIRECTORY_MODE = 0700, // gradients tell about the data they came from: a user's runs are no other user's business
    FILE_MODE = 0600,
};

// Absolute, as the XDG specification wants it; anything else counts as not set.
static const char *get_directory(const char *variable) {
    const char *value = getenv(variable);
    return value && *value == '/' ? value : NULL;
}

int gd_state_directory_default(char **ret_path) {
    const char *given = get_directory("STATE_DIRECTORY");
    const char *state = get_directory("XDG_STATE_HOME"), *home = get_directory("HOME");
    int length = 0;

    *ret_path = NULL;
    if (given)
        length = asprintf(ret_path, "%.*s", (int)strcspn(given, ":"), given);
    else if (geteuid() == 0)
        length = asprintf(ret_path, "/var/lib/gradientd");
    else if (state)
        length = asprintf(ret_path, "%s/gradientd", state);
    else if (home)
        length = asprintf(ret_path, "%s/.local/state/gradientd", home);
    if (length >= 0)
        return 0;
    *ret_path = NULL; // undefined after a failure
    return -ENOMEM;
}

static int open_state_directory(const char *path) {
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 || errno != ENOENT)
        return fd < 0 ? -errno : fd;
    char *missing = strdup(path);
    int result = missing ? gd_event_path_make_directories(missing, DIRECTORY_MODE) : -ENOMEM;
    free(missing);
    if (result < 0)
        return result;
    fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

// Goes from `directory`, which is closed, into the one called `name` there, creating it if need be.
static int enter_consume(int directory, const char *name) {
    int fd = -1;
    if (mkdirat(directory, name, DIRECTORY_MODE) == 0 || errno == EEXIST)
        fd = openat(directory, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int result = fd < 0 ? -errno : fd;
    close(directory);
    return result;
}

// Enters each component of `path`, which is relative; `directory` is closed.
static int enter_path_consume(int directory, const char *path) {
    char name[NAME_MAX + 1];
    while (*path && directory >= 0) {
        size_t bytes = strcspn(path, "/");
        snprintf(name, sizeof(name), "%.*s", (int)bytes, path);
        directory = enter_consume(directory, name);
        path += bytes + (path[bytes] == '/');
    }
    return directory;
}

// The directory of the place's files, as a descriptor; or a negative errno.
static int open_directory(const struct gd_event_place *place) {
    char user[16];
    int directory = open_state_directory(place->state_directory);
    if (directory < 0)
        return directory;
    snprintf(user, sizeof(user), "%u", (unsigned)place->uid);
    return enter_path_consume(enter_consume(directory, user), place->run);
}

static int open_or_create(const struct gd_event_place *place, int directory, double now,
                          char ret_name[GD_EVENT_NAME_BYTES]) {
    if (!*place->name)
        return gd_event_path_create(directory, now, place->pid, FILE_MODE, ret_name);
    snprintf(ret_name, GD_EVENT_NAME_BYTES, "%s", place->name);
    int fd = openat(directory, place->name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, FILE_MODE);
    return fd < 0 ? -errno : fd;
}

static int open_file(const struct gd_event_place *place, double now, char **ret_path) {
    char name[GD_EVENT_NAME_BYTES];
    int directory = open_directory(place);
    if (directory < 0)
        return directory;
    int fd = open_or_create(place, directory, now, name);
    if (fd >= 0 && asprintf(ret_path, *place->run ? "%s/%u/%s/%s" : "%s/%u%s/%s", place->state_directory,
                            (unsigned)place->uid, place->run, name) < 0) {
        close(fd);
        fd = -ENOMEM;
    }
    close(directory);
    return fd;
}

int gd_state_directory_open_file(const struct gd_event_place *place, double now, char **ret_path,
                                 struct gd_error *ret_error) {
    char printable[GD_ERROR_TEXT_BYTES];
    if (!place->state_directory)
        return gd_error_set(ret_error, GD_ERROR_UNSUPPORTED, "event_file",
                            "event_file is missing, and this daemon has no state directory to create one in");
    int fd = open_file(place, now, ret_path);
    if (fd >= 0)
        return fd;
    gd_text_copy_printable(printable, sizeof(printable), place->state_directory);
    return gd_error_set(ret_error, GD_ERROR_INTERNAL, "event_file", "event_file cannot be opened: %s: %s/%u/%s",
                        strerror(-fd), printable, (unsigned)place->uid, place->run);
}
