#include "event_path.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

static int create_in(const char *path, char **ret_path) {
    char name[GD_EVENT_NAME_BYTES];
    int directory = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return -errno;
    int fd = gd_event_path_create(directory, client_now(), getpid(), 0666, name);
    if (fd >= 0 && (fd = client_lift_descriptor(fd)) < 0)
        fd = -errno;
    if (fd >= 0 && asprintf(ret_path, "%s/%s", path, name) < 0) {
        unlinkat(directory, name, 0);
        close(fd);
        fd = -ENOMEM;
    }
    close(directory);
    return fd;
}

int client_create_event_file(const char *logdir, const char *run, char **ret_path, struct gradientd_error *ret_error) {
    char *directory;
    if (asprintf(&directory, *run ? "%s/%s" : "%s%s", logdir, run) < 0)
        return client_fail(ret_error, ENOMEM, "out of memory");
    int result = gd_event_path_make_directories(directory, 0777);
    if (result == 0)
        result = create_in(directory, ret_path);
    if (result < 0)
        client_fail(ret_error, -result, "cannot create an event file in %s: %s", directory, strerror(-result));
    free(directory);
    return result;
}
