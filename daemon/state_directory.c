#include "state_directory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "environment.h"
#include "event_path.h"
#include "folder_acl.h"
#include "log.h"
#include "text.h"

enum {
    DIRECTORY_MODE = 0700, // gradients tell about the data they came from: a user's runs are no other user's business
    FILE_MODE = 0600,
    SHARED_MODE = 0755, // of a state directory that others pass through to their folders
};

// A directory on the way to the place's file, and the rights of what is created in it.
struct way {
    int directory; // a descriptor, or a negative errno
    mode_t directory_mode;
    mode_t file_mode;
};

int gd_state_directory_default(char **ret_path) {
    const char *given = gd_environment_directory("STATE_DIRECTORY");
    const char *state = gd_environment_directory("XDG_STATE_HOME"), *home = gd_environment_directory("HOME");
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

static int open_state_directory(const char *path, mode_t mode) {
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 || errno != ENOENT)
        return fd < 0 ? -errno : fd;
    char *missing = strdup(path);
    int result = missing ? gd_event_path_make_directories(missing, mode) : -ENOMEM;
    free(missing);
    if (result < 0)
        return result;
    fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

// Goes on into the directory called `name`, creating it if need be; the one before it is closed.
static void enter(struct way *way, const char *name) {
    int fd = -1, directory = way->directory;
    if (directory < 0)
        return;
    if (mkdirat(directory, name, way->directory_mode) == 0 || errno == EEXIST)
        fd = openat(directory, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    way->directory = fd < 0 ? -errno : fd;
    close(directory);
}

// Enters each component of `path`, which is relative.
static void enter_path(struct way *way, const char *path) {
    char name[NAME_MAX + 1];
    while (*path && way->directory >= 0) {
        size_t bytes = strcspn(path, "/");
        snprintf(name, sizeof(name), "%.*s", (int)bytes, path);
        enter(way, name);
        path += bytes + (path[bytes] == '/');
    }
}

// Lets the user, who is not the daemon's, and the admin group read what is below this folder of theirs.
static void share(struct way *way, const struct gd_event_place *place) {
    int result = gd_folder_acl_share(way->directory, place->uid, place->admin_group);
    if (result < 0) {
        gd_log(GD_LOG_WARNING, "run %s: uid %u will not be able to read its event file: no ACL can be set: %s",
               place->run, (unsigned)place->uid, strerror(-result));
        return;
    }
    way->directory_mode = GD_FOLDER_DIRECTORY_MODE;
    way->file_mode = GD_FOLDER_FILE_MODE;
}

// To the directory of the place's files.
static struct way open_way(const struct gd_event_place *place) {
    char user[16];
    bool others = place->uid != geteuid();
    struct way way = {
        .directory = open_state_directory(place->state_directory, others ? SHARED_MODE : DIRECTORY_MODE),
        .directory_mode = DIRECTORY_MODE,
        .file_mode = FILE_MODE,
    };
    snprintf(user, sizeof(user), "%u", (unsigned)place->uid);
    enter(&way, user);
    if (others && way.directory >= 0)
        share(&way, place);
    enter_path(&way, place->run);
    return way;
}

static int open_or_create(const struct gd_event_place *place, const struct way *way, double now,
                          char ret_name[GD_EVENT_NAME_BYTES]) {
    if (!*place->name)
        return gd_event_path_create(way->directory, now, place->pid, way->file_mode, ret_name);
    snprintf(ret_name, GD_EVENT_NAME_BYTES, "%s", place->name);
    int fd = openat(way->directory, place->name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, way->file_mode);
    return fd < 0 ? -errno : fd;
}

static int open_file(const struct gd_event_place *place, double now, char **ret_path) {
    char name[GD_EVENT_NAME_BYTES];
    struct way way = open_way(place);
    if (way.directory < 0)
        return way.directory;
    int fd = open_or_create(place, &way, now, name);
    if (fd >= 0 && asprintf(ret_path, *place->run ? "%s/%u/%s/%s" : "%s/%u%s/%s", place->state_directory,
                            (unsigned)place->uid, place->run, name) < 0) {
        close(fd);
        fd = -ENOMEM;
    }
    close(way.directory);
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
