#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../tools/remove_tree.h"
#include "crash.h"

static const double PATIENCE = 60.0; // seconds; generous: a sanitizer's daemon on a loaded machine

double crash_now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

void crash_pause_us(uint32_t microseconds) {
    struct timespec pause = {.tv_sec = microseconds / 1000000, .tv_nsec = (long)(microseconds % 1000000) * 1000};
    nanosleep(&pause, NULL);
}

int crash_fail(const char *format, ...) {
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    fprintf(stderr, "crash: %s\n", line);
    return -1;
}

static void path_in(const struct crash_daemon *daemon, const char *name, char ret_path[static CRASH_PATH_BYTES]) {
    snprintf(ret_path, CRASH_PATH_BYTES, "%.200s/%s", daemon->directory, name);
}

static int map_page(struct crash_daemon *daemon) {
    char path[CRASH_PATH_BYTES];
    path_in(daemon, "page", path);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(*daemon->page)) < 0)
        return crash_fail("%s: %s", path, strerror(errno));
    void *memory = mmap(NULL, sizeof(*daemon->page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (memory == MAP_FAILED)
        return crash_fail("%s: %s", path, strerror(errno));
    daemon->page = memory;
    setenv("GRADIENTD_FAULT_PAGE", path, 1); // for all daemons that are started
    return 0;
}

static int make_directory(struct crash_daemon *daemon) {
    const char *scratch = getenv("TMPDIR");
    snprintf(daemon->directory, sizeof(daemon->directory), "%.80s/crash-XXXXXX", scratch ? scratch : "/tmp");
    return mkdtemp(daemon->directory) ? 0 : crash_fail("%s: %s", daemon->directory, strerror(errno));
}

int crash_daemon_init(struct crash_daemon *daemon, const char *program, const char *directory) {
    *daemon = (struct crash_daemon){.program = program, .keeps_directory = directory != NULL};
    if (directory)
        snprintf(daemon->directory, sizeof(daemon->directory), "%.80s", directory);
    else if (make_directory(daemon) < 0)
        return -1;
    path_in(daemon, "socket", daemon->socket);
    return map_page(daemon);
}

void crash_daemon_deinit(struct crash_daemon *daemon) {
    if (daemon->page)
        munmap(daemon->page, sizeof(*daemon->page));
    if (!daemon->keeps_directory)
        remove_tree(daemon->directory);
}

int crash_daemon_start(struct crash_daemon *daemon) {
    char log[CRASH_PATH_BYTES], socket_option[] = "--socket", workers_option[] = "--workers", workers[] = "2";
    char *arguments[] = {
        (char *)(uintptr_t)daemon->program, socket_option, daemon->socket, workers_option, workers, NULL};
    posix_spawn_file_actions_t actions;

    for (uint32_t i = 0; i < GD_FAULT_POINT_COUNT; i++)
        daemon->page->reached[i] = 0;
    daemon->page->attaching = daemon->page->kernels = 0;
    daemon->page->appended = daemon->page->written = 0;
    path_in(daemon, "daemon.log", log);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    int result = posix_spawn(&daemon->pid, daemon->program, &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    return result == 0 ? 0 : crash_fail("%s: %s", daemon->program, strerror(result));
}

int crash_daemon_wait_up(const struct crash_daemon *daemon) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%.100s", daemon->socket);
    for (double start = crash_now(); crash_now() - start < PATIENCE; crash_pause_us(1000)) {
        char byte;
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool up = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
        if (up && shutdown(fd, SHUT_WR) == 0)
            (void)!read(fd, &byte, 1); // until the daemon has closed its end, which would count among its descriptors
        close(fd);
        if (up)
            return 0;
    }
    return crash_fail("the daemon does not listen");
}

int crash_daemon_wait_end(struct crash_daemon *daemon) {
    int status;
    for (double start = crash_now(); crash_now() - start < PATIENCE; crash_pause_us(200))
        if (waitpid(daemon->pid, &status, WNOHANG) == daemon->pid) {
            daemon->pid = 0;
            return status;
        }
    return crash_fail("the daemon does not end");
}

int crash_daemon_kill(struct crash_daemon *daemon) {
    kill(daemon->pid, SIGKILL);
    int status = crash_daemon_wait_end(daemon);
    if (status < 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL))
        return status < 0 ? -1 : 0;
    return crash_fail("the daemon ended with 0x%x before it was killed", (unsigned)status);
}

int crash_daemon_stop(struct crash_daemon *daemon) {
    if (daemon->pid == 0)
        return 0;
    kill(daemon->pid, SIGTERM);
    int status = crash_daemon_wait_end(daemon);
    return status <= 0 ? status : crash_fail("the daemon's wait status is 0x%x", (unsigned)status);
}

void crash_daemon_print_log(const struct crash_daemon *daemon) {
    char path[CRASH_PATH_BYTES], line[1024];
    path_in(daemon, "daemon.log", path);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file))
        fputs(line, stderr);
    if (file)
        fclose(file);
}
