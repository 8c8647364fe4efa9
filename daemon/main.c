// gradientd: optimisation diagnostics beside a training job.

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "config.h"
#include "options.h"
#include "server.h"

enum { USAGE_ERROR = 2 }; // exit status

// A private daemon leaves the trainer's session and process tree: its Ctrl-C and wait() do not concern it. A
// trainer that starts it as a child waits for this process, which ends as soon as the daemon proper is on its way.
static void detach(int connection_fd) {
    setsid();
    pid_t child = fork();
    if (child != 0)
        _exit(child < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
    if (chdir("/") < 0)
        _exit(EXIT_FAILURE);
    unsetenv("NOTIFY_SOCKET"); // it is the trainer's, where that is a service
    fcntl(connection_fd, F_SETFD, FD_CLOEXEC);
    fcntl(connection_fd, F_SETFL, O_NONBLOCK);
}

// Each run takes three descriptors, so the usual soft limit of 1,024 would end what the quotas of a few users allow. A
// private daemon serves one run: there the limit that the user has set for the job stands.
static void raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit); // without it, clients beyond the limit wait in the socket's backlog
}

// Whatever wakes one of our threads must not take the processor from the trainer that did: with the usual policy, on
// two cores that had other work as well, a step handed over while the daemon was busy often cost its trainer a time
// slice, 4 to 9 ms, and 3 us with this one. Threads inherit it. A policy that somebody chose stays.
static void give_way(void) {
    if (sched_getscheduler(0) == SCHED_OTHER)
        sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){.sched_priority = 0});
}

// No descriptor of ours may have the number of a standard one that is closed: log lines would be written into it.
static void open_standard_descriptors(void) {
    int fd;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

static void refuse_kernels(const char *name) {
    const struct gd_kernels *kernels;
    bool supported;

    fprintf(stderr, "gradientd: GRADIENTD_KERNELS is %s; this machine runs", name);
    for (size_t i = 0; (kernels = gd_kernels_variant(i, &supported)); i++)
        if (supported)
            fprintf(stderr, " %s", kernels->name);
    fputc('\n', stderr);
}

static void print_error(void *context, const char *path, unsigned line, const char *text) {
    (void)context;
    if (line > 0)
        fprintf(stderr, "gradientd: %s:%u: %s\n", path, line, text);
    else
        fprintf(stderr, "gradientd: %s: %s\n", path, text);
}

// Reads the configuration; what is wrong with it is printed. Returns 0 or the exit status.
static int read_config(const struct gd_command_line *command_line, struct gd_config *config) {
    struct gd_config_report report = {.say = print_error};
    int result = gd_config_read(config, command_line, &report);
    if (result == -EBADMSG)
        return USAGE_ERROR;
    if (result < 0)
        fprintf(stderr, "gradientd: cannot read the configuration: %s\n", strerror(-result));
    return result < 0 ? EXIT_FAILURE : 0;
}

static int serve(struct gd_server_options *options) {
    const char *kernels = getenv("GRADIENTD_KERNELS");
    if (gd_kernels_select(kernels, &options->kernels) < 0) {
        refuse_kernels(kernels);
        return USAGE_ERROR;
    }
    give_way();
    if (options->connection_fd < 0)
        raise_descriptor_limit();
    else
        detach(options->connection_fd);
    return gd_server_run(options);
}

int main(int argc, char **argv) {
    struct gd_command_line command_line;
    struct gd_config config;
    struct gd_error error;

    signal(SIGHUP, SIG_IGN); // one that comes before the daemon listens to it must not end it
    open_standard_descriptors();
    if (gd_options_parse(argc, argv, &command_line, &error) < 0) {
        fprintf(stderr, "gradientd: %s; see gradientd --help\n", error.text);
        return USAGE_ERROR;
    }
    if (command_line.action == GD_OPTIONS_HELP || command_line.action == GD_OPTIONS_VERSION) {
        fputs(command_line.action == GD_OPTIONS_HELP ? gd_options_usage : "gradientd " GD_VERSION "\n", stdout);
        return EXIT_SUCCESS;
    }
    int status = read_config(&command_line, &config);
    if (status == 0 && command_line.action == GD_OPTIONS_CHECK)
        gd_config_print(&config, stdout);
    else if (status == 0)
        status = serve(&config.options);
    gd_config_deinit(&config);
    return status;
}
