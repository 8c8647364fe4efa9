#include "metrics_file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "writer_thread.h"

enum { FILE_MODE = 0644 }; // collectors run as somebody else

struct gd_metrics_file {
    char *path, *temporary; // owned: the thread may outlive whoever gave the path
    pthread_t thread;
    pthread_mutex_t mutex; // of all that follows
    pthread_cond_t changed;
    struct gd_metrics_text text; // the thread's own while busy
    bool busy;                   // there is text to write, or it is being written
    bool ending;
    bool failing; // the thread's own: the last write failed
};

static int write_all(int fd, const char *text, size_t bytes) {
    while (bytes > 0) {
        ssize_t written = write(fd, text, bytes);
        if (written < 0 && errno != EINTR)
            return -errno;
        if (written > 0) {
            text += written;
            bytes -= (size_t)written;
        }
    }
    return 0;
}

// The temporary file may be there still from a daemon that was killed; whatever else is in its place is not followed.
static int write_temporary(const struct gd_metrics_file *file) {
    unlink(file->temporary);
    int fd = open(file->temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, FILE_MODE);
    if (fd < 0)
        return -errno;
    int result = write_all(fd, file->text.text, file->text.bytes);
    if (result == 0 && fchmod(fd, FILE_MODE) < 0) // whatever the umask
        result = -errno;
    if (close(fd) < 0 && result == 0)
        result = -errno;
    return result;
}

static int replace(const struct gd_metrics_file *file) {
    int result = write_temporary(file);
    if (result == 0 && rename(file->temporary, file->path) < 0)
        result = -errno;
    if (result < 0)
        unlink(file->temporary);
    return result;
}

static void tell(struct gd_metrics_file *file, int result) {
    if (result < 0 && !file->failing)
        gd_log(GD_LOG_ERROR, "metrics file %s: not written: %s; trying again", file->path, strerror(-result));
    if (result == 0 && file->failing)
        gd_log(GD_LOG_INFO, "metrics file %s: written again", file->path);
    file->failing = result < 0;
}

static void *run_thread(void *argument) {
    struct gd_metrics_file *file = argument;
    pthread_mutex_lock(&file->mutex);
    while (file->busy || !file->ending) {
        if (!file->busy) {
            pthread_cond_wait(&file->changed, &file->mutex);
            continue;
        }
        pthread_mutex_unlock(&file->mutex);
        tell(file, replace(file));
        pthread_mutex_lock(&file->mutex);
        file->busy = false;
        pthread_cond_broadcast(&file->changed);
    }
    pthread_mutex_unlock(&file->mutex);
    return NULL;
}

static void free_file(struct gd_metrics_file *file) {
    pthread_cond_destroy(&file->changed);
    pthread_mutex_destroy(&file->mutex);
    free(file->path);
    free(file->temporary);
    free(file);
}

int gd_metrics_file_new(const char *path, struct gd_metrics_file **ret_file) {
    struct gd_metrics_file *file = calloc(1, sizeof(*file));
    if (!file)
        return -ENOMEM;
    file->path = strdup(path);
    if (!file->path || asprintf(&file->temporary, "%s.tmp", path) < 0) {
        free(file->path);
        free(file);
        return -ENOMEM;
    }
    int result = gd_writer_thread_start(&file->thread, &file->mutex, &file->changed, run_thread, file);
    if (result < 0) {
        free_file(file);
        return result;
    }
    *ret_file = file;
    return 0;
}

// The mutex is held.
static void hand_over(struct gd_metrics_file *file, const struct gd_metrics_text *text) {
    file->text = *text;
    file->busy = true;
    pthread_cond_broadcast(&file->changed);
}

bool gd_metrics_file_write(struct gd_metrics_file *file, const struct gd_metrics_text *text) {
    pthread_mutex_lock(&file->mutex);
    bool idle = !file->busy;
    if (idle)
        hand_over(file, text);
    pthread_mutex_unlock(&file->mutex);
    return idle;
}

// Returns whether the thread has done by then. The mutex is held.
static bool wait_idle(struct gd_metrics_file *file, const struct timespec *until) {
    while (file->busy)
        if (pthread_cond_timedwait(&file->changed, &file->mutex, until) == ETIMEDOUT)
            return !file->busy;
    return true;
}

void gd_metrics_file_finish(struct gd_metrics_file *file, const struct gd_metrics_text *text, int milliseconds) {
    struct timespec until;
    if (!file)
        return;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)(milliseconds % 1000) * 1000000;
    until.tv_sec += milliseconds / 1000 + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;

    pthread_mutex_lock(&file->mutex);
    if (wait_idle(file, &until))
        hand_over(file, text);
    bool done = wait_idle(file, &until);
    file->ending = true;
    pthread_cond_broadcast(&file->changed);
    pthread_mutex_unlock(&file->mutex);
    if (!done) {
        gd_log(GD_LOG_WARNING, "metrics file %s: not written within %d ms", file->path, milliseconds);
        pthread_detach(file->thread);
        return;
    }
    pthread_join(file->thread, NULL);
    free_file(file);
}
