// gradientd: optimisation diagnostics beside a training job.

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server.h"
#include "session.h"

static const char usage[] =
    "Usage: gradientd --socket PATH [--workers N]\n"
    "\n"
    "Computes gradient coherence and Adam-type convergence ratios for training jobs that connect to the Unix socket\n"
    "PATH, and writes them into their TensorBoard event files. SIGTERM finishes what was submitted and ends it.\n"
    "\n"
    "  --socket PATH           where to listen\n"
    "  --workers N             threads that analyse snapshots, 1 to 64 (default: half the cores)\n"
    "  --connection-fd N       serve one connected socket and end with it (how a client starts a private daemon)\n"
    "  --version\n"
    "  --help\n"
    "\n"
    "Environment: GRADIENTD_KERNELS=scalar chooses the kernels by name.\n";

// A usage error: a line on stderr, exit status 2.
__attribute__((format(printf, 1, 2), noreturn)) static void usage_error(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("gradientd: ", stderr);
    vfprintf(stderr, format, arguments);
    fputs("; see gradientd --help\n", stderr);
    va_end(arguments);
    exit(2);
}

static int parse_number(const char *option, const char *text, long least, long most) {
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || end == text || *end || value < least || value > most)
        usage_error("%s is %s, the limits are %ld and %ld", option, text, least, most);
    return (int)value;
}

static uint32_t default_workers(void) {
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    long workers = cores / 2;
    if (workers < 1)
        return 1;
    return workers < GD_WORKERS_MAX ? (uint32_t)workers : GD_WORKERS_MAX;
}

static void parse_arguments(int argc, char **argv, struct gd_server_options *options) {
    static const struct option known[] = {
        {"socket", required_argument, NULL, 's'},
        {"workers", required_argument, NULL, 'w'},
        {"connection-fd", required_argument, NULL, 'c'},
        {"version", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 's':
            options->socket_path = optarg;
            break;
        case 'w':
            options->workers = (uint32_t)parse_number("--workers", optarg, 1, GD_WORKERS_MAX);
            break;
        case 'c':
            options->connection_fd = parse_number("--connection-fd", optarg, 3, 1 << 20);
            break;
        case 'v':
            puts("gradientd " GD_VERSION);
            exit(EXIT_SUCCESS);
        case 'h':
            fputs(usage, stdout);
            exit(EXIT_SUCCESS);
        default:
            fputs("See gradientd --help\n", stderr);
            exit(2);
        }
    }
    if (optind < argc)
        usage_error("unexpected argument %s", argv[optind]);
    if (!options->socket_path == (options->connection_fd < 0))
        usage_error("give either --socket or --connection-fd");
}

// A private daemon leaves the trainer's session and process tree: its Ctrl-C and wait() do not concern it. The trainer
// waits for this process, which ends as soon as the daemon proper is on its way.
static void detach(int connection_fd) {
    setsid();
    pid_t child = fork();
    if (child != 0)
        _exit(child < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
    if (chdir("/") < 0)
        _exit(EXIT_FAILURE);
    fcntl(connection_fd, F_SETFD, FD_CLOEXEC);
    fcntl(connection_fd, F_SETFL, O_NONBLOCK);
}

int main(int argc, char **argv) {
    struct gd_server_options options = {.connection_fd = -1, .workers = default_workers()};
    parse_arguments(argc, argv, &options);
    const char *kernels = getenv("GRADIENTD_KERNELS");
    if (gd_kernels_select(kernels, &options.kernels) < 0)
        usage_error("GRADIENTD_KERNELS is %s, which is unknown or needs another machine", kernels);
    if (!options.socket_path)
        detach(options.connection_fd);
    return gd_server_run(&options);
}
